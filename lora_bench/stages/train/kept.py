"""Adapters that a training keeps on its way: after given steps, and at its lowest held-out loss.

They lie in `kept/` next to the adapter of the last step.  Keeping them changes nothing about the training, so the
adapter of the last step has the key of a training that keeps none.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lora_bench.artifacts import LossPoint, TrainResult
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.spec.schema import TrainSpec
from lora_bench.stages.train.identity import find_finished
from lora_bench.store import hash_json

BEST = "best"
Keep = int | Literal["best"]
_CANDIDATE = "best-"


def kept_key(key: str, keep: Keep | None) -> str:
    """Return the key of an adapter that a training with `key` keeps; None is the last step's, whose key that is."""
    return key if keep is None else hash_json({"training": key, "keep": keep})


def find_best(curve: Sequence[LossPoint], train: TrainSpec) -> int | None:
    """Return the step of the lowest held-out loss after the first step; None if it was not measured.

    Only the steps that `eval_every` gives count, so the answer does not depend on what else is kept.
    """
    losses = [
        (point.eval_loss, point.step)
        for point in curve
        if point.eval_loss is not None and is_candidate(point.step, train)
    ]
    return min(losses)[1] if losses else None


def is_candidate(step: int, train: TrainSpec) -> bool:
    """Return whether the adapter of a step may be the best one."""
    return step > 0 and (step == train.steps or step % train.eval_every == 0)


@dataclass(frozen=True)
class KeptAdapters:
    """What a training keeps, and where.

    Attributes:
        files: of the training.
        key: of the training.
        wanted: steps, and `best`; the last step is kept in any case.
    """

    files: TrialFolder
    key: str
    train: TrainSpec
    wanted: Collection[Keep] = ()

    @property
    def steps(self) -> list[int]:
        """Steps that are kept, without the last, ascending."""
        return sorted(step for step in self.wanted if isinstance(step, int) and step < self.train.steps)

    def list_due(self, curve: Sequence[LossPoint]) -> list[tuple[Path, str]]:
        """Return the folders and keys under which the adapter of the curve's last step is to be kept."""
        step = curve[-1].step
        due = [(self._place(step), kept_key(self.key, step))] if step in self.steps else []
        if BEST in self.wanted and step != self.train.steps and find_best(curve, self.train) == step:
            due.append((self._place(f"{_CANDIDATE}{step}"), kept_key(self.key, BEST)))
        return due

    def find(self, keep: Keep | None, curve: Sequence[LossPoint]) -> TrainResult | None:
        """Return one of the adapters of a training with a curve (so far); None if it is not there."""
        end = find_finished(self.files.adapter, self.key)
        if keep is None or keep == self.train.steps:
            return end
        if keep != BEST:
            return find_finished(self._place(keep), kept_key(self.key, keep))
        step = find_best(curve, self.train)
        found = (
            end
            if step == self.train.steps
            else find_finished(self._place(f"{_CANDIDATE}{step}"), kept_key(self.key, BEST))
        )
        if found is None or end is None:
            return found
        return replace(
            end, adapter=found.adapter, step=step
        )  # with the whole curve: it was trained to its end

    def find_gap(self, step: int, curve: Sequence[LossPoint]) -> str | None:
        """Return in words which adapter up to a step is missing; None if none is."""
        missing = [known for known in self.steps if known <= step and self.find(known, curve) is None]
        best = find_best(curve, self.train) if BEST in self.wanted else None
        if best is not None and best <= step and self.find(BEST, curve) is None:
            missing.append(best)
        return f"the adapter of step {missing[0]} was not kept" if missing else None

    def remove_beaten(self, curve: Sequence[LossPoint]) -> None:
        """Remove adapters that were the best ones for a while.  A checkpoint no longer needs them."""
        kept = f"{_CANDIDATE}{find_best(curve, self.train)}"
        for place in self.files.kept.glob(f"{_CANDIDATE}*"):
            if place.name != kept:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, name: int | str) -> Path:
        return self.files.kept / str(name)
