"""The models that benchmarks run on, offline: musicgen-small's shape with random weights, or pocket."""

from __future__ import annotations

import torch

from lora_bench.models.loading import describe_network, load_model
from lora_bench.models.random_model import SMALL, TINY, build_random_musicgen, build_tokenizer
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec

SHAPES = {"small": SMALL, "tiny": TINY}
NAMES = ("pocket", *SHAPES)


def make_model(name: str) -> TransformersMusicGen:
    """`pocket`, or random weights of a shape, float32 on the CPU."""
    if name == "pocket":
        return load_model(ModelSpec(), device="cpu")
    network = build_random_musicgen(SHAPES[name])
    info = describe_network(network, name=f"random {name}", weights_hash="random", trained=False)
    return TransformersMusicGen(
        network, build_tokenizer(), info, device=torch.device("cpu"), dtype=torch.float32
    )
