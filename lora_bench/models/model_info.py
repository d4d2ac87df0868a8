"""Facts about a loaded network: its shape, its delays, whether it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from transformers import MusicgenConfig, MusicgenMelodyConfig, PreTrainedModel

from lora_bench.artifacts import AudioFormat
from lora_bench.errors import ModelError
from lora_bench.models.delay_pattern import find_delays
from lora_bench.models.records import ModelInfo


def set_token_ids(network: PreTrainedModel) -> None:
    """Set token ids that transformers 5 drops when it loads a config, but reads later."""
    decoder = cast("Any", network.config).decoder
    start_id = decoder.vocab_size if decoder.pad_token_id is None else decoder.pad_token_id
    # `forward(labels=...)` reads this attribute, which the config class does not define
    decoder.decoder_start_token_id = start_id
    decoder.pad_token_id = start_id
    generation = cast("Any", network.generation_config)
    for name in ("decoder_start_token_id", "pad_token_id", "bos_token_id"):
        setattr(generation, name, start_id)


def describe_network(
    config: MusicgenConfig | MusicgenMelodyConfig,
    *,
    name: str,
    weights_hash: str,
    trained: bool,
    codec_hash: str | None = None,
) -> ModelInfo:
    """Return the fixed facts about a network, from its config.

    Raises:
        ModelError: its codec or its tokens are not those of a MusicGen.
    """
    decoder, codec = cast("Any", config).decoder, cast("Any", config).audio_encoder
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
    # a melody model's input begins with the states of the melody
    n_before = config.chroma_length if isinstance(config, MusicgenMelodyConfig) else 0
    return ModelInfo(
        name=name,
        weights_hash=weights_hash,
        audio_format=AudioFormat(sample_rate_hz=int(codec.sampling_rate), channels=channels),
        hop_samples=int(codec.hop_length),
        n_codebooks=int(decoder.num_codebooks),
        codebook_size=int(decoder.vocab_size),
        delays=delays,
        max_frames=int(decoder.max_position_embeddings) - max(delays) - n_before,
        trained=trained,
        codec_hash=codec_hash,
    )


def is_trained(folder: Path) -> bool:
    """Return False if a note in the folder says that its weights are random."""
    note = folder / "pocket.json"
    return bool(json.loads(note.read_text(encoding="utf-8")).get("trained", True)) if note.is_file() else True
