"""Load a spec's model on audiocraft's classes, from audiocraft's files or from those of transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from lora_bench.models.audiocraft_backend.musicgen import AudiocraftMusicGen
from lora_bench.models.audiocraft_backend.networks import build_codec
from lora_bench.models.bridges.exports import find_audiocraft_files, read_parts
from lora_bench.models.bridges.parts import MusicGenParts, require_cross_attention, take_apart
from lora_bench.models.device import choose_dtype
from lora_bench.models.identity import identify_folder, identify_parts
from lora_bench.models.model_files import find_model_folder, hash_weights
from lora_bench.models.model_info import describe_network, is_trained
from lora_bench.models.network_parts import ENCODERS, load_encoder, load_network
from lora_bench.spec.schema import ModelSpec

if TYPE_CHECKING:
    from audiocraft.models.encodec import EncodecModel
    from transformers import MusicgenConfig, T5EncoderModel


def load_audiocraft_model(spec: ModelSpec, device: torch.device) -> AudiocraftMusicGen:
    """Load a frozen model without output.

    A model has the same `weights_hash` in either form, so that adapters work on both backends.

    Raises:
        ModelError: the model is not found, not a supported MusicGen, or damaged.
    """
    files = find_audiocraft_files(spec)
    if files is None:
        folder = find_model_folder(spec)
        network, tokenizer = load_network(folder.path, spec.id)
        parts = take_apart(require_cross_attention(network, spec.id), tokenizer)
        place, hub_id, files_hash = folder.path, folder.hub_id, hash_weights(folder.path)
        identity = identify_folder(place, spec.id, network)
        # not all of `parts`, which would keep the encoders in memory
        read_encoders = partial(_read_encoders, place, spec.id, files_hash, parts.config, tokenizer)
    else:
        parts, used = read_parts(files)
        place, hub_id, identity = files.folder, files.hub_id, identify_parts(parts, used)
        read_encoders = None
    info = describe_network(
        parts.config,
        name=spec.id,
        weights_hash=identity.weights,
        codec_hash=identity.codec,
        trained=is_trained(place),
    )
    return AudiocraftMusicGen(
        parts,
        info,
        device=device,
        dtype=choose_dtype(spec.dtype, device),
        hub_id=hub_id,
        read_encoders=read_encoders,
    )


def _read_encoders(
    folder: Path, name: str, weights_hash: str, config: MusicgenConfig, tokenizer: Any
) -> tuple[T5EncoderModel, EncodecModel]:
    text_encoder, codec = (load_encoder(folder, name, weights_hash, part) for part in ENCODERS)
    text = cast("T5EncoderModel", text_encoder)
    return text, build_codec(MusicGenParts(config, {}, codec.state_dict(), text, tokenizer), name)
