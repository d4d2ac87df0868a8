from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_bench.spec.schema import TrainSpec
from lora_bench.stages.train.schedule import drop_captions, learning_rate, noise_seed, pick_slices


@settings(deadline=None)
@given(n_slices=st.integers(1, 30), n_per_step=st.integers(1, 40), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_holds_every_slice_once(n_slices: int, n_per_step: int, seed: int) -> None:
    n_steps = 3 * n_slices // n_per_step + 1
    picked = np.concatenate([pick_slices(seed, step, n_slices, n_per_step) for step in range(n_steps)])
    for epoch in range(len(picked) // n_slices):
        assert sorted(picked[epoch * n_slices : (epoch + 1) * n_slices]) == list(range(n_slices))


def test_epochs_have_different_orders() -> None:
    first, second = pick_slices(0, 0, 50, 50), pick_slices(0, 1, 50, 50)
    assert first.tolist() != second.tolist()
    assert first.tolist() != pick_slices(1, 0, 50, 50).tolist()


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    late = pick_slices(3, 17, 11, 4)
    for step in range(17):
        pick_slices(3, step, 11, 4)
    assert pick_slices(3, 17, 11, 4).tolist() == late.tolist()


def test_the_order_does_not_depend_on_how_a_step_is_divided() -> None:
    whole = np.concatenate([pick_slices(0, step, 13, 8) for step in range(4)])
    halves = np.concatenate([pick_slices(0, step, 13, 4) for step in range(8)])
    assert whole.tolist() == halves.tolist()


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_caption_dropout_has_the_share_that_was_asked_for(dropout: float) -> None:
    dropped = np.concatenate([drop_captions(0, step, 8, dropout) for step in range(500)])
    assert abs(dropped.mean() - dropout) < 0.03


def test_streams_of_a_step_are_independent() -> None:
    seeds = {noise_seed(seed, step, part) for seed in range(3) for step in range(20) for part in range(3)}
    assert len(seeds) == 3 * 20 * 3
    assert drop_captions(0, 1, 64, 0.5).tolist() != drop_captions(1, 1, 64, 0.5).tolist()


def test_warm_up_rises_to_the_peak_and_the_cosine_falls_to_nothing() -> None:
    train = TrainSpec(steps=100, lr=1e-3, warmup_frac=0.1)
    rates = [learning_rate(step, train) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-3)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5e-3)
    assert 0 < rates[-1] < 1e-6


def test_a_constant_schedule_stays_at_the_peak() -> None:
    train = TrainSpec(steps=10, lr=1e-3, warmup_frac=0.0, schedule="constant")
    assert {learning_rate(step, train) for step in range(10)} == {1e-3}


@pytest.mark.parametrize("warmup_frac", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_has_a_rate_above_zero(steps: int, warmup_frac: float) -> None:
    train = TrainSpec(steps=steps, warmup_frac=warmup_frac)
    assert all(0 < learning_rate(step, train) <= train.lr for step in range(steps))
