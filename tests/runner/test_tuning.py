"""`tune`: each configuration finds its values on the selection side, then all seeds train with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny_data import make_manifest
from support.tiny_experiment import write_music

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench import api
from lora_bench.artifacts import LossPoint, Manifest, Split
from lora_bench.cli.commands.run import describe_gaps
from lora_bench.cli.commands.validate import describe_plan
from lora_bench.errors import InterruptedRunError, SpecError, TrainingError
from lora_bench.planning.trainings import count_trainings
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import SilentProgress
from lora_bench.results.run_records import TunedConfiguration, TuningAttempt
from lora_bench.runner import experiment
from lora_bench.runner import trial as runner_trial
from lora_bench.runner.tuning import choose, plan_later, plan_step
from lora_bench.store import Store, write_json

SPEC = """
schema: 1
name: tuned
model: {id: model}
dataset: {path: music, captions: {text: "chiptune game loop"}, clip_s: 1, split: {eval_frac: 0.34, seed: 0}}
prompts: ["chiptune game loop"]
generation: {n_clips: 3, clip_s: 1.5}
metrics: [mfcc20]
defaults:
  lora: {targets: self_attention, dropout: 0.0}
  train: {steps: 2, batch_size: 2, eval_every: 2, checkpoint_every: 2, warmup_frac: 0}
trials: {grid: {axes: {lora.rank: [1]}}}
tune: {train.lr: [1.0e-6, 1.0e-2]}
repeats: {train_seeds: [0, 1]}
"""
PLAIN = SPEC.replace("tune: {train.lr: [1.0e-6, 1.0e-2]}\n", "").replace(
    "seed: 0}", "seed: 0, selection_frac: 0.1}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and recordings."""
    folder = tmp_path_factory.mktemp("tuning")
    save_random_musicgen(folder / "model", TINY)
    write_music(folder / "music")
    return folder


def plan(place: Path, text: str = SPEC, *overrides: str) -> ExperimentPlan:
    file = place / "tuned.yaml"
    file.write_text(text, encoding="utf-8")
    return api.plan_experiment(api.load_spec(file, overrides))


def run(place: Path, folder: str, planned: ExperimentPlan) -> dict[str, Any]:
    """Run, and return the results."""
    here = place / folder
    outcome = api.run_experiment(planned, runs_dir=here / "runs", reports_dir=here / "reports")
    return json.loads((outcome.run_folder / "results.json").read_text(encoding="utf-8"))


def lose(rate: float) -> float:
    """An invented held-out loss, lowest at a rate of 1e-2."""
    return 3.0 + abs(math.log10(rate) + 2.0)


