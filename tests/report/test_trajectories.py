"""The figure over the steps of a training, from invented results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_bench.report.plots.trajectories import draw_trajectories, list_trajectories
from lora_bench.report.view import RunView
from lora_bench.results.run_records import RunResults


def score(value: float) -> dict[str, Any]:
    return {
        "metric": "mfcc20", "prompt": None, "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "se": 0.05,
        "n_generated": 10, "n_reference": 10, "dim": 20,
    }  # fmt: skip


def row(step: int | None, value: float, loss: float, **fields: Any) -> dict[str, Any]:
    """One row of a training of 100 steps; None is its end."""
    name = "r2" if step is None else f"r2@{step}"
    return {
        "id": f"{name}-id",
        "name": name,
        "configuration": name,
        "train_seed": 0,
        "train": {"steps": 100} | ({} if step is None else {"keep": step}),
        "losses": {"first_eval": 5.0, "last_eval": loss},
        "scores": [score(value)],
        **fields,
    }


def view(trials: list[dict[str, Any]], folder: Path, **fields: Any) -> RunView:
    base = {"id": "zero", "name": "zero-shot", "kind": "zero-shot", "scores": [score(3.0)]}
    found = {"schema": 1, "name": "t", "planned": {"metrics": ["mfcc20"], "primary_metric": "mfcc20"}}
    return RunView(RunResults.model_validate({**found, "trials": [base, *trials], **fields}), folder)


ROWS = [row(25, 2.0, 4.0), row(50, 1.0, 3.0), row(None, 1.5, 3.5)]
SELECTION = {"dataset": {"selection": {"n_tracks": 2, "duration_s": 10.0}}}


def test_rows_of_one_training_are_a_trajectory_and_others_are_none(tmp_path: Path) -> None:
    best = row(None, 1.0, 1.0, id="b", name="best", configuration="best")
    best["train"]["keep"] = "best"
    (found,) = list_trajectories(view([*ROWS, best], tmp_path))
    assert (found.name, [step for step, _ in found.rows]) == ("r2", [25, 50, 100])
    assert draw_trajectories(view([ROWS[2], best], tmp_path)) is None


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [({}, None), (SELECTION, 50)],
    ids=["no selection side", "its loss"],
)
def test_the_selection_side_chooses_the_step(
    tmp_path: Path, selection: dict[str, Any], chosen: int | None
) -> None:
    (found,) = list_trajectories(view(ROWS, tmp_path, **selection))
    assert found.chosen == chosen


def test_its_scores_choose_before_its_loss_and_the_test_side_never_does(tmp_path: Path) -> None:
    seen = {25: 0.5, 50: 0.7, None: 0.6}
    rows = [{**item, "selection": [score(value)]} for item, value in zip(ROWS, seen.values(), strict=True)]
    (found,) = list_trajectories(view(rows, tmp_path, **SELECTION))
    assert found.chosen == 25


def test_the_figure_has_a_panel_per_measure_that_is_there(tmp_path: Path) -> None:
    guards = [
        {"trial": item["id"], "closer_than_held_out_frac": 0.1 * place} for place, item in enumerate(ROWS)
    ]
    control = [{"trial": item["id"], "encoder": "mfcc", "retention": 0.9} for item in ROWS]
    figure = draw_trajectories(view(ROWS, tmp_path, guards=guards, control=control, **SELECTION))
    assert figure is not None
    for title in ("mfcc20", "held-out loss", "clips closer to the training set", "retention by mfcc"):
        assert title in figure.svg
    for step, value in ((0, "3.00"), (25, "2.00"), (50, "1.00"), (100, "1.50")):
        assert f"r2 at step {step}: {value}" in figure.svg
    assert "upright stroke is at the step that the selection tracks choose" in figure.caption
    plain = draw_trajectories(view(ROWS, tmp_path))
    assert plain is not None
    assert "retention" not in plain.svg
    assert "No step is marked, because no tracks were set aside to select by" in plain.caption
