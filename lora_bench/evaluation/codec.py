"""Recordings after the music model's codec: encoded to codes and decoded, the references of codec-matched distances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.encoders.assembly import prepare_clip

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

BATCH = 8
WINDOW_S = 30  # longer files are cut, so that memory does not grow with the file
MIN_S = 0.1


def through_codec(model: MusicModel, clips: Iterable[AudioClip]) -> Iterator[AudioClip]:
    """Encode clips of equal length, at the model's rate and channels, and decode the codes; the length stays."""
    from lora_bench.models.memory import Halving

    iterator = iter(clips)
    halving = Halving(model.device, "coding one clip", "lower generation.clip_s")
    while batch := tuple(itertools.islice(iterator, BATCH)):
        while batch:
            audio = np.stack([clip.audio for clip in batch])
            coded = halving.run(
                len(audio), lambda size, audio=audio: model.decode_audio(model.encode_audio(audio[:size]))
            )
            for clip, samples in zip(batch, coded[..., : audio.shape[-1]], strict=False):
                yield replace(clip, audio=samples)
            batch = batch[len(coded) :]


def recode(model: MusicModel, clips: Iterable[AudioClip]) -> Iterator[AudioClip]:
    """Bring clips of any length, rate and channels to the model's format, and pass them through its codec.

    Raises:
        ScoreError: a clip is empty, not finite or too short; names it.
    """
    rate_hz, channels = model.info.audio_format.sample_rate_hz, model.info.audio_format.channels
    for clip in clips:
        audio = prepare_clip(
            clip, sample_rate_hz=rate_hz, channels=channels, min_samples=int(MIN_S * rate_hz)
        )
        windows = np.array_split(audio, math.ceil(audio.shape[1] / (WINDOW_S * rate_hz)), axis=1)
        coded = [
            next(through_codec(model, [AudioClip(clip.name, clip.group, window, rate_hz)])).audio
            for window in windows
        ]
        yield AudioClip(clip.name, clip.group, np.concatenate(coded, axis=1), rate_hz)


def identify_codec(model: MusicModel) -> str:
    """Return the hash that stands for the codec in keys and provenance."""
    return model.info.codec_hash or model.info.weights_hash


def mark_recoded(embeddings: Embeddings, model: MusicModel, side: str = "reference") -> Embeddings:
    """Return embeddings of recoded clips of one side that say so in their provenance."""
    words = "encoded and decoded by the music model's codec"
    if "scale" in embeddings.provenance:
        words += (
            "; the coefficients' scale is that of the plain metric, fitted on recordings before the codec"
        )
    about = {f"{side}_audio": words, f"{side}_codec_hash": identify_codec(model)}
    return replace(embeddings, provenance={**embeddings.provenance, **about})
