"""Verdicts that are looked at before all clips are there: when a configuration stops, and what stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.looks import (
    is_decided,
    left_looks,
    list_looks,
    plan_look,
    plan_rest,
    read_decisions,
)
from lora_bench.comparison.pairs import compare_trials
from lora_bench.metrics.verdicts import ALPHA
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.results.reading import read_record
from lora_bench.results.records import Contrast
from lora_bench.results.run_files import ContrastsFile
from lora_bench.runner.freshness import inputs_key
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.embed import save_embeddings
from lora_bench.store import write_json

N, DIM, WINDOWS = 24, 3, 2
ABOUT = {"encoder": "mfcc20", "weights": "none", "window_samples": 2048, "resampler": "soxr-hq 1"}


def make_plan(looks: list[int], **changes: object) -> ExperimentPlan:
    spec = {
        "schema": 1, "name": "study", "model": {"id": "pocket"}, "dataset": {"builtin": "chiptune"},
        "prompts": ["a"], "generation": {"n_clips": N}, "metrics": ["mfcc20"],
        "trials": {"variants": [{"name": "far", "lora": {"rank": 4}}, {"name": "near", "lora": {"rank": 2}}]},
        "verdict": {"looks": looks, "margin": 0.05},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(spec | changes))


def write_clips(run: Path, plan: ExperimentPlan, shifts: dict[str, float]) -> None:
    """Write what trials leave: as many clips as the plan wants now, the first ones always the same."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(N, WINDOWS, DIM))
    save_embeddings(_wrap(rng.normal(size=(20, WINDOWS, DIM))), run / "reference_embeddings" / "r.npz")
    write_json(run / "plan.json", plan)
    for place_in_plan, trial in enumerate(plan.trials):
        own = np.random.default_rng(place_in_plan).normal(size=noise.shape)
        values = noise + 3.0 - shifts.get(trial.configuration, 0.0) + 0.3 * own
        place = run / "trials" / trial.id
        for slug in prompt_slugs(trial.prompts).values():
            save_embeddings(
                _wrap(values[: trial.sampling.n_clips]), place / "embeddings" / "mfcc20" / f"{slug}.npz"
            )
        write_json(place / "embeddings" / "mfcc20" / "reference.json", {"file": "r.npz"})
        write_json(
            place / "scores.json", {"scores": [{"metric": "mfcc20", "value": float(trial.sampling.n_clips)}]}
        )
        write_json(place / "guards.json", {"guards": []})
        write_json(place / "state.json", {"state": "done"})


def _wrap(values: np.ndarray) -> Embeddings:
    names = tuple(f"{clip:03d}" for clip in range(len(values)))
    flat = values.reshape(-1, DIM)
    return Embeddings(flat, np.repeat(np.arange(len(values)), WINDOWS), names, names, ABOUT)


def run_looks(run: Path, plan: ExperimentPlan, shifts: dict[str, float]) -> list[dict[str, int]]:
    """Go through the looks as a run does; return the clips of every configuration at each."""
    made: list[dict[str, int]] = []
    for look in left_looks(plan, run):
        current = plan_look(plan, look, run)
        write_clips(run, current, shifts)
        compare_trials(current, run, SilentProgress(), look)
        made.append({trial.configuration: trial.sampling.n_clips for trial in current.trials})
        if is_decided(plan, run):
            break
    return made


def read_contrasts(run: Path) -> dict[str, Contrast]:
    file = read_record(run / "contrasts.json", ContrastsFile)
    return {item.configuration: item for item in file.contrasts}


def test_a_configuration_with_a_verdict_makes_no_more_clips(tmp_path: Path) -> None:
    made = run_looks(tmp_path, make_plan([8, 16]), {"far": 2.5})
    assert made == [
        {"zero-shot": 8, "far": 8, "near": 8},
        {"zero-shot": 16, "far": 8, "near": 16},
        {"zero-shot": N, "far": 8, "near": N},
    ]
    found = read_contrasts(tmp_path)
    assert found["far"].verdict == "better"
    assert found["far"].n_pairs == 8
    assert found["near"].verdict == "inconclusive"
    assert found["near"].n_pairs == N


def test_the_contrast_that_decided_stays_as_it_was(tmp_path: Path) -> None:
    plan = make_plan([8, 16])
    first = left_looks(plan, tmp_path)[0]
    write_clips(tmp_path, plan_look(plan, first, tmp_path), {"far": 2.5})
    compare_trials(plan_look(plan, first, tmp_path), tmp_path, SilentProgress(), first)
    decided = read_contrasts(tmp_path)["far"]
    run_looks(tmp_path, plan, {"far": 2.5})
    assert read_contrasts(tmp_path)["far"] == decided


