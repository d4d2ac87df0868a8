"""Nominal figures of GPUs, from their vendors' data sheets; none was measured here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lora_bench.errors import UsageError


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet.

    Attributes:
        name: as `plan --gpu` takes it.
        memory_gb: in decimal gigabytes, which no card of that name falls below.
        bandwidth_gb_s: of its memory.
        bfloat16_tflops: dense products that are summed in float32; None without bfloat16.
        float32_tflops: without tensor cores, as TF32 is switched off.
    """

    name: str
    memory_gb: float
    bandwidth_gb_s: float
    bfloat16_tflops: float | None
    float32_tflops: float

    @property
    def memory_gib(self) -> float:
        """Memory in binary gigabytes."""
        return self.memory_gb * 1e9 / 2**30


CARDS = (
    Card("H200 141GB", 141, 4800, 989, 67),
    Card("H100 80GB", 80, 3350, 989, 67),
    Card("H100 PCIe 80GB", 80, 2000, 756, 51),
    Card("A100 80GB", 80, 2039, 312, 19.5),
    Card("A100 PCIe 80GB", 80, 1935, 312, 19.5),
    Card("A100 40GB", 40, 1555, 312, 19.5),
    Card("A40 48GB", 48, 696, 149.7, 37.4),
    Card("A10 24GB", 24, 600, 125, 31.2),
    Card("L40S 48GB", 48, 864, 362, 91.6),
    Card("L40 48GB", 48, 864, 181, 90.5),
    Card("L4 24GB", 24, 300, 121, 30.3),
    Card("T4 16GB", 16, 320, None, 8.1),
    Card("RTX 4090 24GB", 24, 1008, 165, 82.6),
    Card("RTX 3090 24GB", 24, 936, 71, 35.6),
    Card("RTX 4070 12GB", 12, 504, 58, 29.1),
)
"""H100 80GB and A100 without PCIe are the SXM modules."""


def choose_card(name: str) -> Card:
    """Return the card of a name, with or without its memory if that is no choice.

    Raises:
        UsageError: no card has it, or several do; the known ones are listed.
    """
    wanted = _normalize(name)
    exact = [card for card in CARDS if _normalize(card.name) == wanted]
    if exact:
        return exact[0]
    alike = [card for card in CARDS if set(wanted.split()) <= set(_normalize(card.name).split())]
    if wanted and len(alike) == 1:
        return alike[0]
    known = ", ".join(card.name for card in CARDS)
    if alike and wanted:
        raise UsageError(
            f"--gpu {name}: it may be {' or '.join(card.name for card in alike)}; give one of them"
        )
    raise UsageError(f"--gpu {name}: this GPU is not known, expected one of {known}")


def find_card(device: str) -> Card | None:
    """Return the card of a name that torch or the driver gives, such as `NVIDIA H100 80GB HBM3`; None if unknown."""
    words = set(_normalize(device).split())
    if "mig" in words:  # a part of a card
        return None
    found = [card for card in CARDS if set(_normalize(card.name).split()) <= words]
    if not found:  # a name without memory, such as `NVIDIA L4`
        found = [card for card in CARDS if set(_normalize(card.name).split()[:-1]) == words]
    return max(found, key=lambda card: len(card.name.split())) if found else None


def _normalize(name: str) -> str:
    spaced = re.sub(r"(\d+)\s*gb?\b", r"\1gb", name.lower())
    words = re.sub(r"[^a-z0-9]+", " ", spaced).split()
    return " ".join(
        word for word in words if word not in {"nvidia", "geforce", "tesla", "sxm4", "sxm5", "sxm"}
    )
