"""Reference levels: real recordings against the references, and the references after the codec."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lora_bench.artifacts import AudioClip, Manifest, Score, Unscored
from lora_bench.encoders import Encoder
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.codec import through_codec
from lora_bench.evaluation.encoding import embed_reference, prepare_encoder
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress, track
from lora_bench.stages.dataset import reference_clips
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.score import score_embeddings
from lora_bench.store import Store

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

FloorKind = Literal["real-vs-real", "codec"]
NO_FLOOR = {
    "text": "recordings were not made from a prompt, so the text score has no reference level",
    "mean": "a rating is no distance from recordings, so it has no reference level",
}
ZERO_BY_CONSTRUCTION = (
    "both sides of the codec's level would be the references after the codec, so it is zero by construction"
)


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


def measure_floors(
    trial: TrialPlan,
    model: MusicModel,
    manifest: Manifest,
    store: Store,
    progress: Progress,
) -> tuple[list[Floor], list[Unscored]]:
    """Measure both reference levels for every metric, each with at most `n_clips` excerpts; tell what cannot be scored.

    Both sides of a codec-matched metric have passed through the codec, so it has no level of the codec.
    """
    clip_s = trial.generation.clip_s
    n_clips = trial.generation.n_clips
    real = spread_over_groups(reference_clips(manifest, "train", clip_s), n_clips)
    held_out = spread_over_groups(reference_clips(manifest, "eval", clip_s), n_clips)
    coded = list(through_codec(model, held_out))
    metrics = [parse_metric(name, trial.distances) for name in trial.metrics]
    coded_real = list(through_codec(model, real)) if any(m.codec_matched for m in metrics) else []
    floors: list[Floor] = []
    unscored: list[Unscored] = []
    progress.start("reference levels", len(trial.metrics))
    for metric in track(metrics, progress, lambda metric: metric.name):
        if metric.encoder in PROMPT_RATINGS:  # their encoders need a prompt or a melody; a plan checks these
            unscored.append(Unscored(metric.name, None, NO_FLOOR[metric.distance]))
            continue
        try:
            encoder: Encoder = prepare_encoder(
                metric.encoder, model, manifest, clip_s, store, trial.encoders.get(metric.encoder)
            )
            if not metric.has_references:
                unscored.append(Unscored(metric.name, None, NO_FLOOR[metric.distance]))
                continue
            codec = model if metric.codec_matched else None
            reference = embed_reference(encoder, manifest, clip_s, store, codec)
        except UnscoredError as reason:
            unscored.append(Unscored(metric.name, None, str(reason)))
            progress.log(f"no trial will have scores of {metric.name}: {reason}")  # before hours of training
            continue
        sides: tuple[tuple[FloorKind, list[AudioClip]], ...] = (("real-vs-real", real), ("codec", coded))
        if metric.codec_matched:
            sides = (("real-vs-real", coded_real),)
            unscored.append(Unscored(metric.name, None, ZERO_BY_CONSTRUCTION))
        try:
            for floor, clips in sides:
                score = score_embeddings(metric, embed_clips(encoder, clips, store), reference, None)
                floors.append(Floor(floor, score))
        except UnscoredError as reason:
            unscored.append(Unscored(metric.name, None, str(reason)))
    return floors, unscored
