"""The state of a trial, and files that may be damaged or absent while a trial runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lora_bench.errors import StoreError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.store import read_json

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


Record = TypeVar("Record")


def read_if_valid(path: Path, kind: type[Record]) -> Record | None:
    """Return the record in a file; None if the file is not there or damaged.

    Args:
        path: a JSON file.
        kind: a dataclass or a record.
    """
    try:
        return _make_adapter(kind).validate_python(read_json(path))
    except (StoreError, ValidationError):
        return None


def read_state(folder: Path) -> StateRecord:
    """Return a trial's state; empty if the file is not there or damaged."""
    return read_if_valid(TrialFolder(folder).state, StateRecord) or {}


@cache
def _make_adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
