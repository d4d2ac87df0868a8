"""What trials of one source share: the data's description, floors, reference excerpts.

The floors are what a perfect generator would score.  *Real against real*: as many excerpts of the training
tracks as clips are generated, against the held-out references.  *Codec*: the references themselves after
encoding and decoding, which no model that speaks in these codes can be better than.  For a codec-matched metric, both
sides of *real against real* pass through the codec, and there is no *codec* level.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.artifacts import AudioClip, Manifest, Split
from lora_bench.audio import save_wav
from lora_bench.errors import DatasetError, ResourceError
from lora_bench.evaluation.codec import through_codec
from lora_bench.evaluation.floors import measure_floors
from lora_bench.planning.run_folder import SourceFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.runner.ahead import FeaturesAhead
from lora_bench.runner.jobs.child_process import Tell, call_apart
from lora_bench.runner.jobs.workers import Workers
from lora_bench.spec.data_sources import find_kind
from lora_bench.stages.dataset import n_reference_clips, prepare_dataset, reference_clips, take_training
from lora_bench.stages.dataset.sources import check_source
from lora_bench.store import Store, write_json

if TYPE_CHECKING:
    from lora_bench.models import MusicModel

N_EXCERPTS = 6


def prepare_source(
    trial: TrialPlan, key: str, folder: SourceFolder, store: Store, progress: Progress, n_workers: int = 0
) -> None:
    """Write `dataset.json`, `floors.json` and `reference_clips/` of one source.

    Args:
        trial: any trial of the source: says which model and data.
        key: identity of everything this depends on; kept in `dataset.json`.
        folder: the source's folder.
        store: cache shared with trials.
        progress: told about stages.
        n_workers: processes that compute features of references meanwhile; see `ahead.py`.

    Raises:
        DatasetError: the data cannot be used, or gives too few references.
    """
    from lora_bench.models import load_model

    if trial.dataset.path is not None:
        check_source(trial.dataset.path, trial.dataset.source_settings)
    progress.start("load model")
    model = load_model(trial.model)
    manifest = prepare_dataset(trial.dataset, model.info.audio_format, store, progress)
    clip_s = trial.generation.clip_s
    n_references = _count_excerpts(manifest, "eval", clip_s)
    if manifest.has_selection:
        _count_excerpts(manifest, "selection", clip_s)
    with Workers(n_workers) as workers:
        ahead = FeaturesAhead(workers, trial, manifest, take_training(manifest, trial.dataset), store)
        ahead.add_references()
        ahead.add_controls()
        _save_excerpts(manifest, clip_s, model, folder)
        workers.finish("features of references", progress)
    scores, unscored = measure_floors(trial, model, manifest, store, progress)
    write_json(folder.floors, {"floors": scores, "unscored": unscored})
    record: dict[str, object] = {"prepared_for": key, "n_reference_clips": n_references, "model": model.info}
    if trial.dataset.path is not None and find_kind(trial.dataset.path) == "hub":
        record["source"] = trial.dataset.path
    write_json(folder.dataset, {**record, "manifest": manifest})


def prepare_source_apart(
    trial: TrialPlan, key: str, folder: SourceFolder, store_root: Path, progress: Progress, n_workers: int = 0
) -> None:
    """Call `prepare_source` in a process of its own, whose end gives back the GPU that it used.

    Raises:
        DatasetError: see `prepare_source`.
        ResourceError: the process died.
    """

    def hear(note: str) -> None:
        method, arguments, options = json.loads(note)
        getattr(progress, method)(*arguments, **options)

    answer = call_apart(_prepare_for_caller, trial, key, folder, store_root, n_workers, hear=hear)
    if answer.raised is not None:
        raise answer.raised
    if answer.died is not None:
        raise ResourceError(
            f"the process that prepared the data ended with {answer.died}; run again, and if memory is short lower "
            "generation.n_clips"
        )


def _prepare_for_caller(
    tell: Tell, trial: TrialPlan, key: str, folder: SourceFolder, store_root: Path, n_workers: int
) -> None:
    store = Store(store_root, folder.cache_uses)
    prepare_source(trial, key, folder, store, _ToldProgress(tell), n_workers)
    store.settle_uses()


class _ToldProgress:
    """Sends progress to the process that called."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def _send(self, method: str, *arguments: object, **options: object) -> None:
        self._tell(json.dumps([method, arguments, options]))

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins."""
        self._send("start", stage, total)

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Steps are done."""
        self._send("advance", n, note=note)

    def log(self, message: str) -> None:
        """One line."""
        self._send("log", message)


def _count_excerpts(manifest: Manifest, side: Split, clip_s: float) -> int:
    """Return how many references one side gives.

    Raises:
        DatasetError: they are too few.
    """
    n_excerpts = n_reference_clips(manifest, side, clip_s)
    if n_excerpts < 2:
        tracks = "held-out" if side == "eval" else "selection"
        more = "" if side == "eval" else ", or raise dataset.split.selection_frac"
        raise DatasetError(
            f"{manifest.name}: the {tracks} tracks give {n_excerpts} excerpts of {clip_s:g} s; expected at least 2 "
            f"as references; add longer tracks or lower generation.clip_s{more}"
        )
    return n_excerpts


def _save_excerpts(manifest: Manifest, clip_s: float, model: MusicModel, folder: SourceFolder) -> None:
    """Save a few references from different tracks, as they are and after the codec, for the report's players."""
    for place in (folder.reference_clips, folder.coded_reference_clips):
        shutil.rmtree(place, ignore_errors=True)
    found: dict[str, AudioClip] = {}
    for clip in reference_clips(manifest, "eval", clip_s):
        found.setdefault(clip.group, clip)
        if len(found) == N_EXCERPTS:
            break
    clips = list(found.values())
    for place, excerpts in (
        (folder.reference_clips, clips),
        (folder.coded_reference_clips, through_codec(model, clips)),
    ):
        for clip in excerpts:
            save_wav(place / f"{clip.name}.wav", clip.audio, clip.sample_rate_hz)
