"""The MAUVE Audio Divergence against its definition, its invariances, and mauve-text where that is installed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from lora_bench.errors import UnscoredError
from lora_bench.metrics.label_kl import LabelKl
from lora_bench.metrics.mauve import Mad, MadSettings, find_bins, measure_mauve, reduce_vectors


def make_sets(
    n: int = 200, shift: float = 0.0, dim: int = 6
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two sets in four directions; `shift` moves the shares of the first set's directions."""
    rng = np.random.default_rng(0)
    places = np.eye(dim)[:4] * 5.0
    shares = np.array([0.25 + shift, 0.25 - shift, 0.25 + shift, 0.25 - shift])
    one, other = (
        places[rng.choice(4, n, p=p)] + rng.normal(0, 0.3, (n, dim)) for p in (shares, np.full(4, 0.25))
    )
    return one, other


def score(one: NDArray[np.float64], other: NDArray[np.float64], bins: int | None = None) -> float:
    mad = Mad(MadSettings(bins=bins))
    return mad.measure(*mad.prepare(one, other))


def test_equal_sets_have_no_divergence_and_it_grows_with_the_difference() -> None:
    one, _ = make_sets()
    assert score(one, one, bins=4) == pytest.approx(0.0, abs=1e-4)
    found = [score(*make_sets(n=2000, shift=shift), bins=4) for shift in (0.0, 0.1, 0.2)]
    assert found[0] < 0.02 < found[1] < found[2]


def test_the_area_is_that_of_the_definition() -> None:
    p, q = np.array([0.7, 0.2, 0.1, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    points = [(1.0, 0.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, 25):
        mixture = weight * p + (1 - weight) * q
        to_q, to_p = (
            sum(a * np.log(a / m) for a, m in zip(side, mixture, strict=True) if a) for side in (q, p)
        )
        points.append((np.exp(-5 * to_q), np.exp(-5 * to_p)))
    x, y = np.array([*points, (0.0, 1.0)]).T
    area = 0.5 * (abs(trapezoid(y, x)) + abs(trapezoid(x, y)))
    assert measure_mauve(p, q) == pytest.approx(area, rel=1e-9)
    assert measure_mauve(p, q) == pytest.approx(measure_mauve(q, p), rel=1e-9)


def test_bins_find_clusters_and_the_scale_does_not_count() -> None:
    one, other = make_sets(shift=0.1)
    bins = find_bins(reduce_vectors(np.concatenate([one, other])), 4)
    directions = np.concatenate([one, other])[:, :4].argmax(axis=1)
    assert len(set(zip(bins.tolist(), directions.tolist(), strict=True))) == 4
    assert score(one * 3.0, other * 0.5, bins=4) == pytest.approx(score(one, other, bins=4), rel=1e-9)


def test_few_and_equal_vectors_are_no_error() -> None:
    for dim in range(1, 40):  # whether rounding differs between equal rows depends on the BLAS and the shape
        equal = np.full((7, dim), 0.3) + np.arange(dim)
        assert score(equal[:3], equal[3:]) == pytest.approx(0.0, abs=1e-4)
    assert score(np.zeros((3, 2)), np.ones((4, 2))) > 0.0


@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2])
def test_mauve_text_gives_the_same_where_its_bins_are_the_same(shift: float) -> None:
    mauve = pytest.importorskip("mauve", reason="mauve-text is not installed")
    one, other = make_sets(shift=shift)  # clusters that every k-means finds
    theirs = mauve.compute_mauve(p_features=one, q_features=other, num_buckets=4)
    assert score(one, other, bins=4) == pytest.approx(-np.log(theirs.mauve), rel=1e-6)


def test_the_divergence_of_labels_is_that_of_the_mean_probabilities() -> None:
    generated, reference = np.array([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]]), np.array([[0.2, 0.3, 0.5]])
    p, q = reference.mean(axis=0), generated.mean(axis=0)
    found = LabelKl(None).measure(generated, reference)
    assert found == pytest.approx(float((p * np.log(p / (q + 1e-6))).sum()), abs=1e-4)
    assert LabelKl(None).measure(reference, reference) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(UnscoredError, match="vectors are no probabilities"):
        LabelKl(None).measure(generated * 2.0, reference)
