"""A spec's model on audiocraft's classes, from audiocraft's files or from those of transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from lora_bench.models.audiocraft_musicgen import AudiocraftMusicGen
from lora_bench.models.audiocraft_networks import build_codec, build_lm
from lora_bench.models.bridges.exports import find_audiocraft_files, read_parts
from lora_bench.models.bridges.parts import MusicGenParts, take_apart
from lora_bench.models.loading import choose_dtype, describe_network, is_trained, load_network
from lora_bench.models.model_files import find_model_folder, hash_files, hash_weights
from lora_bench.models.protocol import ModelInfo
from lora_bench.spec.schema import ModelSpec


def load_audiocraft_model(spec: ModelSpec, device: torch.device) -> AudiocraftMusicGen:
    """Load a model, quietly and frozen.

    A model in transformers' form keeps its `weights_hash`, so that adapters go from one backend to the other.

    Raises:
        ModelError: not found, not a supported MusicGen, or damaged.
    """
    files = find_audiocraft_files(spec)
    if files is None:
        folder = find_model_folder(spec)
        network, tokenizer = load_network(folder.path, spec.id)
        parts = take_apart(network, tokenizer)
        place, hub_id, weights_hash = folder.path, folder.hub_id, hash_weights(folder.path)
    else:
        parts, used = read_parts(files)
        place, hub_id, weights_hash = files.folder, files.hub_id, hash_files(used)
    info = _describe(parts, spec, place, weights_hash)
    return make_model(parts, info, device=device, dtype=choose_dtype(spec.dtype, device), hub_id=hub_id)


def _describe(parts: MusicGenParts, spec: ModelSpec, place: Path, weights_hash: str) -> ModelInfo:
    network = cast("Any", SimpleNamespace(config=parts.config))
    return describe_network(network, name=spec.id, weights_hash=weights_hash, trained=is_trained(place))


def make_model(
    parts: MusicGenParts,
    info: ModelInfo,
    *,
    device: torch.device,
    dtype: torch.dtype,
    hub_id: str | None = None,
) -> AudiocraftMusicGen:
    """Audiocraft's networks around a MusicGen's parts.

    Raises:
        ModelError: the weights do not fit the config.
    """
    return AudiocraftMusicGen(
        build_lm(parts, info.name, is_split=True),
        build_codec(parts, info.name),
        parts.config,
        info,
        device=device,
        dtype=dtype,
        has_projection=parts.has_projection,
        hub_id=hub_id,
    )
