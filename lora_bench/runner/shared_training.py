"""A training that several trials share, or of which they keep several steps: it runs once, in the cache.

`adapters/<key>/` in the cache is laid out as a trial's folder: `checkpoint/` while it trains, then `adapter/`, and
`kept/` with adapters of earlier steps.  One process trains under the entry's lock while others wait, and whoever comes
next resumes what a killed one left.  Each trial gets hard links to its adapter.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lora_bench.artifacts import ADAPTER_PROVENANCE, TrainResult
from lora_bench.errors import StoppedEarlyError, StoreError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import Progress
from lora_bench.stages.train import KeptAdapters, find_finished, kept_key, write_result
from lora_bench.store import JsonObject, Store, make_folder, read_json, remove_drafts, write_json

KIND = "adapters"


def train_shared(
    key: str,
    plan: TrialPlan,
    trial: TrialFolder,
    store: Store,
    progress: Progress,
    train: Callable[[Path], TrainResult],
) -> TrainResult:
    """Return a trial's adapter, of a training by whoever comes first.

    Args:
        key: of the training.
        plan: of the trial.
        trial: gets `adapter/`.
        store: holds the training.
        progress: told of waiting.
        train: trains in the given folder, or resumes there; returns what is finished there.

    Raises:
        StoreError: the disk is full, or the adapter is not among those that the training keeps.
    """
    if plan.train is None or plan.training is None:
        raise StoreError(f"{trial.plan}: the trial shares no training")
    with store.hold(
        KIND, key, lambda: progress.log("waiting for another trial that trains this adapter")
    ) as place:
        remove_drafts(place)
        entry = TrialFolder(place)
        known = trial.run.trial(plan.training).adapter  # trained before others shared it
        if find_finished(entry.adapter, key) is None and find_finished(known, key) is not None:
            link_folder(known, entry.adapter)
        _adopt_checkpoint(trial, entry)
        try:
            end = train(place)
        except StoppedEarlyError:
            shutil.rmtree(entry.checkpoint, ignore_errors=True)  # the next trial meets the rungs before it
            raise
        keep = plan.train.keep
        if isinstance(keep, list):
            raise StoreError(f"{trial.plan}: train.keep is {keep}, expected one step of a trial")
        found = KeptAdapters(entry, key, plan.train, plan.kept).find(keep, end.curve)
        if found is None:
            raise StoreError(f"{entry.kept}: the adapter of step {keep} is missing; run again")
        notes = None if keep is None else {"run_key": kept_key(key, keep), "result": write_result(found)}
        link_folder(found.adapter, trial.adapter, notes)
    return replace(found, adapter=trial.adapter)


def _adopt_checkpoint(trial: TrialFolder, entry: TrialFolder) -> None:
    """Take over what the trial trained before others shared its training."""
    if trial.checkpoint_state.is_file() and not entry.checkpoint.exists() and not entry.adapter.exists():
        shutil.move(trial.checkpoint, entry.checkpoint)
    shutil.rmtree(trial.checkpoint, ignore_errors=True)


def link_folder(source: Path, target: Path, notes: JsonObject | None = None) -> None:
    """Make an adapter of hard links to the files of another, or of copies where the file system has no links.

    Files of both are only ever replaced, never changed in place.

    Args:
        source: the other adapter.
        target: replaced if it is there.
        notes: replace those of its provenance.
    """

    def fill(draft: Path) -> None:
        for path in sorted(source.iterdir()):
            if path.name == ADAPTER_PROVENANCE and notes is not None:
                write_json(draft / path.name, {**read_json(path), **notes})
                continue
            with suppress(OSError):
                os.link(path, draft / path.name)
                continue
            shutil.copyfile(path, draft / path.name)

    make_folder(target, fill)
