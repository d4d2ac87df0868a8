"""The models that benchmarks run on, offline: musicgen-small's shape with random weights, or pocket."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import nn

from benchmarks.random_model import SMALL, TINY, build_random_musicgen, build_tokenizer
from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.parts import MusicGenParts, take_apart
from lora_bench.models.loading import load_model
from lora_bench.models.model_info import describe_network
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec

SHAPES = {"small": SMALL, "tiny": TINY}
NAMES = ("pocket", *SHAPES)
CPU = torch.device("cpu")


def make_model(
    name: str,
    backend: Literal["transformers", "audiocraft"] = "transformers",
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> MusicModel:
    """`pocket`, or random weights of a shape (the same in both backends); its decoder in `dtype`."""
    if name == "pocket":
        spec = ModelSpec(backend=backend, dtype=_name_dtype(dtype))
        return load_model(spec, device=str(device))
    network, tokenizer = build_random_musicgen(SHAPES[name]), build_tokenizer()
    with torch.no_grad():  # the published decoders hold numbers of float16, though their files say float32
        for weight in cast("nn.Module", network.decoder).parameters():
            weight.copy_(weight.half())
    info = describe_network(network.config, name=f"random {name}", weights_hash="random", trained=False)
    if backend == "audiocraft":
        from lora_bench.models.audiocraft_library import require_audiocraft

        require_audiocraft()
        from lora_bench.models.audiocraft_backend.musicgen import AudiocraftMusicGen

        return AudiocraftMusicGen(take_apart(network, tokenizer), info, device=device, dtype=dtype)
    return TransformersMusicGen(network, tokenizer, info, device=device, dtype=dtype)


def _name_dtype(dtype: torch.dtype) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def make_audiocraft_parts(name: str) -> MusicGenParts:
    """The same weights for audiocraft's own networks."""
    model: Any = make_model(name)
    return take_apart(model.network, model._tokenizer)


def make_audiocraft_lm(name: str, device: torch.device = CPU) -> tuple[Any, Any]:
    """Audiocraft's own language model with the same weights in float32, and the whole model's config."""
    from lora_bench.models.audiocraft_library import require_audiocraft

    require_audiocraft()
    from lora_bench.models.audiocraft_backend.networks import build_lm

    parts = make_audiocraft_parts(name)
    lm: Any = build_lm(parts, name).to(device)
    if device.type != "cpu":
        lm.condition_provider.device = device
        for conditioner in lm.condition_provider.conditioners.values():
            conditioner.device = str(device)
            conditioner.t5.to(device)  # no submodule of it, so that it is not saved with it
    return lm, parts.config


def count_step_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the matrices that a decoding step reads: all of the decoder's but the text's keys and values.

    Args:
        config: of the whole MusicGen.
        dtype: that the decoder is in.
    """
    decoder = config.decoder
    width = decoder.hidden_size
    layer = 6 * width**2 + 2 * width * decoder.ffn_dim
    heads = decoder.num_codebooks * width * decoder.vocab_size
    return (decoder.num_hidden_layers * layer + heads) * dtype.itemsize
