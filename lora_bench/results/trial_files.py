"""The state of a trial, whose file may be damaged or absent while the trial runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, JsonValue
from typing_extensions import TypedDict

from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.reading import read_if_valid

State = Literal["waiting", "running", "done", "stopped", "failed", "interrupted"]
"""`waiting` is what a trial without a state file is; `stopped` is given up early, as the spec asks."""


class StateRecord(TypedDict, total=False):
    """A trial's `state.json`; a field that does not apply is absent.

    Attributes:
        state: what the trial is doing, or how it ended.
        trial: its id.
        pid: process that works on it, or did last; `host` is the machine.
        started_at: begin of the last attempt.
        n_attempts: how often it was started.
        wall_s: seconds by stage, of all attempts together.
        inputs: key of what the trial is finished for.
        model: facts of the model that it was done with.
        dataset_key: identity of the prepared data.
        stage: where it stopped.
        cause: kind of a failure, in a word or two.
        reason: why it failed or stopped.
        attempt_s: seconds of the last attempt.
        device: name of the GPU that it was done on; absent on a CPU.
        notes: what made it slower than it could be, in sentences.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues]

    state: State
    trial: str
    pid: int
    host: str
    started_at: str
    n_attempts: int
    wall_s: dict[str, float]
    inputs: str | None
    model: dict[str, JsonValue]
    dataset_key: str
    stage: str | None
    cause: str
    reason: str | None
    attempt_s: float
    device: str
    notes: list[str]


def read_state(folder: Path) -> StateRecord:
    """Return a trial's state; empty if the file is not there or damaged."""
    return read_if_valid(TrialFolder(folder).state, StateRecord) or {}
