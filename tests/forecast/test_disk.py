"""What a run takes of the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from lora_bench.forecast.disk import forecast_space, measure_free
from lora_bench.stages.train.checkpoint import STATE_FILE, TrainState, save_checkpoint


def test_a_forecast_adds_what_stays_and_the_largest_checkpoints_at_once(tmp_path: Path) -> None:
    found = forecast_space(tmp_path / "not" / "yet", [100, 200], [10, 30, 20], n_at_once=2)
    assert (found.kept_bytes, found.passing_bytes, found.peak_bytes) == (300, 2 * 3 * 50, 600)
    assert found.fits
    assert not forecast_space(tmp_path, [found.free_bytes + 2**30], []).fits


def test_free_space_is_that_of_the_disk(tmp_path: Path) -> None:
    assert abs(measure_free(tmp_path / "x") - shutil.disk_usage(tmp_path).free) < 2**30


def test_a_checkpoint_is_as_large_as_forecast_and_replaces_the_one_before(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(256, 256))
    optimizer = torch.optim.AdamW([parameter])
    for step in range(3):
        parameter.grad = torch.randn(256, 256)
        optimizer.step()
        save_checkpoint(tmp_path, "key", TrainState(step=step), {"w": parameter}, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    forecast = forecast_space(tmp_path, [], [4 * parameter.numel()]).passing_bytes / 2
    assert 1.0 <= (tmp_path / STATE_FILE).stat().st_size / forecast < 1.01
