"""Which trials a search tries: Optuna's own choices, kept to what is planned, across kills."""

from __future__ import annotations

import os
import random
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import TESTS
from support.fake_trials import Recorder
from support.searched_trials import RANKS, TARGETS, execute_searched, loss_of, plan_grid, read_order

from lora_bench.artifacts import LossPoint
from lora_bench.cli.commands import status
from lora_bench.cli.commands.run import describe_gaps
from lora_bench.errors import InterruptedRunError, ResourceError
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.report.render import render_report
from lora_bench.results.gather import gather_results, write_results
from lora_bench.results.trial_files import read_state
from lora_bench.runner.executor import run_trials
from lora_bench.runner.experiment import list_pending, run_experiment
from lora_bench.runner.freshness import inputs_key
from lora_bench.runner.ray_backend.search import RaySuggester, TrialFeed, count_slots
from lora_bench.runner.search.optuna import StudySuggester, require_optuna
from lora_bench.runner.search.trial_search import (
    CellSearch,
    Outcome,
    SearchPlan,
    count_expected,
    plan_search,
    read_objective,
)
from lora_bench.spec.schema import ResourcesSpec
from lora_bench.store import write_json

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")


def search_of(plan: ExperimentPlan, place: Path = Path("nowhere")) -> SearchPlan:
    """What is searched, with what the run's files say."""
    pending = [
        t for t in plan.trials if read_state(place / "trials" / t.id).get("state") not in {"done", "stopped"}
    ]
    found = plan_search(plan, place, pending)
    assert found is not None
    return found


def name_of(plan: ExperimentPlan, trial_id: str | None) -> str:
    return next(trial.name for trial in plan.trials if trial.id == trial_id)


def value_of(plan: ExperimentPlan, trial_id: str) -> float:
    lora = next(trial.lora for trial in plan.trials if trial.id == trial_id)
    assert lora is not None
    return loss_of(lora.rank, str(lora.targets))


