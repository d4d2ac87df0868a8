"""A MusicGen's layers, sizes and audio format without loading it: from its config.json, or as published."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from lora_bench.forecast.frozen_parts import (
    ENCODEC_32KHZ,
    CodecSizes,
    TextEncoderSizes,
    count_codec,
    count_text_encoder,
)
from lora_bench.spec.schema import ModelSpec

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
    """One linear layer that LoRA can adapt: `n_in` to `n_out` features, and `n_bias` numbers of its bias."""

    name: str
    group: str
    n_in: int
    n_out: int
    n_bias: int = 0


@dataclass(frozen=True)
class MelodySizes:
    """Sizes of a melody model's first states, with the defaults of its config: their number, and pitch classes."""

    chroma_length: int = 235
    num_chroma: int = 12


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
    melody: MelodySizes | None = None
    """None in a model that attends to the text instead of reading it before the codes."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model that decide the cost of adapters, training and clips.

    Attributes:
        linears: adaptable layers of the decoder, and the projection of the text.
        decoder: its sizes.
        n_frozen: numbers in text encoder and codec.
        hop_samples: samples per codec frame.
        origin: where this was read.
        codec_filters: channels of the codec at the full sample rate.
    """

    linears: tuple[Linear, ...]
    decoder: DecoderSizes
    n_frozen: int
    sample_rate_hz: int
    channels: int
    hop_samples: int
    origin: str
    codec_filters: int = ENCODEC_32KHZ.num_filters

    @property
    def n_codebooks(self) -> int:
        """Of all channels together."""
        return self.decoder.n_codebooks


def find_shape(model: ModelSpec) -> ModelShape | None:
    """Return the shape of a model that is on this machine or whose sizes are published; None if neither."""
    for place in config_files(model):
        shape = _read_config(place)
        if shape is not None:
            return shape
    owner, _, name = model.id.partition("/")
    size = name.removeprefix("musicgen-").removeprefix("stereo-")
    melody = MelodySizes() if size.startswith("melody") else None
    if melody is not None:
        size = size.removeprefix("melody").removeprefix("-") or "medium"
    if owner == "facebook" and name.startswith("musicgen-") and size in _PUBLISHED:
        return _published_shape(size, is_stereo=name.startswith("musicgen-stereo-"), melody=melody)
    return None


def config_files(model: ModelSpec) -> Iterator[Path]:
    """Yield places of the config: in the package, in a local folder, in the hub's cache."""
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
    """Return the Hugging Face cache as huggingface_hub finds it (importing that takes a quarter of a second)."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


@dataclass(frozen=True)
class _DecoderConfig:
    """Sizes in a `MusicgenDecoderConfig`, with its defaults."""

    num_hidden_layers: int = 24
    hidden_size: int = 1024
    ffn_dim: int = 4096
    num_attention_heads: int = 16
    num_codebooks: int = 4
    vocab_size: int = 2048
    max_position_embeddings: int = MAX_POSITIONS
    audio_channels: int = 1


@dataclass(frozen=True)
class _CodecConfig(CodecSizes):
    sampling_rate: int = 32_000


@dataclass(frozen=True)
class _Config:
    """Sizes in a MusicGen's config.json."""

    model_type: Literal["musicgen", "musicgen_melody"]
    decoder: _DecoderConfig
    audio_encoder: _CodecConfig
    text_encoder: TextEncoderSizes
    chroma_length: int = MelodySizes.chroma_length
    num_chroma: int = MelodySizes.num_chroma


@cache
def _make_reader() -> TypeAdapter[_Config]:
    return TypeAdapter(_Config)


def _read_config(place: Path) -> ModelShape | None:
    """Return the shape in a config; None if there is none, or it is not a MusicGen's."""
    try:
        config = _make_reader().validate_json(place.read_bytes())
    except (OSError, ValueError):
        return None
    decoder, codec, text = config.decoder, config.audio_encoder, config.text_encoder
    sizes = DecoderSizes(
        n_layers=decoder.num_hidden_layers,
        width=decoder.hidden_size,
        ffn_width=decoder.ffn_dim,
        n_heads=decoder.num_attention_heads,
        text_width=text.d_model,
        n_codebooks=decoder.num_codebooks,
        codebook_size=decoder.vocab_size,
        max_positions=decoder.max_position_embeddings,
        melody=MelodySizes(config.chroma_length, config.num_chroma)
        if config.model_type == "musicgen_melody"
        else None,
    )
    channels = decoder.audio_channels
    return ModelShape(
        linears=_list_linears(sizes),
        decoder=sizes,
        n_frozen=count_text_encoder(text)
        + count_codec(codec, sizes.n_codebooks // channels)
        + _count_melody(sizes),
        sample_rate_hz=codec.sampling_rate,
        channels=channels,
        hop_samples=math.prod(codec.upsampling_ratios),
        origin="the model's config.json",
        codec_filters=codec.num_filters,
    )


def _count_melody(sizes: DecoderSizes) -> int:
    """Return the numbers in the projection of the melody's states."""
    if sizes.melody is None or sizes.melody.num_chroma == sizes.width:
        return 0
    return (sizes.melody.num_chroma + 1) * sizes.width


def _published_shape(size: str, *, is_stereo: bool, melody: MelodySizes | None) -> ModelShape:
    n_layers, width, ffn_width, n_heads = _PUBLISHED[size]
    channels = 2 if is_stereo else 1
    sizes = DecoderSizes(
        n_layers=n_layers,
        width=width,
        ffn_width=ffn_width,
        n_heads=n_heads,
        text_width=TextEncoderSizes().d_model,
        n_codebooks=4 * channels,
        codebook_size=2048,
        melody=melody,
    )
    n_frozen = count_text_encoder(TextEncoderSizes()) + count_codec(ENCODEC_32KHZ, 4) + _count_melody(sizes)
    return ModelShape(_list_linears(sizes), sizes, n_frozen, 32_000, channels, 640, "published sizes")


def _list_linears(sizes: DecoderSizes) -> tuple[Linear, ...]:
    """The layers under the names that they have in transformers."""
    width, ffn_width = sizes.width, sizes.ffn_width
    found: list[Linear] = []
    attentions = [("self_attn", "self_attention"), ("encoder_attn", "cross_attention")]
    if sizes.melody is not None:
        del attentions[1]
    for layer in range(sizes.n_layers):
        stem = f"decoder.model.decoder.layers.{layer}"
        for attention, group in attentions:
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
        found.append(Linear("enc_to_dec_proj", "conditioning", sizes.text_width, width, n_bias=width))
    return tuple(found)
