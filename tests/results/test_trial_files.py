from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_bench.results.reading import read_if_valid
from lora_bench.results.trial_files import read_state
from lora_bench.store import write_json


@dataclass(frozen=True)
class Point:
    x: float
    label: str = ""


@pytest.mark.parametrize("text", ["{", "[]", '{"x": "far"}', "{}", "null"])
def test_a_damaged_file_gives_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert read_if_valid(tmp_path / "a.json", Point) is None
    assert read_if_valid(tmp_path / "absent.json", Point) is None


def test_a_record_may_hold_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    point = Point(1.5, os.fsdecode(b"caf\xe9.wav"))
    write_json(tmp_path / "a.json", point)
    assert read_if_valid(tmp_path / "a.json", Point) == point


@pytest.mark.parametrize(
    "state", [{"state": "unheard of"}, {"state": "done", "wall_s": [1.0]}, {"n_attempts": "two"}]
)
def test_a_state_of_another_form_is_no_state(state: dict[str, object], tmp_path: Path) -> None:
    write_json(tmp_path / "state.json", state)
    assert read_state(tmp_path) == {}


def test_a_state_that_is_read_and_written_keeps_its_bytes(tmp_path: Path) -> None:
    state = {
        "state": "failed", "trial": "t-1", "pid": 1, "host": "h", "started_at": "2026-01-01", "n_attempts": 2,
        "wall_s": {"train": 1.5}, "inputs": None, "stage": "train", "cause": "data", "reason": "x", "attempt_s": 2.0,
        "added_later": [1],
    }  # fmt: skip
    write_json(tmp_path / "state.json", state)
    before = (tmp_path / "state.json").read_bytes()
    found = read_state(tmp_path)
    write_json(tmp_path / "state.json", found)
    assert (tmp_path / "state.json").read_bytes() == before
    assert json.loads(before) == found
