"""Weights that decoding folds an adapter into, against PEFT's own merge of the saved adapter, for every kind.

    python benchmarks/merged_weights.py > benchmarks/results/merged_weights.md

The pocket model; each adapter's numbers are moved at random after injection, so that its update is not zero.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import peft
import torch
from transformers import MusicgenForConditionalGeneration

from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.linears import pack_linears
from lora_bench.models.lora import read_linear
from lora_bench.models.pocket import WEIGHTS
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import LoraSpec, ModelSpec

SPREAD = 0.02

HEAD = f"""# Merged weights, against PEFT's

`python benchmarks/merged_weights.py`: pocket model, rank 8 (or what a kind has instead) on `all`, adapters moved by
normal numbers with a standard deviation of {SPREAD:g}. Differences over all adapted matrices, absolute.

| kind | matrices | largest change of a weight | largest difference, decoding less PEFT's merge |
|:---|---:|---:|---:|"""


def fold(model: MusicModel, name: str) -> torch.Tensor:
    """Return a module's weight as decoding reads it."""
    return pack_linears([read_linear(model.network.get_submodule(name))]).folded().weight


def measure(model: MusicModel, lora: LoraSpec) -> tuple[int, float, float]:
    """Return matrices that differ from the base, the largest change, and the largest difference from PEFT's merge."""
    model.remove_adapter()
    names = model.linear_module_names()
    base = {name: fold(model, name).clone() for name in names}
    model.inject_lora(lora, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.adapter_parameters().values():
            value.add_(SPREAD * torch.randn(value.shape, generator=generator))
    with tempfile.TemporaryDirectory() as folder:
        model.save_adapter(Path(folder) / "adapter")
        ours = {name: fold(model, name).clone() for name in names}
        plain = MusicgenForConditionalGeneration.from_pretrained(WEIGHTS)
        merged = peft.PeftModel.from_pretrained(plain, str(Path(folder) / "adapter")).merge_and_unload()
    changes = {name: float((ours[name] - base[name]).abs().max()) for name in names}
    differences = [float((ours[name] - merged.get_submodule(name).weight).abs().max()) for name in names]
    return sum(change > 0 for change in changes.values()), max(changes.values()), max(differences)


def main() -> None:
    model = load_model(ModelSpec(id="pocket"), device="cpu")
    print(HEAD)
    for kind in SETTINGS:
        settings = {"rank": 8} if "rank" in SETTINGS[kind] else {}
        n, change, difference = measure(model, LoraSpec(kind=kind, targets="all", **settings))
        print(f"| {kind} | {n} | {change:.3g} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
