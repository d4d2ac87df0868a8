"""A training that several trials share: it runs once, in the cache, and each trial gets hard links to the adapter.

`adapters/<key>/` in the cache is laid out as a trial's folder: `checkpoint/` while it trains, then `adapter/`.  One
process trains under the entry's lock while others wait, and whoever comes next resumes what a killed one left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lora_bench.artifacts import TrainResult
from lora_bench.errors import StoppedEarlyError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import Progress
from lora_bench.stages.train import find_finished
from lora_bench.store import Store, make_folder, remove_drafts

KIND = "adapters"


def train_shared(
    key: str,
    trial: TrialFolder,
    leader: str,
    store: Store,
    progress: Progress,
    train: Callable[[Path], TrainResult],
) -> TrainResult:
    """Return a trial's adapter, trained by whoever comes first.

    Args:
        key: of the adapter.
        trial: gets `adapter/`.
        leader: id of the first trial that shares the training; an adapter in its folder that was trained before others
            shared it is used.
        store: holds the training.
        progress: told of waiting.
        train: trains in the given folder, or resumes there; returns what is finished there.

    Raises:
        StoreError: the disk is full.
    """
    with store.hold(
        KIND, key, lambda: progress.log("waiting for another trial that trains this adapter")
    ) as place:
        remove_drafts(place)
        entry = TrialFolder(place)
        if find_finished(entry.adapter, key) is None:
            for known in (trial.run.trial(leader).adapter, trial.adapter):
                if find_finished(known, key) is not None:
                    link_folder(known, entry.adapter)
                    break
            else:
                _adopt_checkpoint(trial, entry)
        try:
            result = train(place)
        except StoppedEarlyError:
            shutil.rmtree(entry.checkpoint, ignore_errors=True)  # the next trial meets the rungs before it
            raise
        if find_finished(trial.adapter, key) is None:
            link_folder(entry.adapter, trial.adapter)
    return replace(result, adapter=trial.adapter)


def _adopt_checkpoint(trial: TrialFolder, entry: TrialFolder) -> None:
    """Take over what the trial trained before others shared its training."""
    if trial.checkpoint_state.is_file() and not entry.checkpoint.exists():
        shutil.move(trial.checkpoint, entry.checkpoint)
    shutil.rmtree(trial.checkpoint, ignore_errors=True)


def link_folder(source: Path, target: Path) -> None:
    """Make a folder of hard links to the files of another, or of copies where the file system has no links.

    Files of both are only ever replaced, never changed in place.
    """

    def fill(draft: Path) -> None:
        for path in sorted(source.iterdir()):
            with suppress(OSError):
                os.link(path, draft / path.name)
                continue
            shutil.copyfile(path, draft / path.name)

    make_folder(target, fill)
