"""Early stopping: the rule against Ray's own, and its state on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_bench.errors import StoppedEarlyError
from lora_bench.planning.plan import plan_experiment
from lora_bench.runner.early_stopping import EarlyStopper, is_behind, list_rungs
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.search import EarlyStoppingSpec

RULE = EarlyStoppingSpec(grace_steps=10, reduction=2.0)
LOSSES = st.floats(0.0, 10.0, allow_nan=False)


def make_stopper(
    place: Path, name: str, *, key: str = "", group: str = "data", steps: int = 100
) -> EarlyStopper:
    """A stopper of the trial of that name."""
    return EarlyStopper(RULE, steps, place / name, key or name, group)


def test_rungs_grow_by_the_reduction_and_lie_below_the_last_step() -> None:
    assert list_rungs(RULE, 100) == (10, 20, 40, 80)
    assert list_rungs(RULE, 80) == (10, 20, 40)
    assert list_rungs(RULE, 10) == ()


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 99), LOSSES), max_size=30),
    reduction=st.sampled_from([2.0, 3.0, 4.0]),
)
def test_decisions_are_those_of_rays_scheduler(
    steps: list[tuple[int, int, float]], reduction: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.schedulers.async_hyperband import _Bracket

    place = tmp_path_factory.mktemp("asha")
    rule = EarlyStoppingSpec(grace_steps=10, reduction=reduction)
    bracket = _Bracket(10, 100, reduction, 0, stop_last_trials=False)
    stoppers = {number: EarlyStopper(rule, 100, place / str(number), "k", "g") for number in range(6)}
    reached = dict.fromkeys(stoppers, 0)
    stopped: set[int] = set()
    for number, step, loss in steps:
        if number in stopped or step <= reached[number]:
            continue  # a trial only moves on
        reached[number] = step
        theirs = bracket.on_result(SimpleNamespace(trial_id=str(number)), step, -loss)
        try:
            stoppers[number].measure(step, loss)
            assert theirs == TrialScheduler.CONTINUE
        except StoppedEarlyError:
            assert theirs == TrialScheduler.STOP
            stopped.add(number)


def test_the_first_trial_at_a_rung_goes_on_and_a_worse_one_is_stopped_with_the_numbers(
    tmp_path: Path,
) -> None:
    make_stopper(tmp_path, "a").measure(10, 2.0)
    make_stopper(tmp_path, "b").measure(10, 1.0)
    with pytest.raises(
        StoppedEarlyError,
        match=r"stopped early at step 12 of 100: its held-out loss 3\.0000 was not among the best 1/2 of the 2 "
        r"trials that had reached the rung at 10 steps",
    ):
        make_stopper(tmp_path, "c").measure(12, 3.0)


def test_before_the_first_rung_nothing_is_decided(tmp_path: Path) -> None:
    make_stopper(tmp_path, "a").measure(10, 1.0)
    make_stopper(tmp_path, "b").measure(9, 5.0)
    assert not (tmp_path / "b" / "rungs.json").exists()


def test_a_decision_stands_when_the_trial_is_taken_up_again(tmp_path: Path) -> None:
    make_stopper(tmp_path, "a").measure(10, 2.0)
    make_stopper(tmp_path, "b").measure(10, 1.0)
    make_stopper(tmp_path, "a").measure(11, 9.0)  # passed the rung before it was killed
    with pytest.raises(StoppedEarlyError):
        make_stopper(tmp_path, "c").measure(10, 3.0)
    with pytest.raises(StoppedEarlyError, match="at step 10"):
        make_stopper(tmp_path, "c").check()


def test_losses_of_other_data_and_records_of_other_settings_do_not_count(tmp_path: Path) -> None:
    make_stopper(tmp_path, "a", group="other data").measure(10, 1.0)
    make_stopper(tmp_path, "b").measure(10, 5.0)
    with pytest.raises(StoppedEarlyError):
        make_stopper(tmp_path, "c").measure(10, 6.0)
    make_stopper(tmp_path, "c", key="other settings").check()


@given(earlier=st.lists(LOSSES, min_size=1, max_size=20))
def test_the_best_is_never_behind(earlier: list[float]) -> None:
    assert not is_behind(min(earlier), earlier, 3.0)


def make_spec(**fields: object) -> ExperimentSpec:
    """A spec with two variants, early stopping and these fields."""
    return ExperimentSpec.model_validate(
        {
            "schema": 1,
            "name": "t",
            "dataset": {"builtin": "chiptune"},
            "prompts": ["a"],
            "search": {"early_stopping": {"grace_steps": 10}},
            "trials": {"variants": [{"name": "x"}, {"name": "y", "lora.rank": 2}]},
            **fields,
        }
    )


def test_zero_shot_and_the_baseline_are_never_stopped() -> None:
    plan = plan_experiment(make_spec(baseline="x"))
    rules = {trial.name: trial.early_stopping for trial in plan.trials}
    assert (rules["zero-shot"], rules["x"]) == (None, None)
    assert rules["y"] == EarlyStoppingSpec(grace_steps=10)


def test_early_stopping_is_no_part_of_a_trials_identity() -> None:
    dataset = {"builtin": "chiptune", "split": {"selection_frac": 0.2}}
    with_rule = plan_experiment(make_spec(dataset=dataset))
    without = plan_experiment(make_spec(dataset=dataset, search={}))
    assert [trial.id for trial in with_rule.trials] == [trial.id for trial in without.trials]


def test_seeds_are_not_chosen_among() -> None:
    with pytest.raises(ValueError, match="the mean over the rest would be too good"):
        make_spec(repeats={"train_seeds": [0, 1]})
