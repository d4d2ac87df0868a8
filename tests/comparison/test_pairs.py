"""Which trials are compared with which, and that zero-shot and baseline are never mixed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.provenance_gaps import find_gaps

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.pairs import compare_trials, find_pairs
from lora_bench.comparison.run_contrasts import join_guards
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import SilentProgress
from lora_bench.results.csv_table import render_csv
from lora_bench.results.gather import gather_results
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.embed import save_embeddings
from lora_bench.store import read_json, write_json

PROMPTS = ["chiptune a", "orchestral b"]
ABOUT = {
    "encoder": "mfcc20", "weights": "none", "window_samples": 2048, "resampler": "soxr-hq 1",
}  # fmt: skip
N, DIM, WINDOWS = 12, 3, 2


def make_plan(**changes) -> ExperimentPlan:
    spec = {
        "schema": 1, "name": "study", "model": {"id": "pocket"}, "dataset": {"builtin": "chiptune"},
        "prompts": PROMPTS, "generation": {"n_clips": N}, "metrics": ["mfcc20"],
        "trials": {"variants": [{"name": "main", "lora": {"rank": 4}}]},
        "baseline": "main",
        "ablations": {"small": {"lora.rank": 2}},
        "repeats": {"train_seeds": [0, 1]},
    }  # fmt: skip
    return plan_experiment(ExperimentSpec.model_validate(spec | changes))


def wrap(values):
    n_clips = len(values) // WINDOWS
    names = tuple(f"{clip:03d}" for clip in range(n_clips))
    return Embeddings(np.asarray(values), np.repeat(np.arange(n_clips), WINDOWS), names, names, ABOUT)


def write_run(folder: Path, plan: ExperimentPlan, *, shifts: dict[str, float]) -> Path:
    """What trials leave: base clips off the reference by 2, others less so by their shift."""
    rng = np.random.default_rng(0)
    base = {prompt: rng.normal(size=(N * WINDOWS, DIM)) + 2.0 for prompt in PROMPTS}
    save_embeddings(wrap(rng.normal(size=(20 * WINDOWS, DIM))), folder / "reference_embeddings" / "r.npz")
    write_json(folder / "plan.json", plan)
    for trial in plan.trials:
        place = folder / "trials" / trial.id
        for prompt, slug in prompt_slugs(trial.prompts).items():
            noise = 0.0 if trial.kind == "zero-shot" else 0.1
            values = (
                base[prompt]
                - shifts.get(trial.configuration, 0.0)
                + noise * rng.normal(size=base[prompt].shape)
            )
            save_embeddings(wrap(values), place / "embeddings" / "mfcc20" / f"{slug}.npz")
        write_json(place / "embeddings" / "mfcc20" / "reference.json", {"file": "r.npz"})
        cells = [
            {
                "metric": "mfcc20",
                "prompt": prompt,
                "value": 1.0,
                "n_generated": N,
                "n_reference": 20,
                "dim": DIM,
            }
            for prompt in (*PROMPTS, None)
        ]
        write_json(place / "scores.json", {"scores": cells, "unscored": []})
        guards = [{"trial": None, "n_clips": 4}, {"trial": trial.id, "prompt": None, "n_clips": N}]
        write_json(place / "guards.json", {"key": "k", "guards": guards})
        write_json(place / "state.json", {"state": "done"})
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentPlan, Path]:
    plan = make_plan()
    run = write_run(tmp_path_factory.mktemp("run"), plan, shifts={"main": 1.5, "small": 0.5})
    compare_trials(plan, run, SilentProgress())
    return plan, run


def test_partners_are_the_zero_shot_model_and_the_baseline_of_the_same_seed() -> None:
    plan = make_plan()
    names = {trial.id: trial.name for trial in plan.trials}
    found = {
        trial.name: (trial.zero_shot, trial.baseline_trial)
        for trial in plan.trials
        if trial.kind == "fine-tuned"
    }
    assert {name: [one and names[one] for one in pair] for name, pair in found.items()} == {
        "main-s0": ["zero-shot", None],
        "main-s1": ["zero-shot", None],
        "small-s0": ["zero-shot", "main-s0"],
        "small-s1": ["zero-shot", "main-s1"],
    }


GENERATION = {
    "more clips": {"generation.n_clips": 2 * N},
    "fewer clips": {"generation.n_clips": 3},
    "smaller batches": {"generation.batch_size": 2},
    "both": {"generation": {"batch_size": 3, "n_clips": 5}},
}


@pytest.mark.parametrize("changes", GENERATION.values(), ids=GENERATION)
def test_a_variant_with_other_numbers_of_clips_is_compared_with_the_zero_shot_model(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    variants = [{"name": "main", "lora": {"rank": 4}}, {"name": "other", "lora.rank": 8, **changes}]
    plan = make_plan(trials={"variants": variants}, ablations={}, repeats={"train_seeds": [0]})
    zero_shot, main, other = plan.trials
    assert (zero_shot.zero_shot, main.zero_shot, other.zero_shot) == (None, zero_shot.id, zero_shot.id)
    assert zero_shot.generation.n_clips == max(main.generation.n_clips, other.generation.n_clips)
    assert other.baseline_trial == main.id
    assert find_pairs(plan) == ([(main, zero_shot), (other, zero_shot)], [(other, main)])
    run = write_run(tmp_path, plan, shifts={"other": 1.5})
    compare_trials(plan, run, SilentProgress())
    results = gather_results(run)
    assert [trial.zero_shot for trial in results.trials] == [None, zero_shot.id, zero_shot.id]
    verdicts = {item.verdict for item in results.contrasts if item.configuration == "other" and item.primary}
    assert verdicts == {"better"}


def test_plans_of_earlier_versions_have_their_zero_shot_found(tmp_path: Path) -> None:
    plan = make_plan(repeats={"train_seeds": [0]})
    run = write_run(tmp_path, plan, shifts={})
    before = read_json(run / "plan.json")
    for trial in before["trials"]:
        del trial["zero_shot"], trial["baseline_trial"]
    write_json(run / "plan.json", before)
    base, *tuned = gather_results(run).trials
    assert {trial.zero_shot for trial in tuned} == {base.id}


def read_contrasts(run: Path) -> list[dict[str, Any]]:
    return read_json(run / "contrasts.json")["contrasts"]


def test_contrasts_with_zero_shot_and_with_the_baseline_stay_apart(compared) -> None:
    _, run = compared
    found = read_contrasts(run)
    assert {(item["configuration"], item["against"], item["kind"], item["prompt"]) for item in found} == {
        (*names, prompt)
        for names in (
            ("main", "zero-shot", "zero-shot"), ("small", "zero-shot", "zero-shot"), ("small", "main", "baseline"),
        )
        for prompt in (*PROMPTS, None)
    }  # fmt: skip
    assert {item["verdict"] for item in found if item["kind"] == "zero-shot"} == {"better"}
    assert {item["verdict"] for item in found if item["kind"] == "baseline"} == {"worse"}


def test_a_configuration_has_one_contrast_over_its_training_seeds(compared) -> None:
    plan, run = compared
    ids = {trial.id for trial in plan.trials}
    for item in read_contrasts(run):
        deltas = [seed["delta"] for seed in item["seeds"]]
        assert [seed["train_seed"] for seed in item["seeds"]] == [0, 1]
        assert {seed["trial"] for seed in item["seeds"]} <= ids
        assert item["delta"] == pytest.approx(np.mean(deltas))
        assert item["se"] ** 2 == pytest.approx(sum(item["variance"].values()))
        assert item["ci_low"] < item["delta"] < item["ci_high"]


def test_one_seed_has_no_variance_between_trainings(tmp_path: Path) -> None:
    plan = make_plan(repeats={"train_seeds": [0]})
    run = write_run(tmp_path, plan, shifts={})
    compare_trials(plan, run, SilentProgress())
    assert all(set(item["variance"]) == {"clips", "tracks"} for item in read_contrasts(run))


def test_off_genre_prompts_are_descriptive_and_outside_the_pooled_row(tmp_path: Path) -> None:
    plan = make_plan(prompt_sets={"off_genre": [PROMPTS[1]]}, ablations={}, baseline=None)
    run = write_run(tmp_path, plan, shifts={"main": 1.5})
    compare_trials(plan, run, SilentProgress())
    found = {item["prompt"]: item for item in read_contrasts(run)}
    assert found[None]["delta"] == found[PROMPTS[0]]["delta"]
    assert {prompt: item["primary"] for prompt, item in found.items()} == {
        PROMPTS[0]: False, PROMPTS[1]: False, None: True,
    }  # fmt: skip


def test_the_margin_is_half_the_real_level_unless_the_spec_states_one(tmp_path: Path) -> None:
    floor = {"floor": "real-vs-real", "score": {"metric": "mfcc20", "value": 3.0, "corrected": 2.0}}
    margins = []
    for number, verdict in enumerate(({}, {"margin": 0.25})):
        plan = make_plan(ablations={}, baseline=None, verdict=verdict)
        run = write_run(tmp_path / str(number), plan, shifts={})
        write_json(run / "floors.json", {"floors": [floor]})
        compare_trials(plan, run, SilentProgress())
        margins.append({item["margin"] for item in read_contrasts(run)})
    assert margins == [{1.0}, {0.25}]


def test_comparing_again_does_nothing(compared) -> None:
    plan, run = compared
    stamps = [(run / name).stat().st_mtime_ns for name in ("contrasts.json", "guards.json")]
    compare_trials(plan, run, SilentProgress())
    assert [(run / name).stat().st_mtime_ns for name in ("contrasts.json", "guards.json")] == stamps


def test_every_contrast_and_control_record_says_what_it_is(compared) -> None:
    _, run = compared
    for item in read_contrasts(run):
        assert find_gaps(item, ("n_pairs", "n_tracks", "dim")) == []
        assert item["provenance"]["confidence"].startswith("95 %, simultaneous")
    control = read_json(run / "guards.json")["control"]
    assert len(control) == 4 * 3
    for item in control:
        gaps = find_gaps(
            item | {"provenance": {**item["provenance"], "estimator": "separation and pull"}},
            ("n_pairs", "n_reference", "dim"),
        )
        assert gaps == []


def test_control_measures_every_prompt_and_equal_controls_stand_once(compared) -> None:
    plan, run = compared
    found = read_json(run / "guards.json")
    assert {item["prompt"]: item["off_genre"] for item in found["control"]} == {
        PROMPTS[0]: False, PROMPTS[1]: False, None: None,
    }  # fmt: skip
    pulled = [item for item in found["control"] if item["trial"].startswith("main")]
    # 1.5 of the way of 2 to the recordings' mean
    assert all(item["pull"] == pytest.approx(0.75, abs=0.1) for item in pulled)
    assert all(item["retention"] == pytest.approx(0.25, abs=0.1) for item in pulled if item["prompt"])
    assert [item["trial"] for item in found["guards"]] == [None, *(trial.id for trial in plan.trials)]


def test_controls_that_differ_only_in_recall_and_coverage_stand_once(tmp_path: Path) -> None:
    plan = make_plan(repeats={"train_seeds": [0]})
    run = write_run(tmp_path, plan, shifts={})
    control = {"trial": None, "n_clips": 4, "unscored": {"codes": "none"}}
    added = {
        0: {},
        1: {"recall": {"mfcc20": 0.5}, "coverage": {"mfcc20": 0.25}},
        2: {"unscored": {"codes": "none", "recall and coverage (mfcc20)": "few"}},
    }
    for place, trial in enumerate(plan.trials):
        guards = [control | added[place], {"trial": trial.id, "n_clips": N}]
        write_json(run / "trials" / trial.id / "guards.json", {"guards": guards})
    done = {trial.id: trial for trial in plan.trials}
    held_out = [record for record in join_guards(done, run) if record.trial is None]
    assert [record.coverage for record in held_out] == [{"mfcc20": 0.25}]
    write_json(run / "trials" / plan.trials[0].id / "guards.json", {"guards": [control | {"n_clips": 5}]})
    assert [record.n_clips for record in join_guards(done, run) if record.trial is None] == [5, 4]


def test_the_spec_can_name_its_off_genre_prompts(tmp_path: Path) -> None:
    plan = make_plan(prompt_sets={"off_genre": [PROMPTS[0]]}, repeats={"train_seeds": [0]})
    run = write_run(tmp_path, plan, shifts={})
    compare_trials(plan, run, SilentProgress())
    control = read_json(run / "guards.json")["control"]
    assert {item["prompt"]: item["off_genre"] for item in control} == {
        PROMPTS[0]: True, PROMPTS[1]: False, None: None,
    }  # fmt: skip
    pooled = [item for item in control if item["prompt"] is None]
    assert all({"retention", "off_genre_less_in_genre_pull"} <= set(item) for item in pooled)


def test_results_and_csv_keep_zero_shot_and_baseline_in_columns_of_their_own(compared) -> None:
    _, run = compared
    results = gather_results(run)
    assert len(results.contrasts) == 9
    for cell in csv.DictReader(io.StringIO(render_csv(results))):
        is_ablation = cell["trial"].startswith("small")
        assert bool(cell["baseline_delta"]) == is_ablation
        assert bool(cell["delta"]) == (cell["kind"] == "fine-tuned")
        if is_ablation:
            assert float(cell["delta"]) < 0.0 < float(cell["baseline_delta"])
            assert (cell["verdict"], cell["baseline_verdict"]) == ("better", "worse")


def test_why_a_configuration_cannot_be_compared_is_kept(tmp_path: Path) -> None:
    plan = make_plan()
    run = write_run(tmp_path, plan, shifts={"main": 1.5})
    [small] = [trial for trial in plan.trials if trial.name == "small-s0"]
    folder = run / "trials" / small.id / "embeddings" / "mfcc20"
    (folder / f"{prompt_slugs(PROMPTS)[PROMPTS[0]]}.npz").unlink()
    compare_trials(plan, run, SilentProgress())
    found = gather_results(run)
    assert {item.configuration for item in found.contrasts if item.prompt is None} == {"main"}
    missing = [item for item in found.missing_contrasts if item.prompt is None]
    assert {(item.configuration, item.against) for item in missing} == {
        ("small", "zero-shot"),
        ("small", "main"),
    }
    assert all("clips" in item.reason or "embeddings" in item.reason for item in missing), missing
