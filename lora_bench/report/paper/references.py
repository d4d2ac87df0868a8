"""References of the models, metrics, adapters and software that a run used."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from lora_bench.metrics.names import CODEC_MATCHED, MELODY_AGREEMENT, TAG_ADHERENCE

_KEYS = {
    "lora+": "loraplus",
    "lora-bench": "lora_bench",
    "encodec-24k": "encodec",
    "clap_score": "clap",
    "musicnn-tags": "musicnn",
    "loudness-range": "ebu3342",
    MELODY_AGREEMENT: "musicgen",
    TAG_ADHERENCE: "musicnn",
    **{f"audiobox-{axis}": "audiobox" for axis in ("ce", "cu", "pc", "pq")},
}
"""Keys of what is not named by its key."""


@cache
def read_entries() -> dict[str, str]:
    """Return the entries of `references.bib` by key."""
    text = files("lora_bench.report.paper").joinpath("references.bib").read_text(encoding="utf-8")
    return {
        found[1]: found[0] for found in re.finditer(r"@\w+\{(\w+),.*?^\}", text, re.MULTILINE | re.DOTALL)
    }


@dataclass
class Citations:
    """Collects what a text cites."""

    keys: list[str] = field(default_factory=list)
    """Keys of the entries, in order of appearance."""

    def cite(self, *names: str) -> str:
        r"""Return `\cite{...}` for kinds of adapters, encoders, distances or packages; empty if none is known."""
        keys = [key for name in names if (key := _KEYS.get(name, name)) in read_entries()]
        self.keys += [key for key in keys if key not in self.keys]
        return rf"\cite{{{','.join(keys)}}}" if keys else ""

    def cite_metric(self, metric: str) -> str:
        """Return citations of a metric's distance and encoder."""
        distance, _, encoder = metric.removesuffix(CODEC_MATCHED).rpartition("/")
        if metric in _KEYS:
            return self.cite(metric)
        return self.cite(distance or "fad", encoder)

    def write_bibtex(self) -> str:
        """Return the entries that were cited."""
        return "\n\n".join(read_entries()[key] for key in self.keys) + "\n"
