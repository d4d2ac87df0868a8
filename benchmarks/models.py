"""The models that benchmarks run on, offline: musicgen-small's shape with random weights, or pocket."""

from __future__ import annotations

import torch

from lora_bench.models.adaptable import AdaptableMusicGen
from lora_bench.models.audiocraft_library import require_audiocraft
from lora_bench.models.bridges.parts import MusicGenParts, take_apart
from lora_bench.models.loading import describe_network, load_model
from lora_bench.models.random_model import SMALL, TINY, build_random_musicgen, build_tokenizer
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec

SHAPES = {"small": SMALL, "tiny": TINY}
NAMES = ("pocket", *SHAPES)


def make_model(name: str, backend: str = "transformers") -> AdaptableMusicGen:
    """`pocket`, or random weights of a shape (the same in both backends), float32 on the CPU."""
    if name == "pocket":
        return load_model(ModelSpec(backend=backend), device="cpu")
    network, tokenizer = build_random_musicgen(SHAPES[name]), build_tokenizer()
    with torch.no_grad():  # the published decoders hold numbers of float16, though their files say float32
        for weight in network.decoder.parameters():
            weight.copy_(weight.half())
    info = describe_network(network, name=f"random {name}", weights_hash="random", trained=False)
    cpu = torch.device("cpu")
    if backend == "audiocraft":
        require_audiocraft()
        from lora_bench.models.audiocraft_loading import make_model as make_audiocraft_model

        return make_audiocraft_model(take_apart(network, tokenizer), info, device=cpu, dtype=torch.float32)
    return TransformersMusicGen(network, tokenizer, info, device=cpu, dtype=torch.float32)


def make_audiocraft_parts(name: str) -> MusicGenParts:
    """The same weights for audiocraft's own networks."""
    require_audiocraft()
    model = make_model(name)
    return take_apart(model.network, model._tokenizer)
