"""Reference levels: real recordings against the references, and the references after the codec."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_bench.artifacts import AudioClip, Manifest, Score, Unscored
from lora_bench.encoders import Encoder
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.encoding import embed_reference, prepare_encoder
from lora_bench.metrics import parse_metric
from lora_bench.planning.plan import TrialPlan
from lora_bench.progress import Progress, track
from lora_bench.stages.dataset import reference_clips
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.score import score_embeddings
from lora_bench.store import Store

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

CODEC_BATCH = 8
FloorKind = Literal["real-vs-real", "codec"]
NO_TEXT_FLOOR = "recordings were not made from a prompt, so the text score has no floor"


@dataclass(frozen=True)
class Floor:
    """One reference level of a metric."""

    floor: FloorKind
    score: Score


def spread_over_groups(clips: Iterable[AudioClip], n: int) -> list[AudioClip]:
    """Return at most `n` clips, taken in turn from the groups, so that every track has some."""
    by_group: dict[str, list[AudioClip]] = {}
    for clip in clips:
        by_group.setdefault(clip.group, []).append(clip)
    rounds = itertools.zip_longest(*by_group.values())
    return list(itertools.islice((clip for turn in rounds for clip in turn if clip is not None), n))


def in_batches(clips: Iterable[AudioClip], size: int) -> Iterator[tuple[AudioClip, ...]]:
    """Yield tuples of at most `size` clips."""
    iterator = iter(clips)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def through_codec(model: MusicModel, clips: Iterable[AudioClip]) -> Iterator[AudioClip]:
    """Encode clips of equal length and decode the codes; the length stays."""
    for batch in in_batches(clips, CODEC_BATCH):
        audio = np.stack([clip.audio for clip in batch])
        decoded = model.decode_audio(model.encode_audio(audio))[..., : audio.shape[-1]]
        for clip, samples in zip(batch, decoded, strict=True):
            yield AudioClip(clip.name, clip.group, samples, clip.sample_rate_hz)


def measure_floors(
    trial: TrialPlan,
    model: MusicModel,
    manifest: Manifest,
    store: Store,
    progress: Progress,
) -> tuple[list[Floor], list[Unscored]]:
    """Measure both reference levels for every metric, each with at most `n_clips` excerpts."""
    clip_s = trial.generation.clip_s
    n_clips = trial.generation.n_clips
    real = spread_over_groups(reference_clips(manifest, "train", clip_s), n_clips)
    held_out = spread_over_groups(reference_clips(manifest, "eval", clip_s), n_clips)
    coded = list(through_codec(model, held_out))
    floors: list[Floor] = []
    unscored: list[Unscored] = []
    progress.start("floors", len(trial.metrics))
    for name in track(trial.metrics, progress, str):
        metric = parse_metric(name)
        if metric.distance == "text":
            unscored.append(Unscored(name, None, NO_TEXT_FLOOR))
            continue
        try:
            encoder: Encoder = prepare_encoder(metric.encoder, model, manifest, clip_s, store)
            reference = embed_reference(encoder, manifest, clip_s, store)
        except UnscoredError as reason:
            unscored.append(Unscored(name, None, str(reason)))
            continue
        sides: tuple[tuple[FloorKind, list[AudioClip]], ...] = (("real-vs-real", real), ("codec", coded))
        for floor, clips in sides:
            score = score_embeddings(metric, embed_clips(encoder, clips, store), reference, None)
            floors.append(Floor(floor, score))
    return floors, unscored