class Stub:
    """Takes the place of trials: no training, invented losses and scores.

    Attributes:
        begun: names of the trials that began.
        stop_at: the number of the trial at which the process is stopped.
        failing: a rate whose training diverges.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stop_at: int | None = None
        self.failing: float | None = None

    def __call__(
        self, trial: TrialPlan, folder: Path, store: Store, progress: SilentProgress, workers: object = None
    ) -> dict[str, Any]:
        self.begun.append(trial.name)
        if len(self.begun) == self.stop_at:
            raise KeyboardInterrupt
        if trial.train is not None:
            if trial.train.peak_lr == self.failing:
                raise TrainingError("the loss is NaN; lower train.lr")
            curve = [
                LossPoint(step, None, loss, 1e-4, 0.5)
                for step, loss in ((0, 9.0), (2, lose(trial.train.peak_lr)))
            ]
            write_json(folder / "train.json", {"curve": curve})
        if trial.tuning is not None and trial.tuning.metric is not None:  # the lowest rate has the best clips
            value = None if trial.train is None else 10.0 + trial.train.peak_lr
            cells = [
                {"metric": trial.tuning.metric, "prompt": each, "value": value} for each in trial.prompts
            ]
            side = {"scores": cells, "unscored": []}
            write_json(folder / "scores.json", {"scores": [], "unscored": [], "selection": side})
        if trial.tuning is None:
            cells = [
                {"metric": "mfcc20", "prompt": prompt, "value": 2.0} for prompt in (*trial.prompts, None)
            ]
            write_json(folder / "scores.json", {"scores": cells, "unscored": []})
            write_json(folder / "guards.json", {})
        return {}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(runner_trial, "execute_trial", made)
    monkeypatch.setattr(experiment, "_prepare", lambda *_, **__: None)
    monkeypatch.setattr("lora_bench.comparison.pairs.compare_trials", lambda *_: None)
    return made


def test_the_first_plan_holds_the_attempts_and_says_what_follows(place: Path) -> None:
    found = plan(place, SPEC.replace("[1]", "[1, 2]"))
    assert [trial.name for trial in found.trials] == [
        "tune-r1-lr1e-06", "tune-r1-lr0.01", "tune-r2-lr1e-06", "tune-r2-lr0.01",
    ]  # fmt: skip
    assert {trial.train_seed for trial in found.trials} == {2}  # none that is scored
    assert {trial.dataset.split.selection_frac for trial in found.trials} == {0.1}
    assert (found.n_later, found.n_to_run) == (5, 9)
    assert found.notes[:2] == (
        (
            "step 1 of 2: train.lr of 2 configurations, 2 attempts each with training seed 2, judged by the held-out loss "
            "on the selection tracks"
        ),
        "step 2 of 2: 5 trials with the values that were chosen, 2 training seeds per configuration",
    )


@pytest.mark.slow
def test_the_lowest_loss_is_chosen_and_trained_with_all_seeds(place: Path) -> None:
    finished = run(place, "finished", plan(place))
    assert finished["complete"]
    tuning = finished["tuning"]
    assert tuning["train_seed"] == 2
    runs = place / "finished" / "runs" / "tuned"
    for item in tuning["configurations"]:
        losses = {}
        for attempt in item["attempts"]:
            train = json.loads(
                (runs / "trials" / attempt["trial"] / "train.json").read_text(encoding="utf-8")
            )
            losses[attempt["values"]["train.lr"]] = train["curve"][-1]["eval_loss"]
            assert attempt["loss"] == losses[attempt["values"]["train.lr"]]
        assert item["chosen"] == {"train.lr": min(losses, key=lambda lr: losses[lr])}
        rates = {t["train"]["lr"] for t in finished["trials"] if t["configuration"] == item["configuration"]}
        assert rates == {item["chosen"]["train.lr"]}
    assert [t["name"] for t in finished["trials"]] == ["zero-shot", "r1-s0", "r1-s1"]


def test_the_trials_are_those_of_a_spec_with_the_chosen_number(
    place: Path, tmp_path: Path, stub: Stub
) -> None:
    found = run(tmp_path, "", plan(place))
    assert stub.begun == ["tune-r1-lr1e-06", "tune-r1-lr0.01", "zero-shot", "r1-s0", "r1-s1"]
    assert found["complete"]
    assert found["tuning"]["configurations"][0]["chosen"] == {"train.lr": 0.01}
    later = plan(place, PLAIN, "train.lr=0.01")
    assert [trial.id for trial in later.trials] == [trial["id"] for trial in found["trials"]]


def test_the_report_shows_both_steps(place: Path, tmp_path: Path, stub: Stub) -> None:
    run(tmp_path, "", plan(place))
    text = read_report(tmp_path)
    assert (
        "Step 1: train.lr of each configuration chosen from 2 by the held-out loss on the selection tracks, one training "
        "each (seed 2). Step 2: trained again with 2 seeds and scored on tracks that step 1 did not see."
    ) in text
    rows = [
        line for line in text.splitlines() if line.startswith("|") and "train.lr" in line and "0000" in line
    ]
    assert [("chosen" in row, "3.0000" in row, "7.0000" in row) for row in rows] == [
        (False, False, True), (True, True, False),
    ]  # fmt: skip
    assert "Chosen at the end of the values that were tried: r1" in text


BY_METRIC = SPEC.replace("1.0e-2]}", "1.0e-2], by: metric}").replace(
    "generation:", 'prompt_sets: {off_genre: ["an orchestra"]}\ngeneration:'
)


def test_clips_can_judge_instead_of_the_loss(place: Path, tmp_path: Path, stub: Stub) -> None:
    planned = plan(place, BY_METRIC)
    assert [trial.tuning and trial.tuning.metric for trial in planned.trials] == ["mfcc20", "mfcc20"]
    assert {trial.prompts for trial in planned.trials} == {("chiptune game loop",)}  # not the off-genre one
    assert "judged by mfcc20 of clips against the selection tracks" in planned.notes[0]
    found = run(tmp_path, "", planned)
    (item,) = found["tuning"]["configurations"]
    assert item["chosen"] == {"train.lr": 1e-6}  # by its loss, it would be the other one
    assert [attempt["score"] for attempt in item["attempts"]] == [10.000001, 10.01]
    assert found["tuning"]["metric"] == "mfcc20"
    text = read_report(tmp_path)
    assert "chosen from 2 by mfcc20 of clips against the selection tracks, one training each" in text
    assert "Attempts of step 1; scores of clips against the selection tracks" in text
    n_begun = len(stub.begun)
    run(tmp_path, "", planned)
    assert len(stub.begun) == n_begun


def test_a_higher_score_is_better_where_the_metric_says_so() -> None:
    attempts = tuple(
        TuningAttempt(trial=str(n), values={"train.lr": n}, state="done", score=float(n)) for n in (1, 3, 2)
    )
    item = TunedConfiguration(configuration="a", attempts=attempts)
    assert choose(item, "mfcc20").chosen == {"train.lr": 1}
    assert choose(item, "clap_score").chosen == {"train.lr": 3}


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("clap_score", r"`clap_score` compares clips with texts"),
        ("mean/audiobox-pq", r"`mean/audiobox-pq` rates single clips"),
        ("melody-agreement", r"`melody-agreement` compares clips with melodies"),
        ("tag-adherence", r"`tag-adherence` compares clips with the tags of their prompts"),
    ],
)
def test_a_metric_without_recordings_cannot_judge(place: Path, metric: str, said: str) -> None:
    text = BY_METRIC.replace("metrics: [mfcc20]", f"metrics: [{metric}, mfcc20]")
    with pytest.raises(SpecError, match=rf"tune\.by is metric, but {said} and does not compare them with"):
        plan(place, text)


def read_report(place: Path) -> str:
    report = place / "reports" / "tuned"
    return "\n".join((report / name).read_text(encoding="utf-8") for name in ("report.md", "details.md"))


@pytest.mark.parametrize("judged_by", ["loss", "metric"])
def test_the_first_step_never_reads_the_tracks_that_score(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged_by: str
) -> None:
    """The audio of the test side is deleted before the attempt; without the seal, it would be missed."""
    tracks: tuple[tuple[Split, float], ...] = (
        ("train", 2.0),
        ("selection", 1.5),
        ("eval", 1.5),
        ("eval", 1.5),
    )
    manifest = make_manifest(tmp_path / "audio", tracks=tracks)
    for track in manifest.of_split("eval"):
        track.audio.unlink()
    monkeypatch.setattr("lora_bench.stages.dataset.prepare_dataset", lambda *_: manifest)
    attempt = plan(place, SPEC if judged_by == "loss" else BY_METRIC).trials[0]
    folder = tmp_path / "run" / "trials" / attempt.id
    figures = runner_trial.execute_trial(attempt, folder, Store(tmp_path / "store"), SilentProgress())
    assert "wall_s" in figures
    made = {path.name for path in (tmp_path / "run").rglob("*")}
    assert "train.json" in made
    assert not {"embeddings", "reference_embeddings", "guards.json"} & made
    if judged_by == "metric":
        (score,) = (each for each in read_scores(folder) if each["prompt"] == "chiptune game loop")
        assert score["provenance"]["side"] == "selection"
        assert score["value"] > 0.0
    else:
        assert not {"clips", "scores.json"} & made
    monkeypatch.setattr(Manifest, "seal", lambda self: replace(self, key="not sealed"))
    with pytest.raises(FileNotFoundError):
        runner_trial.execute_trial(attempt, folder, Store(tmp_path / "store"), SilentProgress())


def read_scores(folder: Path) -> list[dict[str, Any]]:
    found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert found["scores"] == found["unscored"] == []
    return found["selection"]["scores"]


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_run_that_is_stopped_in_either_step_resumes_where_it_was(
    place: Path, tmp_path: Path, stub: Stub, stop_at: int
) -> None:
    planned = plan(place)
    stub.stop_at = stop_at
    with pytest.raises(InterruptedRunError):
        run(tmp_path, "", planned)
    runs = tmp_path / "runs" / "tuned"
    assert plan_step(planned, runs).is_tuning == (stop_at == 2)
    stopped, stub.stop_at = stub.begun[:], None
    found = run(tmp_path, "", planned)
    assert found["complete"]
    whole = ["tune-r1-lr1e-06", "tune-r1-lr0.01", "zero-shot", "r1-s0", "r1-s1"]
    assert [*stopped[:-1], *stub.begun[stop_at:]] == whole
    run(tmp_path, "", planned)
    assert len(stub.begun) == len(whole) + 1  # a finished run does nothing


def test_an_attempt_that_fails_is_named_and_the_choice_stands(
    place: Path, tmp_path: Path, stub: Stub
) -> None:
    planned = plan(place)
    stub.failing = 1e-2
    found = run(tmp_path, "", planned)
    (item,) = found["tuning"]["configurations"]
    assert item["chosen"] == {"train.lr": 1e-6}
    failed = item["attempts"][1]
    assert (failed["state"], "loss" in failed) == ("failed", False)
    assert found["complete"]  # what failed is not compared
    assert any(
        "0.01" in line and "the loss is NaN; lower train.lr" in line
        for line in read_report(tmp_path).splitlines()
    )
    stub.failing, n_begun = None, len(stub.begun)
    assert run(tmp_path, "", planned)["tuning"] == found["tuning"]
    assert len(stub.begun) == n_begun
    (tmp_path / "runs" / "tuned" / "tuning.json").unlink()
    (again,) = run(tmp_path, "", planned)["tuning"]["configurations"]
    assert again["chosen"] == {"train.lr": 1e-2}


def test_a_configuration_without_a_finished_attempt_is_not_compared(
    place: Path, tmp_path: Path, stub: Stub
) -> None:
    two = SPEC.replace("axes: {lora.rank: [1]}", "axes: {lora.kind: [lora, vera]}").replace(
        "[1.0e-6, 1.0e-2]", "[{lora: 1.0e-6, vera: 5}, {lora: 1.0e-2, vera: 5.0}]"
    )
    stub.failing = 5.0
    found = run(tmp_path, "", plan(place, two))
    assert not found["complete"]
    assert [item.get("chosen") for item in found["tuning"]["configurations"]] == [
        {"train.lr": 1e-2}, None,
    ]  # fmt: skip
    assert [trial["name"] for trial in found["trials"]] == ["zero-shot", "lora-s0", "lora-s1"]
    (line,) = describe_gaps(tmp_path / "runs" / "tuned")
    assert line == "incomplete: vera is not compared, because every attempt of `tune` failed"


def test_if_everything_fails_nothing_is_scored(place: Path, tmp_path: Path, stub: Stub) -> None:
    stub.failing = 1e-4
    text = SPEC.replace("tune: {train.lr: [1.0e-6, 1.0e-2]}", "tune: {lora.alpha: [1, 2]}")
    with pytest.raises(
        TrainingError, match="every attempt failed, so nothing is compared; r1: nothing was chosen"
    ):
        run(tmp_path, "", plan(place, text.replace("train: {steps", "train: {lr: 1e-4, steps")))
    assert stub.begun == ["tune-r1-a1", "tune-r1-a2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("repeats:", "search: {optuna: {n_trials: 1}}\n#"), "tune and search both decide"),
        (("eval_every: 2,", "eval_every: 1, keep: [1, 2],"), "train.keep makes `r1@1` a step of a training"),
        (("trials: {grid: {axes: {lora.rank: [1]}}}", "trials: {zero_shot_only: true}"), "but `tune` would need one"),
        (("seed: 0}", "seed: 0, selection_frac: 0}"), "tune chooses by the selection tracks, but"),
        (("lora.rank: [1]", "train.lr: [1e-3, 1e-4]"), "`train.lr` of `lr0.001` is stated here, and `tune` looks for it"),
        (("tune: {train.lr:", "tune: {generation.guidance:"), "`generation.guidance` cannot be tuned"),
        (("tune: {train.lr:", "tune: {train.rate:"), "`train.rate` is not a field of a trial"),
        (("[1.0e-6, 1.0e-2]", "[1.0e-6, fast]"), "`train.lr` is the text 'fast'"),
        (("[1.0e-6, 1.0e-2]", "[1.0e-6]"), "1 combinations; expected 2 to 64"),
        (("[1.0e-6, 1.0e-2]", "[1.0e-6, 1.0e-6]"), "`train.lr` repeats a value"),
    ],
)  # fmt: skip
def test_wrong_tuning_is_refused(place: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(place, SPEC.replace(*change))
    assert said in str(caught.value)


def test_only_what_is_trained_is_tuned(place: Path) -> None:
    others = "{name: mine, lora.path: ./mine}, {name: other, external: {clips: ./other}}"
    text = SPEC.replace("grid: {axes: {lora.rank: [1]}}", f"variants: [{{name: r1, lora.rank: 1}}, {others}]")
    found = plan(place, text)
    assert [trial.configuration for trial in found.trials] == ["tune-r1-lr1e-06", "tune-r1-lr0.01"]
    later = plan_later(found)
    assert [trial.name for trial in later.trials] == ["zero-shot", "r1-s0", "r1-s1", "mine", "other"]
    assert found.n_later == len(later.trials)
    with pytest.raises(SpecError, match="tune has nothing to tune, because nothing is trained"):
        plan(place, text.replace("{name: r1, lora.rank: 1}, ", ""))


def test_attempts_that_train_alike_train_once(place: Path) -> None:
    grid = (
        "grid: {axes: {lora.rank: [1], lora.targets: [self_attention], generation.adapter_scale: [0.5, 1]}}"
    )
    found = plan(place, SPEC.replace("grid: {axes: {lora.rank: [1]}}", grid))
    leaders = [trial.training for trial in found.trials]
    assert len(leaders) == 4
    assert leaders[:2] == leaders[2:] == [trial.id for trial in found.trials[:2]]
    assert count_trainings(leaders) == 2
    kinds = "variants: [{name: low, lora.kind: lora}, {name: block, lora.kind: oft}]"
    text = SPEC.replace("grid: {axes: {lora.rank: [1]}}", kinds).replace(
        "train.lr: [1.0e-6, 1.0e-2]", "lora.rank: [1, 2]"
    )
    names = [trial.name for trial in plan(place, text).trials]
    assert names == ["tune-low-r1", "tune-low-r2", "tune-block-r1"]  # which has no rank


def test_a_seed_that_is_scored_takes_up_the_training_of_its_attempt(place: Path) -> None:
    found = plan(place, SPEC.replace("1.0e-2]}", "1.0e-2], seed: 1}"))
    later = plan(place, PLAIN, "train.lr=1e-2")
    assert {trial.id for trial in found.trials} & {trial.id for trial in later.trials} == {
        trial.id for trial in later.trials if trial.train_seed == 1
    }


@pytest.mark.parametrize(
    ("tune", "trainings"),
    [
        (
            "tune: {train.lr: [1.0e-6, 1.0e-2]}",
            "2 attempts of tune (2 trainings), then 3 trials (2 trainings)",
        ),
        (
            "tune: {train.lr: [1.0e-6, 1.0e-2], seed: 0}",
            "2 attempts of tune (2 trainings), then 3 trials (1 training)",
        ),
    ],
)
def test_plan_counts_the_trainings_of_both_steps(place: Path, tune: str, trainings: str) -> None:
    planned = plan(place, SPEC.replace("tune: {train.lr: [1.0e-6, 1.0e-2]}", tune))
    assert describe_plan(planned) == f"{trainings}, 1 prompt, 3 clips each, 1 metric"


def test_trainings_that_attempts_share_are_counted_once(place: Path) -> None:
    axes = SPEC.replace("{lora.rank: [1]}", "{generation.guidance: [1.0, 3.0]}")
    # two base models, and two configurations with two seeds, which share their trainings
    assert describe_plan(plan(place, axes)).startswith(
        "4 attempts of tune (2 trainings), then 6 trials (2 trainings), "
    )


def test_a_spec_without_it_is_written_as_before(place: Path) -> None:
    written = plan(place, PLAIN).model_dump_json()
    assert not [word for word in ("tune", "tuning", "n_later", "budget") if f'"{word}"' in written]


def test_other_recordings_are_tuned_for_again(place: Path, tmp_path: Path, stub: Stub) -> None:
    write_music(tmp_path / "music")
    planned = plan(place, SPEC.replace("path: music", f"path: {tmp_path / 'music'}"))
    run(tmp_path, "", planned)
    assert not plan_step(planned, tmp_path / "runs" / "tuned").is_tuning
    (tmp_path / "music" / "tune5.wav").unlink()
    assert plan_step(planned, tmp_path / "runs" / "tuned").is_tuning
    n_begun = len(stub.begun)
    run(tmp_path, "", planned)
    assert stub.begun[n_begun : n_begun + 2] == ["tune-r1-lr1e-06", "tune-r1-lr0.01"]