def search_alone(seed: int, n_trials: int, *, first: dict[str, str] | None = None) -> list[str]:
    """Plain optuna on the same two axes: combinations in the order of their first suggestion."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=False))
    if first:
        study.enqueue_trial(first)
    found: list[str] = []
    while len(found) < n_trials:
        trial = study.ask()
        rank = trial.suggest_categorical("lora.rank", [str(rank) for rank in RANKS])
        targets = trial.suggest_categorical("lora.targets", list(TARGETS))
        study.tell(trial, loss_of(int(rank), targets))
        if (name := f"r{rank}-{targets}") not in found:
            found.append(name)
    return found


def run_here(
    plan: ExperimentPlan, place: Path, *, executor: str = "local", resources: ResourcesSpec | None = None
) -> None:
    """Run what is missing in this process, as `run_experiment` does."""
    write_json(place / "plan.json", plan)
    pending, search = list_pending(plan, place)
    run_trials(
        pending,
        place,
        place / "cache",
        Recorder(),
        executor=executor,
        resources=resources or ResourcesSpec(),
        inputs={trial.id: inputs_key(trial) for trial in pending},
        execute=execute_searched,
        search=search,
    )


# ---------------------------------------------------------------- choices


@needs_optuna
@pytest.mark.parametrize("suggester", [StudySuggester, RaySuggester])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_one_at_a_time_the_choices_are_those_of_plain_optuna(suggester: Any, seed: int) -> None:
    plan = plan_grid(16, optuna={"seed": seed})
    search = CellSearch(search_of(plan), suggester(search_of(plan)))
    found: list[str] = []
    while (trial := search.choose()) is not None:
        found.append(name_of(plan, trial))
        search.settle(trial, Outcome("done", value_of(plan, trial)))
    assert found[:14] == search_alone(seed, 14)  # far along, a lot may stand in for repeated suggestions
    assert len(set(found)) == 16


@needs_optuna
@pytest.mark.parametrize("suggester", [StudySuggester, RaySuggester])
def test_the_baseline_is_tried_first(suggester: Any) -> None:
    plan = plan_grid(12, baseline="r32-all")
    search = CellSearch(search_of(plan), suggester(search_of(plan)))
    found: list[str] = []
    while (trial := search.choose()) is not None:
        found.append(name_of(plan, trial))
        search.settle(trial, Outcome("done", value_of(plan, trial)))
    assert found == search_alone(0, 12, first={"lora.rank": "32", "lora.targets": "all"})
    assert found[0] == "r32-all"


@needs_optuna
@pytest.mark.parametrize("suggester", [StudySuggester, RaySuggester])
def test_a_metric_of_which_more_is_better_is_sought_upwards(suggester: Any) -> None:
    plan = plan_grid(14, metrics=["clap_score"], optuna={"objective": "clap_score"})
    assert search_of(plan).higher_is_better
    assert not search_of(plan_grid(14, optuna={"objective": "mfcc20"})).higher_is_better
    search = CellSearch(search_of(plan), suggester(search_of(plan)))
    found: list[str] = []
    while (trial := search.choose()) is not None:
        found.append(name_of(plan, trial))
        search.settle(trial, Outcome("done", -value_of(plan, trial)))
    assert found == search_alone(0, 14)  # the same as with the loss itself


@needs_optuna
@pytest.mark.parametrize("suggester", [StudySuggester, RaySuggester])
def test_what_is_not_planned_is_not_tried_and_equal_values_do_not_hold_a_search_up(suggester: Any) -> None:
    plan = plan_grid(14, grid={"exclude": [{"lora.rank": 8}]})
    search = CellSearch(search_of(plan), suggester(search_of(plan)))
    found: list[str] = []
    while (trial := search.choose()) is not None:
        found.append(name_of(plan, trial))
        search.settle(trial, Outcome("done", 1.0))
    assert len(set(found)) == len(found) == 14
    assert not any(name.startswith("r8-") for name in found)


class Stubborn:
    """Always suggests the same."""

    def __init__(self) -> None:
        self.told: list[Outcome] = []
        self.added: list[dict[str, str]] = []

    def ask(self) -> tuple[str, dict[str, str]]:
        return str(len(self.told)), {"lora.rank": "1", "lora.targets": "ffn"}

    def tell(self, number: str, outcome: Outcome) -> None:
        self.told.append(outcome)

    def add(self, cell: Any, outcome: Outcome) -> None:
        self.added.append(dict(cell))


def test_after_25_repeats_an_untried_trial_is_drawn_by_the_searchs_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        plan, optuna = plan_grid(6, optuna={"seed": seed}), Stubborn()
        search = CellSearch(search_of(plan), optuna)
        order: list[str] = []
        while (trial := search.choose()) is not None:
            order.append(name_of(plan, trial))
            search.settle(trial, Outcome("done", 2.0))
        assert order[0] == "r1-ffn"
        assert len(optuna.told) == 1 + 25 * 5
        assert optuna.told == [Outcome("done", 2.0)] * len(optuna.told)
        assert len(optuna.added) == 5
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]
    assert all(len(set(order)) == 6 for order in orders)


@needs_optuna
@pytest.mark.parametrize("seed", range(5))
def test_side_by_side_no_trial_is_begun_twice_and_none_beyond_the_number(seed: int) -> None:
    plan = plan_grid(15, optuna={"seed": seed})
    chooser = CellSearch(search_of(plan), StudySuggester(search_of(plan)))
    feed = TrialFeed([plan.trials[0].id], chooser, lambda: 3)
    lot = random.Random(seed)
    running: dict[str, str] = {}
    begun: list[str] = []
    while running or not feed.is_over:
        trial = feed.suggest(str(len(begun)))
        if trial is not None:
            running[str(len(begun))] = trial
            begun.append(trial)
            assert len(running) <= 3
        elif running:
            ended = lot.choice(list(running))
            trial = running.pop(ended)
            died = lot.random() < 0.2
            result = {"state": "done", "objective": lot.random()}
            feed.complete(ended, None if died else result)
    assert begun[0] == plan.trials[0].id
    assert len(set(begun)) == len(begun) == 1 + 15


def test_room_is_counted_by_node() -> None:
    nodes = [{"Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Resources": {"CPU": 7.0}}, {}]
    assert count_slots(nodes, ResourcesSpec(cpu=3)) == 2 + 2
    assert count_slots(nodes, ResourcesSpec(cpu=1, gpu=1)) == 2
    assert count_slots([], ResourcesSpec(cpu=3)) == 1


# ---------------------------------------------------------------- files


@needs_optuna
def test_a_run_that_is_interrupted_goes_on_with_the_choices_that_it_would_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_grid(13)
    expected = search_alone(0, 13)
    for number in (3, 11):
        monkeypatch.setenv(f"DO_{expected[number].replace('-', '_')}", "interrupt")
        with pytest.raises(InterruptedRunError, match=rf"{number + 1} of 14|trials are done and kept"):
            run_here(plan, tmp_path)
        monkeypatch.delenv(f"DO_{expected[number].replace('-', '_')}")
        assert gather_results(tmp_path).complete is False
    run_here(plan, tmp_path)
    order = read_order(tmp_path)
    assert order == [*expected[:4], *expected[3:12], *expected[11:]]  # the two that were cut short came twice
    assert gather_results(tmp_path).complete is True
    run_here(plan, tmp_path)
    assert read_order(tmp_path) == order
    run_here(plan_grid(15), tmp_path)  # more of the same search
    assert read_order(tmp_path)[len(order) :] == search_alone(0, 15)[13:]


@needs_optuna
def test_what_was_trained_before_the_search_counts_and_is_not_trained_again(tmp_path: Path) -> None:
    plan = plan_grid(None, dataset={"builtin": "chiptune", "split": {"selection_frac": 0.1}})
    done = [trial for trial in plan.trials if trial.name in {"r1-all", "r2-all", "r4-all"}]
    keys = {trial.id: inputs_key(trial) for trial in done}
    run_trials(
        done, tmp_path, tmp_path, Recorder(), resources=ResourcesSpec(), inputs=keys, execute=execute_searched
    )
    run_here(plan_grid(8), tmp_path)
    order = read_order(tmp_path)
    assert len(set(order)) == len(order) == 8
    assert gather_results(tmp_path).search.n_tried == 8


@needs_optuna
def test_failed_and_stopped_trials_count_as_tried_and_are_no_numbers_to_optuna(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    told: list[tuple[Any, Any]] = []
    tell = optuna.study.Study.tell

    def listen(study: Any, trial: Any, values: Any = None, state: Any = None, **more: Any) -> Any:
        told.append((values, state.name))
        return tell(study, trial, values, state, **more)

    first = search_alone(0, 2)
    monkeypatch.setattr(optuna.study.Study, "tell", listen)
    plan = plan_grid(5)
    monkeypatch.setenv(f"DO_{first[0].replace('-', '_')}", "fail")
    monkeypatch.setenv(f"DO_{first[1].replace('-', '_')}", "stop")
    run_here(plan, tmp_path)
    assert told[:2] == [(None, "FAIL"), (None, "PRUNED")]
    assert {state for _, state in told[2:]} == {"COMPLETE"}
    results = gather_results(tmp_path)
    states = {trial.name: trial.state for trial in results.trials}
    assert (states[first[0]], states[first[1]]) == ("failed", "stopped")
    assert sorted(states.values()).count("untried") == 18 - 5
    assert results.complete is False  # for what failed
    monkeypatch.delenv(f"DO_{first[0].replace('-', '_')}")
    before = read_order(tmp_path)
    run_here(plan, tmp_path)  # again: only what failed, and nothing is chosen any more
    assert read_order(tmp_path)[len(before) :] == [first[0]]
    assert gather_results(tmp_path).complete is True


@needs_optuna
def test_what_was_not_tried_is_neither_missing_nor_in_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "t"
    run_here(plan_grid(4), run)
    results = write_results(run)
    assert results.complete is True
    assert results.search.model_dump() == {
        "n_trials": 4, "n_candidates": 18, "n_tried": 4, "objective": "held_out_loss", "seed": 0,
        "side": "selection",
    }  # fmt: skip
    untried = [trial for trial in results.trials if trial.state == "untried"]
    assert len(untried) == 14
    assert all(trial.scores == trial.unscored == () for trial in untried)
    assert {trial.reason for trial in untried} == {"not tried: it is not among the 4 that the search chose"}
    assert not any(trial.name in (run / "results.csv").read_text(encoding="utf-8") for trial in untried)
    render_report(run, tmp_path / "reports")
    files = [tmp_path / "reports" / "t" / name for name in ("report.md", "details.md")]
    report = "".join(file.read_text(encoding="utf-8") for file in files)
    assert "by held-out loss on the selection tracks) tried 4 of 18 combinations" in report
    assert not any(trial.name in report for trial in untried)
    assert status.execute(status.Options(run, tmp_path, json=False)) == 0
    said = capsys.readouterr().out
    assert "5 of 19 trials done, 14 not tried by the search" in said
    assert said.count("not tried  ") == 14


def test_while_a_search_goes_on_the_run_is_incomplete_and_says_how_far_it_is(tmp_path: Path) -> None:
    plan = plan_grid(4)
    run = tmp_path / "t"
    write_json(run / "plan.json", plan)
    for trial in plan.trials[:3]:
        write_json(run / "trials" / trial.id / "state.json", {"state": "stopped", "reason": "behind"})
    results = write_results(run)
    assert results.complete is False
    assert results.trials[-1].state == "untried"
    assert results.trials[-1].reason == "not chosen so far: the search has tried 2 of 4"
    assert describe_gaps(run)[0] == "incomplete: the search has tried 2 of 4 trials"
    assert not any("not chosen" in line for line in describe_gaps(run))
    render_report(run, tmp_path / "reports")
    place = tmp_path / "reports" / "t"
    report = "\n".join((place / name).read_text(encoding="utf-8") for name in ("report.md", "details.md"))
    assert "This run is incomplete: the search has tried 2 of 4 trials, " in report
    assert "- The search has tried 2 of 4 trials" in report
    assert plan.trials[-1].name not in report


def test_the_objective_is_the_last_loss_or_the_mean_over_all_prompts(tmp_path: Path) -> None:
    write_json(
        tmp_path / "train.json",
        {"curve": [LossPoint(step, None, loss, 1e-4, 0.5) for step, loss in ((0, 1.0), (9, 3.0))]},
    )
    scores = [{"metric": "m", "prompt": p, "value": v} for p, v in (("a", 2.0), ("b", 5.0), (None, 9.0))]
    write_json(tmp_path / "scores.json", {"scores": scores})
    assert read_objective(tmp_path, "held_out_loss", ["a"]) == 3.0
    assert read_objective(tmp_path, "m", ["a", "b"]) == 3.5
    assert read_objective(tmp_path, "m", ["a", "b", "c"]) is None  # a mean over fewer would not compare
    assert read_objective(tmp_path, "other", ["a"]) is None
    assert read_objective(tmp_path / "nothing", "held_out_loss", ["a"]) is None
    rated = [{"metric": "tag-adherence", "prompt": "a piano", "value": 0.5}]
    write_json(tmp_path / "scores.json", {"scores": rated})
    assert read_objective(tmp_path, "tag-adherence", ["a piano", "a waltz"]) == 0.5  # the waltz names no tag
    assert read_objective(tmp_path, "tag-adherence", ["a piano", "a harp"]) is None
    assert read_objective(tmp_path, "tag-adherence", ["a waltz"]) is None
    write_json(tmp_path / "train.json", {"curve": [LossPoint(0, 2.0, None, 1e-4, 0.5)]})
    assert read_objective(tmp_path, "held_out_loss", ["a"]) is None


def test_a_search_sees_the_scores_of_the_selection_side_and_no_others(tmp_path: Path) -> None:
    sealed = [{"metric": "mfcc20", "prompt": p, "value": 1.0} for p in ("a", "b")]
    seen = [{"metric": "mfcc20", "prompt": p, "value": v} for p, v in (("a", 5.0), ("b", 7.0))]
    write_json(tmp_path / "scores.json", {"scores": sealed, "selection": {"scores": seen}})
    assert read_objective(tmp_path, "mfcc20", ["a", "b"]) == 6.0
    write_json(tmp_path / "scores.json", {"scores": sealed, "selection": {"scores": seen[:1]}})
    assert read_objective(tmp_path, "mfcc20", ["a", "b"]) is None
    texts = [{"metric": "clap_score", "prompt": "a", "value": 0.5}]  # which are compared with no tracks
    write_json(tmp_path / "scores.json", {"scores": texts, "selection": {"scores": []}})
    assert read_objective(tmp_path, "clap_score", ["a"]) == 0.5


def test_a_searched_run_expects_as_many_trials_as_it_will_do() -> None:
    plan = plan_grid(4)
    jobs: Any = [type("Job", (), {"trial": trial}) for trial in plan.trials]
    assert count_expected(jobs, search_of(plan)) == 5
    assert count_expected(jobs, None) == 19
    assert plan.n_to_run == 5


def test_without_optuna_a_search_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = (
        r"search\.optuna: optuna is not installed; run `uv sync --inexact --extra optuna` in the repository"
    )
    with pytest.raises(ResourceError, match=words):
        require_optuna()
    with pytest.raises(ResourceError, match=words):
        run_experiment(plan_grid(4), runs_dir=tmp_path, reports_dir=tmp_path / "r", progress=SilentProgress())
    assert not (tmp_path / "t" / "plan.json").exists()


# ---------------------------------------------------------------- Ray


def run_in_ray(plan: ExperimentPlan, place: Path) -> None:
    """The same through Ray, one trial at a time."""
    run_here(plan, place, executor="ray", resources=ResourcesSpec(cpu=float(os.cpu_count() or 1)))


@pytest.fixture
def fakes_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import the fake trial from here."""
    folders = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folder for folder in folders if folder))


