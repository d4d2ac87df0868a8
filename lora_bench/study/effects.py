"""Main effects and interactions, with their errors over training seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import special

from lora_bench.metrics.t_distribution import t_reach
from lora_bench.study.fitting import Fit, Floats, SeedError, code_blocks, code_levels
from lora_bench.study.records import Axis, Interaction, InteractionCell, LevelEffect, MainEffect
from lora_bench.study.table import Row


def f_probability(f_value: float, df: int, df_error: int) -> float:
    """Return the p-value of F."""
    return float(special.fdtrc(df, df_error, f_value))


class FactorialModel:
    """Additive model of the scored trials of the grid, with training seeds as blocks."""

    def __init__(self, rows: Sequence[Row], axes: Sequence[Axis], error: SeedError) -> None:
        self.rows = [row for row in rows if row.position is not None]
        self.axes = tuple(axes)
        self.error = error
        self.values = np.asarray([row.value for row in self.rows], dtype=np.float64)
        self.blocks = code_blocks([row.seed for row in self.rows])
        self.codes = [
            code_levels([self._level(row, index) for row in self.rows], len(axis.levels))
            for index, axis in enumerate(self.axes)
        ]
        self.additive = self._fit(self.codes)

    @staticmethod
    def _level(row: Row, axis: int) -> int:
        if row.position is None:
            raise ValueError("a row without a position is no part of the grid")
        return row.position[axis]

    def _fit(self, columns: Sequence[Floats]) -> Fit:
        intercept = np.ones((len(self.rows), 1))
        return Fit(np.hstack([intercept, *columns, self.blocks]), self.values)

    def contrast(self, levels: dict[int, int], *, with_mean: bool) -> Floats:
        """Return coefficients of the mean at some levels, the other axes and the seeds averaged."""
        parts = [np.asarray([1.0 if with_mean else 0.0])]
        for index, axis in enumerate(self.axes):
            n_levels = len(axis.levels)
            chosen = levels.get(index)
            parts.append(np.zeros(n_levels - 1) if chosen is None else code_levels([chosen], n_levels)[0])
        return np.concatenate([*parts, np.zeros(self.blocks.shape[1])])

    def main_effect(self, axis_index: int) -> MainEffect:
        """Return the effect of one axis, given the others."""
        axis = self.axes[axis_index]
        others = [codes for index, codes in enumerate(self.codes) if index != axis_index]
        error = self._axis_error(self.codes[axis_index])
        f_value, df, p_value = self._test(self._fit(others), self.additive, error)
        levels = tuple(
            self._level_effect(axis_index, index, level.label, error)
            for index, level in enumerate(axis.levels)
        )
        return MainEffect(axis.field, levels, f_value, df, error.df, p_value)

    def _axis_error(self, codes: Floats) -> SeedError:
        """Return how much the effect of an axis differs between seeds, the error of its mean over seeds.

        The seeds are a sample: an effect that differs between them more than the trials scatter is not established by
        many trials of few seeds.  Where the seeds do not cross the axis, it is the error of the whole study.
        """
        crossed = np.einsum("ni,nj->nij", codes, self.blocks).reshape(len(self.rows), -1)
        larger = self._fit([*self.codes, crossed])
        df = larger.rank - self.additive.rank
        if self.error.sd is None or df < 1:
            return self.error
        gained = max(self.additive.residual_square_sum - larger.residual_square_sum, 0.0)
        return SeedError(float(np.sqrt(gained / df)), df)

    def _level_effect(self, axis_index: int, level: int, label: str, error: SeedError) -> LevelEffect:
        n_trials = sum(self._level(row, axis_index) == level for row in self.rows)
        mean = self.additive.estimate(self.contrast({axis_index: level}, with_mean=True))
        contrast = self.contrast({axis_index: level}, with_mean=False)
        effect = self.additive.estimate(contrast)
        if effect is None or error.sd is None:
            return LevelEffect(label, n_trials, mean, effect, None, None, None)
        se = error.sd * self.additive.unit_error(contrast)
        reach = t_reach(error.df) * se
        return LevelEffect(label, n_trials, mean, effect, se, effect - reach, effect + reach)

    @staticmethod
    def _test(smaller: Fit, larger: Fit, error: SeedError) -> tuple[float | None, int, float | None]:
        """Return F of what the larger model explains beyond the smaller one."""
        df = larger.rank - smaller.rank
        gained = max(smaller.residual_square_sum - larger.residual_square_sum, 0.0)
        if df < 1 or not error.sd:
            return None, df, None
        f_value = gained / df / error.sd**2
        return f_value, df, f_probability(f_value, df, error.df)

    def interaction(self, row_axis: int, column_axis: int, *, higher_is_better: bool) -> Interaction:
        """Return two axes as a table."""
        first, second = self.codes[row_axis], self.codes[column_axis]
        products = np.einsum("ni,nj->nij", first, second).reshape(len(self.rows), -1)
        f_value, df, p_value = self._test(self.additive, self._fit([*self.codes, products]), self.error)
        rows, columns = self.axes[row_axis], self.axes[column_axis]
        cells = tuple(
            tuple(self._cell(row_axis, i, column_axis, j) for j in range(len(columns.levels)))
            for i in range(len(rows.levels))
        )
        means = {
            (i, j): cell.mean
            for i, line in enumerate(cells)
            for j, cell in enumerate(line)
            if cell.mean is not None
        }
        choose = max if higher_is_better else min
        return Interaction(
            rows=rows.field,
            columns=columns.field,
            row_labels=tuple(level.label for level in rows.levels),
            column_labels=tuple(level.label for level in columns.levels),
            cells=cells,
            f_value=f_value,
            df=df,
            df_error=self.error.df,
            p_value=p_value,
            best=choose(means, key=lambda place: means[place]) if means else None,
        )

    def _cell(self, row_axis: int, i: int, column_axis: int, j: int) -> InteractionCell:
        chosen = [
            row for row in self.rows if self._level(row, row_axis) == i and self._level(row, column_axis) == j
        ]
        if not chosen:
            return InteractionCell((), 0, None, None, None)
        mean = float(np.mean([row.value for row in chosen]))
        names = tuple(dict.fromkeys(row.configuration for row in chosen))
        se = None if self.error.sd is None else self.error.sd / float(np.sqrt(len(chosen)))
        expected = self.additive.estimate(self.contrast({row_axis: i, column_axis: j}, with_mean=True))
        return InteractionCell(names, len(chosen), mean, se, None if expected is None else mean - expected)


def analyse_axes(
    rows: Sequence[Row], axes: Sequence[Axis], error: SeedError, *, higher_is_better: bool
) -> tuple[tuple[MainEffect, ...], tuple[Interaction, ...]]:
    """Return main effects of all axes, and the interactions of all pairs; empty without trials in the grid."""
    if not axes or not any(row.position is not None for row in rows):
        return (), ()
    model = FactorialModel(rows, axes, error)
    mains = tuple(model.main_effect(index) for index in range(len(axes)))
    pairs = itertools.combinations(range(len(axes)), 2)
    return mains, tuple(model.interaction(i, j, higher_is_better=higher_is_better) for i, j in pairs)
