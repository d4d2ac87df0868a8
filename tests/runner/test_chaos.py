"""An experiment that is killed again and again ends as if nobody had touched it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support import TESTS

PROGRAM = TESTS / "support" / "chaos_lives.py"


def run_lives(
    root: Path, *, n_kills: int, n_ray_lives: int, n_clips: int, n_variants: int, **environment: str
) -> dict[str, Any]:
    """What the program saw."""
    sizes = [str(number) for number in (n_kills, n_ray_lives, n_clips, n_variants)]
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(root), *sizes],
        # torch makes its compiler's folder on import, in TMPDIR unless it is told another place
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(root / "inductor"),
            **environment,
        },
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(ended.stdout)


def check(seen: dict[str, Any]) -> None:
    """Nothing was lost, nothing was done twice, nothing is left over, and the results are the same."""
    assert (seen["undisturbed"], seen["code"]) == (0, 0)
    assert seen["n_finished"] > 0
    assert seen["repeated"] == []
    assert seen["differences"] == []


@pytest.mark.slow
def test_a_run_that_is_killed_five_times_ends_like_one_that_was_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    seen = run_lives(
        tmp_path, n_kills=5, n_ray_lives=0, n_clips=2, n_variants=1, TMPDIR=str(tmp_path / "tmp")
    )
    check(seen)
    assert seen["n_killed"] == 5
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_of_drivers_and_workers_change_nothing(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("lora-ray-*"))
    seen = run_lives(tmp_path, n_kills=100, n_ray_lives=4, n_clips=10, n_variants=3)
    check(seen)
    assert seen["n_killed"] >= 100
    assert set(Path(tempfile.gettempdir()).glob("lora-ray-*")) <= before
