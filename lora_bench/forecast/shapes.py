"""A MusicGen's layers, sizes and audio format without loading it: from its config.json, or as published."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lora_bench.forecast.frozen_parts import ENCODEC_32KHZ, T5_BASE, count_codec, count_text_encoder
from lora_bench.spec.schema import ModelSpec

Json = Mapping[str, Any]
T5_BASE_WIDTH = 768
MAX_POSITIONS = 2048
# Published by Meta: decoder layers, width, feed-forward width, heads of attention; a stereo model has twice the
# codebooks.
_PUBLISHED = {
    "small": (24, 1024, 4096, 16),
    "medium": (48, 1536, 6144, 24),
    "large": (48, 2048, 8192, 32),
}


@dataclass(frozen=True)
class Linear:
    """One linear layer that LoRA can adapt: `n_in` to `n_out` features."""

    name: str
    group: str
    n_in: int
    n_out: int


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of the decoder, and of the states that it reads the text from."""

    n_layers: int
    width: int
    ffn_width: int
    n_heads: int
    text_width: int
    n_codebooks: int
    codebook_size: int
    max_positions: int = MAX_POSITIONS


@dataclass(frozen=True)
class ModelShape:
    """What size and cost of an adapter, of training and of clips depend on.

    Attributes:
        linears: adaptable layers of the decoder, and the projection of the text.
        decoder: its sizes.
        n_frozen: numbers in text encoder and codec.
        hop_samples: samples per codec frame.
        origin: where this was read.
    """

    linears: tuple[Linear, ...]
    decoder: DecoderSizes
    n_frozen: int
    sample_rate_hz: int
    channels: int
    hop_samples: int
    origin: str

    @property
    def n_codebooks(self) -> int:
        """Of all channels together."""
        return self.decoder.n_codebooks


def find_shape(model: ModelSpec) -> ModelShape | None:
    """Shape of a model that is on this machine or whose sizes are published; None if neither."""
    for place in config_files(model):
        shape = _read_config(place)
        if shape is not None:
            return shape
    owner, _, name = model.id.partition("/")
    size = name.removeprefix("musicgen-").removeprefix("stereo-")
    if owner == "facebook" and name.startswith("musicgen-") and size in _PUBLISHED:
        return _published_shape(size, is_stereo=name.startswith("musicgen-stereo-"))
    return None


def config_files(model: ModelSpec) -> Iterator[Path]:
    """Where the config may lie: in the package, in a local folder, in the hub's cache."""
    if model.id == "pocket":
        weights = resources.files("lora_bench").joinpath("models", "pocket", "weights", "config.json")
        yield Path(str(weights))
        return
    yield Path(model.id).expanduser() / "config.json"
    repository = hub_cache() / f"models--{model.id.replace('/', '--')}"
    reference = repository / "refs" / (model.revision or "main")
    revision = reference.read_text(encoding="utf-8").strip() if reference.is_file() else model.revision
    if revision:
        yield repository / "snapshots" / revision / "config.json"


def hub_cache() -> Path:
    """The Hugging Face cache as huggingface_hub finds it (importing that takes a quarter of a second)."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "huggingface") / "hub"


def _read_config(place: Path) -> ModelShape | None:
    """Shape from a config; None if there is none, or it is not a MusicGen's."""
    try:
        config: Json = json.loads(place.read_text(encoding="utf-8"))
        if config.get("model_type") != "musicgen":
            return None
        decoder, codec, text = (config[name] for name in ("decoder", "audio_encoder", "text_encoder"))
        sizes = DecoderSizes(
            n_layers=int(decoder.get("num_hidden_layers", 24)),
            width=int(decoder.get("hidden_size", 1024)),
            ffn_width=int(decoder.get("ffn_dim", 4096)),
            n_heads=int(decoder.get("num_attention_heads", 16)),
            text_width=int(text.get("d_model", T5_BASE_WIDTH)),
            n_codebooks=int(decoder.get("num_codebooks", 4)),
            codebook_size=int(decoder.get("vocab_size", 2048)),
            max_positions=int(decoder.get("max_position_embeddings", MAX_POSITIONS)),
        )
        channels = int(decoder.get("audio_channels", 1))
        return ModelShape(
            linears=_list_linears(sizes),
            decoder=sizes,
            n_frozen=count_text_encoder(text) + count_codec(codec, sizes.n_codebooks // channels),
            sample_rate_hz=int(codec.get("sampling_rate", 32_000)),
            channels=channels,
            hop_samples=math.prod(codec.get("upsampling_ratios", (8, 5, 4, 4))),
            origin="the model's config.json",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _published_shape(size: str, *, is_stereo: bool) -> ModelShape:
    n_layers, width, ffn_width, n_heads = _PUBLISHED[size]
    channels = 2 if is_stereo else 1
    sizes = DecoderSizes(
        n_layers=n_layers,
        width=width,
        ffn_width=ffn_width,
        n_heads=n_heads,
        text_width=T5_BASE_WIDTH,
        n_codebooks=4 * channels,
        codebook_size=2048,
    )
    n_frozen = count_text_encoder(T5_BASE) + count_codec(ENCODEC_32KHZ, 4)
    return ModelShape(_list_linears(sizes), sizes, n_frozen, 32_000, channels, 640, "published sizes")


def _list_linears(sizes: DecoderSizes) -> tuple[Linear, ...]:
    """The layers under the names that they have in transformers."""
    width, ffn_width = sizes.width, sizes.ffn_width
    found: list[Linear] = []
    for layer in range(sizes.n_layers):
        stem = f"decoder.model.decoder.layers.{layer}"
        for attention, group in (("self_attn", "self_attention"), ("encoder_attn", "cross_attention")):
            found += [
                Linear(f"{stem}.{attention}.{part}", group, width, width)
                for part in ("k_proj", "v_proj", "q_proj", "out_proj")
            ]
        found.append(Linear(f"{stem}.fc1", "ffn", width, ffn_width))
        found.append(Linear(f"{stem}.fc2", "ffn", ffn_width, width))
    found += [
        Linear(f"decoder.lm_heads.{book}", "heads", width, sizes.codebook_size)
        for book in range(sizes.n_codebooks)
    ]
    if sizes.text_width != width:
        found.append(Linear("enc_to_dec_proj", "conditioning", sizes.text_width, width))
    return tuple(found)
