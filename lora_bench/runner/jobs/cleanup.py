"""Unused files in a folder of runs: cache entries that no run uses, and remains of killed processes.

Every trial and every source records in `cache.txt` the cache entries that it uses.  If a record is missing, any entry
might be in use, so none is listed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.errors import StoreError
from lora_bench.planning.run_folder import CACHE, RunFolder, SourceFolder
from lora_bench.planning.sources import list_sources
from lora_bench.results.reading import read_part, read_run_plan
from lora_bench.results.run_records import Tuning
from lora_bench.runner.jobs.locks import RAY_STORAGE, hold_cache
from lora_bench.store import DRAFT, to_jsonable

_OF_A_RUN = (RunFolder.trials, RunFolder.lock, SourceFolder.cache_uses)
UNUSED = "no run uses it"
HALF_WRITTEN = "left half-written by a killed process"
RAY_REMAINS = "left by Ray Tune for a killed driver"
OLD_TRIAL = "a trial that is no longer in the run's spec"
OLD_DATA = "data that is no longer in the run's spec"


@dataclass(frozen=True)
class LeftOver:
    """A file or folder that can be removed, its size, and the reason."""

    path: Path
    n_bytes: int
    why: str


@dataclass(frozen=True)
class Findings:
    """Everything that can be removed.

    Attributes:
        unrecorded: folders of trials and sources without a record of the cache entries that they use; if there is
            one, no cache entry is listed.
    """

    left_over: tuple[LeftOver, ...]
    unrecorded: tuple[Path, ...]

    @property
    def n_bytes(self) -> int:
        """Return the total size."""
        return sum(item.n_bytes for item in self.left_over)


def list_runs(runs_dir: Path) -> list[Path]:
    """List the folders of runs by name, without folders that hold another program's `plan.json`."""
    plans = sorted(
        path for path in runs_dir.glob(f"*/{RunFolder.plan}") if not path.parent.name.startswith(".")
    )
    return [path.parent for path in plans if any((path.parent / name).exists() for name in _OF_A_RUN)]


def find_left_over(runs_dir: Path, *, old_trials: bool = False) -> Findings:
    """Find unused files in a folder of runs, without changing anything.

    Args:
        runs_dir: holds run folders and their cache.
        old_trials: include trials and data that are no longer in their run's plan, and what only they use.

    Raises:
        StoreError: a plan is damaged, so it is unknown what is in use.
    """
    found: list[LeftOver] = []
    uses: set[str] = set()
    unrecorded: list[Path] = []
    for run in list_runs(runs_dir):
        old = dict(_list_old(run)) if old_trials else {}
        found += [_measure(path, why) for path, why in old.items()]
        for folder in _list_users(run):
            if folder in old:
                continue
            try:
                uses.update(SourceFolder(folder).cache_uses.read_text(encoding="utf-8").split("\n"))
            except FileNotFoundError:
                unrecorded.append(folder)
        found += [_measure(path, why) for path, why in _list_remains(run, skip=set(old))]
    found += [_measure(path, why) for path, why in _list_remains(runs_dir / CACHE, skip=set())]
    if not unrecorded:
        found += [_measure(path, UNUSED) for path in _list_unused(runs_dir / CACHE, uses)]
    return Findings(tuple(found), tuple(unrecorded))


def remove_left_over(runs_dir: Path, *, old_trials: bool = False) -> Findings:
    """Remove what `find_left_over` finds, while no run of the folder is active.

    Raises:
        StoreError: a process is working on one of the runs.
    """
    with hold_cache(runs_dir / CACHE, list_runs(runs_dir)):
        findings = find_left_over(runs_dir, old_trials=old_trials)
        for item in findings.left_over:
            _remove(item.path)
    return findings


def _list_users(run: Path) -> Iterator[Path]:
    """List folders of trials and sources that may use the cache."""
    yield from (trial.path for trial in RunFolder(run).list_trials() if trial.state.is_file())
    for source in RunFolder(run).list_sources():
        if source.dataset.is_file() or source.cache_uses.is_file():
            yield source.path


def _list_old(run: Path) -> Iterator[tuple[Path, str]]:
    """List trials and data of earlier versions of a run's spec."""
    trials = read_run_plan(run).trials
    tuning = read_part(RunFolder(run).tuning, Tuning, [])
    tried = [attempt.trial for item in (tuning.configurations if tuning else ()) for attempt in item.attempts]
    kept = {*tried, *(trial.id for trial in trials)}
    for folder in RunFolder(run).list_trials():
        if folder.path.name not in kept:
            yield folder.path, OLD_TRIAL
    sources = {run, *(source.place(run) for source in list_sources(to_jsonable(trials)))}
    for folder in RunFolder(run).list_sources():
        if folder.path not in sources:
            yield folder.path, OLD_DATA


def _list_remains(top: Path, skip: set[Path]) -> Iterator[tuple[Path, str]]:
    """List half-written files and folders below `top`, and Ray Tune's folders in it."""
    for place, folders, files in os.walk(top):
        here = Path(place)
        for name in sorted(folders):
            is_ray = here == top and name.startswith(RAY_STORAGE)
            if is_ray or DRAFT.match(name):
                yield here / name, RAY_REMAINS if is_ray else HALF_WRITTEN
                folders.remove(name)
            elif here / name in skip:
                folders.remove(name)
        yield from ((here / name, HALF_WRITTEN) for name in sorted(files) if DRAFT.match(name))


def _list_unused(cache: Path, uses: set[str]) -> Iterator[Path]:
    for kind in sorted(path for path in cache.glob("*/") if not path.name.startswith(".")):
        for place in sorted(path for path in kind.glob("*/") if not path.name.startswith(".")):
            if f"{kind.name}/{place.name}" not in uses:
                yield place


def _measure(path: Path, why: str) -> LeftOver:
    if not path.is_dir():
        return LeftOver(path, path.lstat().st_size, why)
    sizes = (Path(place, name).lstat().st_size for place, _, files in os.walk(path) for name in files)
    return LeftOver(path, sum(sizes), why)


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so a partly removed one cannot be mistaken for a whole.

    Raises:
        StoreError: it cannot be removed.
    """
    try:
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        lock = path.with_name(f"{path.name}.lock")
        doomed = (
            path
            if DRAFT.match(path.name)
            else path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}"))
        )
        shutil.rmtree(doomed)
        lock.unlink(missing_ok=True)  # no run is active, so nothing waits for it
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed ({error.strerror}); check its permissions") from error


def group_by_kind(items: Sequence[LeftOver], runs_dir: Path) -> list[tuple[str, int, int, str]]:
    """Return rows of path, number, bytes and reason, in the order of first occurrence."""
    rows: dict[tuple[str, str], tuple[int, int]] = {}
    for item in items:
        relative = item.path.relative_to(runs_dir)
        place = relative.parent if relative.parts[0] == CACHE else Path(*relative.parts[:3])
        n, n_bytes = rows.get((place.as_posix(), item.why), (0, 0))
        rows[place.as_posix(), item.why] = (n + 1, n_bytes + item.n_bytes)
    return [(place, n, n_bytes, why) for (place, why), (n, n_bytes) in rows.items()]