def test_a_run_ends_when_all_are_decided(tmp_path: Path) -> None:
    plan = make_plan([8, 16])
    assert len(run_looks(tmp_path, plan, {"far": 2.5, "near": 2.0})) == 1
    assert {trial.sampling.n_clips for trial in plan_rest(plan, tmp_path).trials} == {8}


def test_a_finished_run_is_not_compared_again(tmp_path: Path) -> None:
    plan = make_plan([8, 16])
    run_looks(tmp_path, plan, {"far": 2.5})
    before = (tmp_path / "contrasts.json").stat().st_mtime_ns
    assert [look.n_clips for look in left_looks(plan, tmp_path)] == [N]
    run_looks(tmp_path, plan, {"far": 2.5})
    assert (tmp_path / "contrasts.json").stat().st_mtime_ns == before


def test_another_question_is_decided_from_the_start(tmp_path: Path) -> None:
    run_looks(tmp_path, make_plan([8, 16]), {"far": 2.5})
    other = make_plan([8, 16], verdict={"looks": [8, 16], "margin": 0.1})
    assert read_decisions(other, tmp_path).configurations == {}
    assert [look.n_clips for look in left_looks(other, tmp_path)] == [8, 16, N]


def test_a_spec_without_looks_has_one_look_at_the_level_of_old_runs(tmp_path: Path) -> None:
    plan = make_plan([])
    [look] = list_looks(plan.spec)
    assert look.alpha == ALPHA
    assert plan_look(plan, look, tmp_path) is plan
    last = list_looks(make_plan([8]).spec)[-1]
    assert inputs_key(plan.trials[0]) == inputs_key(plan_look(make_plan([8]), last, tmp_path).trials[0])


def test_looks_spend_five_percent_in_all() -> None:
    looks = list_looks(make_plan([6, 12]).spec)
    assert sum(look.alpha for look in looks) == pytest.approx(ALPHA)
    assert [look.alpha for look in looks] == pytest.approx([0.05 / 16, 0.05 / 4 - 0.05 / 16, 0.05 * 3 / 4])


def test_intervals_of_a_look_are_wider_and_agree_with_its_p_values(tmp_path: Path) -> None:
    plan = make_plan([8, 16])
    looks = left_looks(plan, tmp_path)
    widths: list[float] = []
    for alpha_of in (looks[0], list_looks(make_plan([]).spec)[0]):
        for n, shift in enumerate(np.linspace(0.0, 0.5, 9)):
            run = tmp_path / f"{alpha_of.n_clips}-{n}"
            current = plan_look(plan, looks[0], run)
            write_clips(run, current, {"far": float(shift)})
            compare_trials(current, run, SilentProgress(), alpha_of)
            item = read_contrasts(run)["far"]
            assert item.ci_low is not None
            assert item.ci_high is not None
            assert item.p_value is not None
            assert (item.p_value < ALPHA) == (item.ci_low > 0.0 or item.ci_high < 0.0)
            widths.append(item.ci_high - item.ci_low)
    assert all(early > usual for early, usual in zip(widths[:9], widths[9:], strict=True))


def test_repeated_looks_at_no_effect_rarely_give_a_verdict(tmp_path: Path) -> None:
    """Means of normal values looked at with 6, 12, 18 and 24 of them: at 5 % each look, 12 % would be wrong."""
    from scipy import stats

    looks = list_looks(make_plan([6, 12, 18]).spec)
    values = np.random.default_rng(0).normal(size=(20_000, N))
    wrong, naive = (np.zeros(len(values), bool) for _ in range(2))
    for look in looks:
        p_values = stats.ttest_1samp(values[:, : look.n_clips], 0.0, axis=1).pvalue
        wrong |= p_values < look.alpha
        naive |= p_values < ALPHA
    assert wrong.mean() < ALPHA
    assert naive.mean() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"verdict": {"looks": [16, 8]}},
            "looks are [16, 8]; expected ascending numbers of clips, each once",
        ),
        ({"verdict": {"looks": [8, N]}}, "verdict.looks ends at 24 clips, but generation.n_clips is 24"),
        (
            {"verdict": {"looks": [8]}, "search": {"early_stopping": {}}},
            "verdict.looks and search both decide what is left out",
        ),
    ],
)
def test_looks_that_make_no_sense_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match="looks") as error:
        make_plan([8], **changes)
    assert words in str(error.value)
