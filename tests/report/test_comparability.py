"""What has to agree for two scores to stand in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_bench.comparison.side_by_side import find_warnings
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.report.leaderboard.comparability import list_entries
from lora_bench.report.view import RunView
from lora_bench.results.run_records import RunResults

ABOUT: dict[str, str | int | float] = {"encoder": "encodec", "weights": "codec of /a", "weights_hash": "h"}


def list_facts(**provenance: Any) -> Any:
    score = {
        "metric": "encodec", "prompt": None, "value": 1.0, "n_reference": 4, "provenance": ABOUT | provenance,
    }  # fmt: skip
    trial = {"id": "a", "name": "a", "kind": "fine-tuned", "state": "done", "scores": [score]}
    view = RunView(RunResults.model_validate({"name": "r", "trials": [trial]}), Path())
    (entry,) = list_entries(view, None)
    return entry.facts


def test_the_same_codec_under_another_name_is_comparable() -> None:
    assert list_facts() == list_facts(weights="codec of /moved", model="/moved", model_weights_hash="tuned")
    assert list_facts() != list_facts(weights_hash="other")
    moved = ABOUT | {"weights": "codec of /moved"}
    assert merge_provenance([ABOUT], moved)["weights_hash"] == "h"


@pytest.mark.parametrize(("field", "is_warned"), [("n_clips", False), ("batch_size", False), ("seed", True)])
def test_numbers_of_clips_do_not_unpair_runs(field: str, *, is_warned: bool) -> None:
    runs = [
        RunResults.model_validate(
            {"name": "r", "complete": True, "trials": [], "spec": {"generation": {field: value}}}
        )
        for value in (1, 2)
    ]
    assert bool(find_warnings(*runs)) == is_warned


def test_runs_whose_melodies_differ_in_content_are_warned_of() -> None:
    def make_run(*hashes: str) -> RunResults:
        scores = [
            {"metric": "encodec", "prompt": None, "value": 1.0, "provenance": {"melodies_hash": found}}
            for found in hashes
        ]
        trial = {"id": "a", "name": "a", "kind": "fine-tuned", "state": "done", "scores": scores}
        spec = {"generation": {"melodies": "/home/ada/tunes"}}
        return RunResults.model_validate({"name": "r", "complete": True, "trials": [trial], "spec": spec})

    assert find_warnings(make_run("h"), make_run("h")) == find_warnings(make_run(), make_run("h")) == []
    assert find_warnings(make_run("h"), make_run("i")) == ["the clips of the runs follow different melodies"]
