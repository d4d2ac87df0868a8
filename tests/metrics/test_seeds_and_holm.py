from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bench.errors import ScoreError
from lora_bench.metrics.seeds_and_holm import holm, summarize_seeds


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    ranked = [adjusted[place] for place in np.argsort(p_values, kind="stable")]
    assert ranked == sorted(ranked)


def test_holm_of_one_test_changes_nothing():
    assert holm([0.03]) == [0.03]


def test_seeds_get_mean_standard_error_and_students_interval():
    found = summarize_seeds([1.0, 2.0, 3.0])
    assert (found.mean, found.n_seeds) == (2.0, 3)
    assert found.se == pytest.approx(1.0 / np.sqrt(3.0))
    assert found.ci_high == pytest.approx(2.0 + 4.302653 / np.sqrt(3.0), rel=1e-6)


def test_one_seed_has_no_standard_error():
    found = summarize_seeds([1.5])
    assert (found.mean, found.se, found.ci_low, found.ci_high, found.n_seeds) == (1.5, None, None, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_missing_seeds_are_an_error_and_not_a_number(values):
    with pytest.raises(ScoreError, match="expected one finite number per seed"):
        summarize_seeds(values)
