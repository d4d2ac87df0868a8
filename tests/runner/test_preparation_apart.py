"""The data of a run, prepared in a process of its own so that no GPU stays taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_trials import Recorder, plan_named

from lora_bench.errors import DatasetError, ResourceError
from lora_bench.planning.run_folder import SourceFolder
from lora_bench.runner import preparation
from lora_bench.runner.jobs.child_process import Answer


def prepare(place: Path) -> Recorder:
    """Prepare the data of some trial."""
    progress = Recorder()
    preparation.prepare_source_apart(
        plan_named("good").trials[0], "key", SourceFolder(place), place / "cache", progress
    )
    return progress


def test_stages_and_lines_of_the_other_process_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(function: Callable[..., Any], *arguments: Any, hear: Callable[[str], None]) -> Answer:
        return Answer(value=function(hear, *arguments))

    def work(trial: Any, key: str, folder: Any, store: Any, progress: Any, n_workers: int) -> None:
        progress.start("floors", 2)
        progress.advance(2, note="done")
        progress.log(f"prepared for {key}")

    monkeypatch.setattr(preparation, "call_apart", call)
    monkeypatch.setattr(preparation, "prepare_source", work)
    (tmp_path / "cache").mkdir()
    progress = prepare(tmp_path)
    assert progress.stages == [("floors", 2)]
    assert progress.lines == ["prepared for key"]


def test_an_error_of_the_other_process_is_raised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(**facts: Any) -> None:
        monkeypatch.setattr(preparation, "call_apart", lambda *_, **__: Answer(**facts))

    answer(raised=DatasetError("too short"))
    with pytest.raises(DatasetError, match="too short"):
        prepare(tmp_path)
    answer(died="signal SIGKILL")
    with pytest.raises(ResourceError, match="prepared the data ended with signal SIGKILL; run again"):
        prepare(tmp_path)