@needs_optuna
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fakes_for_workers")
def test_through_ray_tune_a_search_goes_on_with_the_same_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = search_alone(0, 4)
    run_here(plan_grid(2), tmp_path)
    monkeypatch.setenv(f"DO_{expected[3].replace('-', '_')}", "die")
    run_in_ray(plan_grid(4), tmp_path)
    assert read_order(tmp_path) == [
        *expected,
        expected[3],
        expected[3],
    ]  # a worker that dies is started again
    results = gather_results(tmp_path)
    states = [trial.state for trial in results.trials]
    assert [states.count(word) for word in ("done", "failed", "untried")] == [1 + 3, 1, 14]
    assert results.complete is False


@needs_optuna
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fakes_for_workers")
def test_through_ray_tune_the_choices_are_optunas_beyond_the_random_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_ray(plan_grid(3), tmp_path)
    assert read_order(tmp_path) == search_alone(0, 3)
    expected = search_alone(0, 13)
    monkeypatch.setenv(f"DO_{expected[12].replace('-', '_')}", "die")
    run_in_ray(plan_grid(13), tmp_path)
    assert read_order(tmp_path) == [*expected, expected[12], expected[12]]  # a dead worker is started again
    states = [trial.state for trial in gather_results(tmp_path).trials]
    assert [states.count(word) for word in ("done", "failed", "untried")] == [1 + 12, 1, 5]
