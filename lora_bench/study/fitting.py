"""Least squares over trials: axes in sum coding, training seeds as blocks.

The error is what is left when every configuration has its own mean and every seed its own shift, so a
departure from additivity is not taken for noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Singular values below this share of the largest count as zero.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Fit:
    """A fitted linear model.

    Attributes:
        design: [n, p], `values` [n].
    """

    design: Floats
    values: Floats

    @cached_property
    def inverse(self) -> Floats:
        """Pseudo-inverse of the normal matrix, [p, p]."""
        normal = self.design.T @ self.design
        return np.asarray(np.linalg.pinv(normal, rcond=TOLERANCE, hermitian=True), dtype=np.float64)

    @cached_property
    def coefficients(self) -> Floats:
        """[p], of least norm where the design does not determine them."""
        solved = np.linalg.lstsq(self.design, self.values, rcond=TOLERANCE)[0]
        return np.asarray(solved, dtype=np.float64)

    @cached_property
    def rank(self) -> int:
        """Number of columns that the data distinguish."""
        return int(
            np.linalg.matrix_rank(self.design, tol=TOLERANCE * max(1.0, float(np.abs(self.design).max())))
        )

    @cached_property
    def residual_square_sum(self) -> float:
        """Sum of squared residuals."""
        residuals = self.values - self.design @ self.coefficients
        return float(residuals @ residuals)

    def estimate(self, contrast: Floats) -> float | None:
        """Return the value of a contrast; None if the design does not determine it."""
        projected = self.inverse @ (self.design.T @ self.design) @ contrast
        if not np.allclose(projected, contrast, atol=1e-7):
            return None
        return float(contrast @ self.coefficients)

    def unit_error(self, contrast: Floats) -> float:
        """Return the standard error of a contrast for an error of standard deviation 1."""
        return float(np.sqrt(max(contrast @ self.inverse @ contrast, 0.0)))


def code_levels(indices: Sequence[int], n_levels: int) -> Floats:
    """Return the sum coding, [n, n_levels - 1]: coefficients are deviations from the mean over levels."""
    table = np.vstack([np.eye(n_levels - 1), -np.ones((1, n_levels - 1))])
    return table[np.asarray(indices, dtype=np.intp)]


def index_items(items: Sequence[object]) -> tuple[list[int], int]:
    """Return each item as a number in the order of first occurrence, and how many differ."""
    numbers: dict[object, int] = {}
    indices = [numbers.setdefault(item, len(numbers)) for item in items]
    return indices, len(numbers)


def code_blocks(seeds: Sequence[object]) -> Floats:
    """Return shifts of the training seeds in sum coding, [n, n_seeds - 1]."""
    indices, n_seeds = index_items(seeds)
    return code_levels(indices, n_seeds) if n_seeds > 1 else np.zeros((len(seeds), 0))


@dataclass(frozen=True)
class SeedError:
    """Variation between training seeds.

    Attributes:
        sd: standard deviation, seeds' common shifts taken out; None without a repetition.
        df: degrees of freedom.
    """

    sd: float | None
    df: int


def measure_error(
    configurations: Sequence[str], seeds: Sequence[object], values: Sequence[float]
) -> SeedError:
    """Return the error that all tests of a study share, from every fine-tuned trial.

    A configuration with a single seed has no residual and adds nothing.
    """
    if len(values) < 2:
        return SeedError(None, 0)
    indices, n_cells = index_items(configurations)
    cells = np.eye(n_cells)[indices]
    fit = Fit(np.hstack([cells, code_blocks(seeds)]), np.asarray(values, dtype=np.float64))
    df = len(values) - fit.rank
    if df < 1:
        return SeedError(None, 0)
    return SeedError(float(np.sqrt(fit.residual_square_sum / df)), df)
