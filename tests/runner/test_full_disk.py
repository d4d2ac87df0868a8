"""A disk that runs full in the middle of an experiment: a clear error, and nothing lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.chaos_lives import Witness, compare, live, plan_chaos

from lora_bench.errors import StoreError

MORE_BYTES = 120_000
MAX_ATTEMPTS = 60


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_experiment_on_a_disk_that_is_always_full_again_ends_like_any_other(
    tiny_disk: Path, tmp_path: Path
) -> None:
    plan = plan_chaos(tmp_path, n_clips=2, n_variants=1)
    assert live(plan, tmp_path / "roomy") == 0
    size, n_full = MORE_BYTES, 0
    witness = Witness(tiny_disk)
    for _ in range(MAX_ATTEMPTS):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(tiny_disk)], check=True)
        try:
            assert live(plan, tiny_disk) == 0
            break
        except StoreError as error:
            assert "the disk is full" in str(error)
            assert "finished work is kept" in str(error)
            n_full += 1
        witness.look()
        size += MORE_BYTES
    witness.look()
    assert n_full >= 3
    assert witness.repeated == []
    assert compare(tmp_path / "roomy", tiny_disk) == []
