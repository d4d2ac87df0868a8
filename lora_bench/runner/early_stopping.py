"""Asynchronous successive halving (ASHA) on the held-out loss, with its state in the trials' folders.

The rule is that of Ray Tune's `ASHAScheduler`: at rungs `grace_steps * reduction ** k`, a trial is stopped if its loss
is above the quantile `1 / reduction` of the losses recorded there before it.  Ray's scheduler keeps the rungs in the
driver's memory, where they are lost with the driver, and needs Ray.  Here each trial writes its loss at a rung and the
decision into `rungs.json`, so a killed run resumes with the same decisions, and trials can run one at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lora_bench.errors import StoppedEarlyError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.trial_files import read_if_valid
from lora_bench.spec.search import EarlyStoppingSpec
from lora_bench.store import write_json


@dataclass(frozen=True)
class Rung:
    """What a trial measured at a rung, and what followed.

    Attributes:
        loss: on the held-out slices.
        n_earlier: losses of other trials that it was compared with.
    """

    step: int
    loss: float
    n_earlier: int
    stopped: bool


@dataclass(frozen=True)
class RungsRecord:
    """A trial's `rungs.json`; see `EarlyStopper` for `key` and `group`."""

    key: str
    group: str
    rungs: dict[str, Rung]


def list_rungs(spec: EarlyStoppingSpec, steps: int) -> tuple[float, ...]:
    """Steps at which trials are compared, ascending, below the last step."""
    rungs: list[float] = []
    rung = float(spec.grace_steps)
    while rung < steps:
        rungs.append(rung)
        rung *= spec.reduction
    return tuple(rungs)


def is_behind(loss: float, earlier: list[float], reduction: float) -> bool:
    """Whether a loss is not among the best `1 / reduction` of those recorded before; the first one never is."""
    if not earlier:
        return False
    # as Ray has it, with rewards in place of losses: so both agree to the last bit
    cutoff = np.percentile([-other for other in earlier], (1.0 - 1.0 / reduction) * 100.0)
    return -loss < float(cutoff)


@dataclass
class EarlyStopper:
    """Decides over one trial.

    Attributes:
        spec: the rule.
        steps: of the trial.
        folder: the trial's; those of the others lie beside it.
        key: identity of the trial's training; a record of other data or settings is not resumed.
        group: identity of what losses can be compared over: data, model, number of steps.
    """

    spec: EarlyStoppingSpec
    steps: int
    folder: Path
    key: str
    group: str

    def __post_init__(self) -> None:
        found = read_if_valid(TrialFolder(self.folder).rungs, RungsRecord)
        if found is None or (found.key, found.group) != (self.key, self.group):
            found = RungsRecord(key=self.key, group=self.group, rungs={})
        self._own = found

    def check(self) -> None:
        """Before training goes on: a decision that was made stands.

        Raises:
            StoppedEarlyError: the trial was stopped before.
        """
        for rung, entry in self._own.rungs.items():
            if entry.stopped:
                raise self._describe(rung, entry)

    def measure(self, step: int, loss: float) -> None:
        """The held-out loss after `step` steps.

        Raises:
            StoppedEarlyError: it is behind that of others at this rung.
            StoreError: the disk is full.
        """
        reached = [rung for rung in list_rungs(self.spec, self.steps) if rung <= step]
        if not reached or _name(reached[-1]) in self._own.rungs:
            return
        name = _name(reached[-1])
        earlier = self._read_others(name)
        is_stopped = is_behind(loss, earlier, self.spec.reduction)
        entry = Rung(step=step, loss=loss, n_earlier=len(earlier), stopped=is_stopped)
        self._own = replace(self._own, rungs=self._own.rungs | {name: entry})
        write_json(TrialFolder(self.folder).rungs, self._own)
        if is_stopped:
            raise self._describe(name, entry)

    def _read_others(self, name: str) -> list[float]:
        """Losses that other trials recorded at a rung."""
        losses: list[float] = []
        for place in sorted(self.folder.parent.glob(f"*/{TrialFolder.rungs}")):
            if place.parent == self.folder:
                continue
            found = read_if_valid(place, RungsRecord)
            if found is not None and found.group == self.group and name in found.rungs:
                losses.append(found.rungs[name].loss)
        return [loss for loss in losses if math.isfinite(loss)]

    def _describe(self, rung: str, entry: Rung) -> StoppedEarlyError:
        return StoppedEarlyError(
            f"stopped early at step {entry.step} of {self.steps}: its held-out loss {entry.loss:.4f} was not "
            f"among the best 1/{self.spec.reduction:g} of the {entry.n_earlier} trials that had reached "
            f"the rung at {rung} steps"
        )


def _name(rung: float) -> str:
    return f"{rung:g}"
