"""What trials of one source share: the data's description, floors, reference excerpts.

The floors are what a perfect generator would score.  *Real against real*: as many excerpts of the training
tracks as clips are generated, against the held-out references.  *Codec*: the references themselves after
encoding and decoding, which no model that speaks in these codes can be better than.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Manifest, Score, Unscored
from lora_bench.audio import save_wav
from lora_bench.encoders import Encoder
from lora_bench.errors import DatasetError, UnscoredError
from lora_bench.evaluation.trial_scores import embed_reference, prepare_encoder
from lora_bench.metrics import parse_metric
from lora_bench.planning.plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.stages.dataset import check_folder, prepare_dataset, reference_clips
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.score import score_embeddings
from lora_bench.store import Store, write_json

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

N_EXCERPTS = 6
CODEC_BATCH = 8
NO_TEXT_FLOOR = "recordings were not made from a prompt, so the text score has no floor"


def prepare_source(trial: TrialPlan, key: str, folder: Path, store: Store, progress: Progress) -> None:
    """Write `dataset.json`, `floors.json` and `reference_clips/` of one source.

    Args:
        trial: any trial of the source: says which model and data.
        key: identity of everything this depends on; kept in `dataset.json`.
        folder: the source's folder.
        store: cache shared with trials.
        progress: told about stages.

    Raises:
        DatasetError: the data cannot be used, or gives too few references.
    """
    from lora_bench.models import load_model

    if trial.dataset.path is not None:
        check_folder(trial.dataset)
    progress.start("load model")
    model = load_model(trial.model)
    manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    clip_s = trial.generation.clip_s
    n_references = sum(1 for _ in reference_clips(manifest, "eval", clip_s))
    if n_references < 2:
        raise DatasetError(
            f"{manifest.name}: the held-out tracks give {n_references} excerpts of {clip_s:g} s, at least 2 "
            "are needed as references; add longer tracks or lower generation.clip_s"
        )
    _save_excerpts(manifest, clip_s, folder / "reference_clips")
    scores, unscored = measure_floors(trial, model, manifest, store, progress)
    write_json(folder / "floors.json", {"floors": scores, "unscored": unscored})
    write_json(
        folder / "dataset.json",
        {"prepared_for": key, "n_reference_clips": n_references, "model": model.info, "manifest": manifest},
    )


def _save_excerpts(manifest: Manifest, clip_s: float, folder: Path) -> None:
    """A few references from different tracks, for the report's players; those of earlier data are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    seen: set[str] = set()
    for clip in reference_clips(manifest, "eval", clip_s):
        if clip.group in seen:
            continue
        seen.add(clip.group)
        save_wav(folder / f"{clip.name}.wav", clip.audio, clip.sample_rate_hz)
        if len(seen) == N_EXCERPTS:
            return


def spread_over_groups(clips: Iterable[AudioClip], n: int) -> list[AudioClip]:
    """At most `n` clips, taken round-robin from the groups so that every track is heard."""
    by_group: dict[str, list[AudioClip]] = {}
    for clip in clips:
        by_group.setdefault(clip.group, []).append(clip)
    rounds = itertools.zip_longest(*by_group.values())
    return list(itertools.islice((clip for turn in rounds for clip in turn if clip is not None), n))


def in_batches(clips: Iterable[AudioClip], size: int) -> Iterator[tuple[AudioClip, ...]]:
    """Tuples of at most `size` clips."""
    iterator = iter(clips)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def through_codec(model: MusicModel, clips: Iterable[AudioClip]) -> Iterator[AudioClip]:
    """Clips of equal length after encoding to codes and decoding, at their own length."""
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
) -> tuple[list[dict[str, object]], list[Unscored]]:
    """Both floors for every metric, each with at most `n_clips` excerpts."""
    clip_s = trial.generation.clip_s
    n_clips = trial.generation.n_clips
    real = spread_over_groups(reference_clips(manifest, "train", clip_s), n_clips)
    held_out = spread_over_groups(reference_clips(manifest, "eval", clip_s), n_clips)
    coded = list(through_codec(model, held_out))
    floors: list[dict[str, object]] = []
    unscored: list[Unscored] = []
    progress.start("floors", len(trial.metrics))
    for name in trial.metrics:
        metric = parse_metric(name)
        if metric.distance == "text":
            unscored.append(Unscored(name, None, NO_TEXT_FLOOR))
            progress.advance()
            continue
        try:
            encoder: Encoder = prepare_encoder(metric.encoder, model, manifest, clip_s, store)
            reference = embed_reference(encoder, manifest, clip_s, store)
        except UnscoredError as reason:
            unscored.append(Unscored(name, None, str(reason)))
            progress.advance()
            continue
        for floor, clips in (("real-vs-real", real), ("codec", coded)):
            score: Score = score_embeddings(metric, embed_clips(encoder, clips, store), reference, None)
            floors.append({"floor": floor, "score": score})
        progress.advance(note=name)
    return floors, unscored
