"""A spec's model becomes a loaded one: the embedded model, a local folder or a hub id."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import MusicgenForConditionalGeneration

from lora_bench.artifacts import AudioFormat
from lora_bench.errors import ModelError, ResourceError
from lora_bench.models.audiocraft_library import require_audiocraft
from lora_bench.models.base import AdaptableMusicGen
from lora_bench.models.delay_pattern import find_delays
from lora_bench.models.hardware import has_fast_bfloat16
from lora_bench.models.identity import identify_folder
from lora_bench.models.model_files import find_model_folder, hash_weights
from lora_bench.models.network_parts import load_encoder, load_without_encoders
from lora_bench.models.protocol import ModelInfo
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec


def load_model(spec: ModelSpec, *, device: str = "auto") -> AdaptableMusicGen:
    """Load a model, quietly and frozen; on transformers' classes text encoder and codec when they are first used.

    Args:
        spec: id, revision, backend, arithmetic.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:<n>`.

    Raises:
        ModelError: not found, not a MusicGen, damaged, or a backend that is not installed.
        ResourceError: the device does not exist.
    """
    place = choose_device(device)
    if spec.backend == "audiocraft":
        require_audiocraft()
        from lora_bench.models.audiocraft_backend.loading import load_audiocraft_model

        return load_audiocraft_model(spec, place)
    folder = find_model_folder(spec)
    network, tokenizer = load_without_encoders(folder.path, spec.id)
    set_token_ids(network)
    identity = identify_folder(folder.path, spec.id, network)
    info = describe_network(
        network,
        name=spec.id,
        weights_hash=identity.weights,
        codec_hash=identity.codec,
        trained=is_trained(folder.path),
    )
    return TransformersMusicGen(
        network,
        tokenizer,
        info,
        device=place,
        dtype=choose_dtype(spec.dtype, place),
        hub_id=folder.hub_id,
        load_encoder=partial(load_encoder, folder.path, spec.id, hash_weights(folder.path)),
    )


def choose_device(device: str) -> torch.device:
    """The device of a name; `auto` is a GPU if there is one.

    Raises:
        ResourceError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ResourceError(f"device {device!r} is unknown, expected auto, cpu, cuda or cuda:<n>") from error
    if place.type == "cuda":
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= n_gpus:
            raise ResourceError(
                f"device {device!r}: this machine has {n_gpus} usable GPUs; choose another or use cpu"
            )
    return place


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The decoder's arithmetic; `auto` is bfloat16 where the hardware has it, else float32."""
    if name == "auto":
        is_gpu = device.type == "cuda"
        return torch.bfloat16 if is_gpu and has_fast_bfloat16(device) else torch.float32
    return cast("torch.dtype", getattr(torch, name))


def set_token_ids(network: MusicgenForConditionalGeneration) -> None:
    """Token ids that transformers 5 loses on the way and reads later."""
    decoder = cast("Any", network.config).decoder
    start_id = decoder.vocab_size if decoder.pad_token_id is None else decoder.pad_token_id
    # `forward(labels=...)` reads this attribute, which the config class does not define
    decoder.decoder_start_token_id = start_id
    decoder.pad_token_id = start_id
    generation = cast("Any", network.generation_config)
    for name in ("decoder_start_token_id", "pad_token_id", "bos_token_id"):
        setattr(generation, name, start_id)


def describe_network(
    network: MusicgenForConditionalGeneration,
    *,
    name: str,
    weights_hash: str,
    trained: bool,
    codec_hash: str | None = None,
) -> ModelInfo:
    """What is fixed about a network, from its configs.

    Raises:
        ModelError: its codec or its tokens are not those of a MusicGen.
    """
    decoder = cast("Any", network.config).decoder
    codec = cast("Any", network.config).audio_encoder
    channels = int(decoder.audio_channels)
    if codec.audio_channels != 1 or codec.normalize or codec.chunk_length_s is not None:
        raise ModelError(
            f"model.id: {name}: the codec has {codec.audio_channels} channels, normalize {codec.normalize}, "
            f"chunks of {codec.chunk_length_s} s; expected MusicGen's "
            "(one channel, no normalisation, no chunks)"
        )
    if decoder.pad_token_id != decoder.vocab_size:
        raise ModelError(
            f"model.id: {name}: start and padding token is {decoder.pad_token_id}, expected the number of "
            f"codes, {decoder.vocab_size}"
        )
    delays = find_delays(decoder.num_codebooks, channels)
    return ModelInfo(
        name=name,
        weights_hash=weights_hash,
        audio_format=AudioFormat(sample_rate_hz=int(codec.sampling_rate), channels=channels),
        hop_samples=int(codec.hop_length),
        n_codebooks=int(decoder.num_codebooks),
        codebook_size=int(decoder.vocab_size),
        delays=delays,
        max_frames=int(decoder.max_position_embeddings) - max(delays),
        trained=trained,
        codec_hash=codec_hash,
    )


def is_trained(folder: Path) -> bool:
    """False if the folder itself says that its weights are random."""
    note = folder / "pocket.json"
    return bool(json.loads(note.read_text(encoding="utf-8")).get("trained", True)) if note.is_file() else True
