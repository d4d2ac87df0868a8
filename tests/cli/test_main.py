"""The command line from outside: verbs, streams, exit codes, and what a start loads."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from support import ROOT
from support.provenance_gaps import find_gaps

from lora_bench.cli import main as cli
from lora_bench.cli.options import add_options
from lora_bench.errors import DatasetError, InterruptedRunError
from lora_bench.evaluation import folder_scores as scoring
from lora_bench.planning.plan import plan_file
from lora_bench.report import render
from lora_bench.runner import experiment
from lora_bench.runner.freshness import RunHistory
from lora_bench.runner.jobs.locks import hold_run
from lora_bench.runner.jobs.state import write_state
from lora_bench.spec import load_spec
from lora_bench.store import write_json

SPECS = ROOT / "specs"
TEXT = """schema: 1
name: t
dataset: {builtin: chiptune}
prompts: [one, two]
generation: {n_clips: 4}
metrics: [mfcc20]
trials:
  variants: [{name: small, lora: {rank: 4}}, {name: large, lora: {rank: 8}}]
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid spec in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], ["pydantic", "yaml", "numpy", "rich", "torch", "ray"]),
        (["schema"], ["pydantic", "yaml", "numpy", "rich", "torch", "ray"]),
        (["specs"], ["numpy", "torch", "ray"]),
        (["validate", str(SPECS / "quickstart.yaml")], ["numpy", "rich", "torch", "ray", "transformers"]),
        (["plan", str(SPECS / "quickstart.yaml")], ["torch", "ray", "transformers", "librosa"]),
        (["status", str(SPECS / "quickstart.yaml")], ["torch", "ray", "transformers", "librosa"]),
    ],
)
def test_a_verb_loads_only_what_it_needs(arguments: list[str], forbidden: list[str]) -> None:
    code = (
        "import sys\nfrom lora_bench.cli.main import main\ncode = main(sys.argv[1:])\n"
        f"print('LOADED', code, [name for name in {forbidden} if name in sys.modules])"
    )
    last_line = run_python(code, *arguments).stdout.splitlines()[-1]
    assert last_line in {"LOADED 0 []", "LOADED 3 []"}


def test_words_of_a_report_load_no_numbers_library() -> None:
    code = "import sys, lora_bench.report.formatting\nprint('numpy' in sys.modules)"
    assert run_python(code).stdout.split() == ["False"]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: lora-bench [-h] [-V] COMMAND ..." in shown  # the docs' word
    modules = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("[a-z]*.py")}
    assert set(cli.VERBS) == modules
    for verb in modules:
        assert f"    {verb} " in shown


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_explains_each_of_its_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert f"usage: lora-bench {verb} " in capsys.readouterr().out
    parser = argparse.ArgumentParser(add_help=False)
    command = cli.load_command(verb)
    add_options(parser, command.Options)
    actions = {action.dest: action for action in parser._actions}
    assert set(actions) == {field.name for field in fields(command.Options)}
    assert [name for name, action in actions.items() if not action.help] == []


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["run"], ["run", "x.yaml", "--executor", "slurm"], ["score"]]
)
def test_wrong_usage_exits_2_without_a_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: lora-bench" in captured.err
    assert "Traceback" not in captured.err


# ---------------------------------------------------------------- validate, plan, status, schema


def test_validate_says_what_would_run(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(spec)]) == 0
    assert capsys.readouterr().out == (
        f"{spec}: ok, 1 zero-shot and 2 fine-tuned trials, 2 prompts, 4 clips each, 1 metric\n"
    )


def test_validate_lists_the_problems_of_all_specs(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = spec.with_name("u.yaml")
    other.write_text(TEXT.replace("rank: 4", "rnak: 4"), encoding="utf-8")
    assert cli.main(["validate", str(spec), str(other), "none.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{spec}: ok")
    first, second, last = captured.err.splitlines()
    assert first.startswith("u.yaml:8:35: `lora.rnak` is not a field of a trial; did you mean `lora.rank`?")
    assert second.startswith("none.yaml: cannot be opened")
    assert last == "lora-bench: 2 problems; nothing was run"


def test_plan_shows_every_trial_and_why(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(spec), "-o", "lora.dropout=0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "trial", "rank", "alpha", "targets", "steps", "seed", "modules", "params", "adapter", "memory", "disk",
        "time", "why", "it", "runs",
    ]  # fmt: skip
    disk = ["2.5", "MB"]  # 2 prompts x 4 clips of 8 s, 16 kHz, 16 bit, their codes, and the adapter
    assert lines[3].split() == [
        "small", "4", "8", "attention", "1000", "0", "48", "98,304", "0.4", "MB", "~2.1", "GiB", *disk, "?", "new"
    ]  # fmt: skip
    assert lines[-3] == "memory with pocket: ~ is a rough estimate from shapes, for a CPU"
    assert "unknown, no earlier run on this machine; `--probe` measures it" in lines[-2]
    assert "3 to run, 0 done" in lines[-1]


def test_plan_as_json_holds_all_that_a_script_needs(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(spec), "--json", "-o", "lora.dropout=0.1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["name"], document["needs_yes"]) == (1, "t", False)
    assert document["overrides"] == ["lora.dropout=0.1"]
    zero_shot, small, _ = document["trials"]
    assert (zero_shot["kind"], zero_shot["reason"]) == ("zero-shot", "new")
    assert (small["lora"]["rank"], small["lora"]["dropout"], small["changes"]) == (4, 0.1, {"lora.rank": 4})
    predicted = small["predicted"]
    assert predicted["matched_modules"] == {"self_attention": 24, "cross_attention": 24}
    assert (predicted["trainable_params"], predicted["time_s"], predicted["origin"]) == (98304, None, "none")
    assert document["predicted"]["time_s"] is None


def test_reasons_follow_what_the_files_say(spec: Path) -> None:
    plan = plan_file(load_spec(spec))
    run_folder = spec.parent / "runs" / "t"
    write_json(run_folder / "plan.json", plan)
    zero_shot, small, large = plan.trials

    def explain(overrides: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
        history = RunHistory(run_folder)
        trials = plan_file(load_spec(spec, overrides)).trials
        found = {trial.name: history.explain(trial) for trial in trials}
        return {name: (reason.kind, reason.text) for name, reason in found.items()}

    for trial in (zero_shot, small):
        folder = run_folder / "trials" / trial.id
        write_json(folder / "trial.json", trial)
        write_json(folder / "scores.json", {"scores": []})
        write_json(folder / "guards.json", {"guards": []})
        write_state(folder, {"state": "done", "inputs": experiment.inputs_key(trial)})
    write_state(
        run_folder / "trials" / large.id, {"state": "failed", "stage": "train", "reason": "loss is NaN"}
    )
    assert explain() == {
        "zero-shot": ("cached", "done"),
        "small": ("cached", "done"),
        "large": ("failed", "failed in train: loss is NaN"),
    }
    assert explain(("generation.n_clips=9",))["small"] == ("more", "done before, now n_clips 4 -> 9")
    assert explain(("prompts=[one, two, six]",))["small"] == ("more", "done before, now 1 more prompt")
    assert explain(("train.steps=5",))["small"] == ("changed", "changed: train.steps 1000 -> 5")
    checkpointing = "changed: train.gradient_checkpointing false -> auto"  # as a spec states it
    assert explain(("train.gradient_checkpointing=auto",))["small"] == ("changed", checkpointing)
    write_state(run_folder / "trials" / large.id, {"state": "running", "pid": 1, "host": "x"})
    assert explain()["large"][0] == "interrupted"


def test_status_tells_states_and_exits_3_until_all_is_done(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_file(load_spec(spec))
    run_folder = spec.parent / "runs" / "t"
    write_json(run_folder / "plan.json", plan)
    write_state(run_folder / "trials" / plan.trials[0].id, {"state": "done"})
    write_state(run_folder / "trials" / plan.trials[1].id, {"state": "running"})
    for target in (str(spec), str(run_folder)):
        assert cli.main(["status", target, "--json"]) == 3
        document = json.loads(capsys.readouterr().out)
        assert [trial["state"] for trial in document["trials"]] == ["done", "interrupted", "waiting"]
        assert (document["complete"], document["n_done"]) == (False, 1)
    for trial in plan.trials:
        write_state(run_folder / "trials" / trial.id, {"state": "done"})
    assert cli.main(["status", str(spec)]) == 0
    assert "3 of 3 trials done" in capsys.readouterr().out


def test_status_shows_the_plan_that_is_being_run_and_not_what_was_done_before(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_file(load_spec(spec))
    run_folder = spec.parent / "runs" / "t"

    def finish(trials: Any, **state: Any) -> None:
        for trial in trials:
            write_json(run_folder / "trials" / trial.id / "trial.json", trial)
            write_state(run_folder / "trials" / trial.id, {"state": "done"} | state)

    def show() -> tuple[int, dict[str, str]]:
        code = cli.main(["status", str(spec), "--json"])
        trials = json.loads(capsys.readouterr().out)["trials"]
        return code, {trial["name"]: trial["state"] for trial in trials}

    finish(plan.trials)
    write_json(run_folder / "plan.json", plan)
    changed = plan_file(load_spec(spec, ["train.steps=5"]))
    assert show() == (0, {"zero-shot": "done", "small": "done", "large": "done"})
    with hold_run(run_folder, run_folder.parent / ".cache"):
        write_json(run_folder / "plan.json", changed)
        assert show() == (3, {"zero-shot": "done", "small": "waiting", "large": "waiting"})
        finish(changed.trials[1:2], state="failed", reason="loss is NaN")
        assert show()[1]["small"] == "failed"
        os.utime(run_folder / "trials" / changed.trials[1].id / "state.json", (1, 1))  # by an earlier run
        assert show()[1]["small"] == "waiting"
        assert cli.main(["status", str(spec)]) == 3
        assert capsys.readouterr().out.splitlines()[-1] == "running now, with -o train.steps=5"
    assert show()[0] == 0  # nothing runs: the spec's own trials
    assert cli.main(["status", str(spec)]) == 0
    assert "one with -o train.steps=5: `lora-bench status " in capsys.readouterr().out.splitlines()[-1]


def test_a_trial_that_was_done_for_fewer_clips_is_not_done(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = spec.parent / "runs" / "t"
    for trial in plan_file(load_spec(spec)).trials:
        write_json(run_folder / "trials" / trial.id / "trial.json", trial)
        write_state(run_folder / "trials" / trial.id, {"state": "done"})
    assert cli.main(["status", str(spec)]) == 0
    spec.write_text(TEXT.replace("n_clips: 4", "n_clips: 9"), encoding="utf-8")
    assert cli.main(["status", str(spec)]) == 3
    shown = capsys.readouterr().out
    assert "done before with other settings" in shown
    assert "0 of 3 trials done" in shown


def test_schema_is_printed_as_it_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$defs"]["LoraSpec"]
    assert cli.main(["schema", "--results"]) == 0
    assert json.loads(capsys.readouterr().out)["$defs"]["TrialResult"]


# ---------------------------------------------------------------- run


def fake_experiment(monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException) -> dict[str, Any]:
    """Replace the experiment; returns what it was called with."""
    seen: dict[str, Any] = {}

    def run_experiment(plan: Any, **options: Any) -> int:
        seen.update(plan=plan, **options)
        options["progress"].log("working")
        folder = options["runs_dir"] / plan.name
        trials = [{"name": "small", "state": "failed", "reason": "loss is NaN", "unscored": []}]
        write_json(folder / "results.json", {"name": plan.name, "trials": trials})
        (options["reports_dir"] / plan.report_name).mkdir(parents=True, exist_ok=True)
        (options["reports_dir"] / plan.report_name / "report.md").write_text("# t\n", encoding="utf-8")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(experiment, "run_experiment", run_experiment)
    monkeypatch.setattr(render, "render_report", lambda *_: [])
    return seen


def test_run_prints_where_the_report_is_and_nothing_else_on_stdout(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = fake_experiment(monkeypatch, 0)
    assert (
        cli.main(["run", str(spec), "-o", "lora.dropout=0.2", "--runs-dir", "r", "--ray-address", "h:1"]) == 0
    )
    captured = capsys.readouterr()
    assert captured.out == f"report: reports/{seen['plan'].report_name}/report.md\n"
    assert "override: all 2 trials: lora.dropout 0.05 -> 0.2" in captured.err
    assert "working" in captured.err
    assert (seen["executor"], seen["ray_address"], seen["runs_dir"]) == ("ray", "h:1", spec.parent / "r")
    assert seen["plan"].overrides == ("lora.dropout=0.2",)
    assert seen["plan"].spec.defaults.lora.dropout == 0.2


def test_an_incomplete_run_exits_3_and_names_what_is_missing(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_experiment(monkeypatch, 3)
    assert cli.main(["run", str(spec)]) == 3
    captured = capsys.readouterr()
    assert captured.out == "report: reports/t/report.md\n"
    assert "incomplete: trial small: failed: loss is NaN" in captured.err


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (DatasetError("music: no audio files"), 1, "lora-bench: music: no audio files"),
        (
            InterruptedRunError("stopped; 1 of 3 trials are done"),
            3,
            "lora-bench: stopped; 1 of 3 trials are done",
        ),
        (
            KeyboardInterrupt(),
            3,
            "lora-bench: stopped; finished work is kept; resume the run with the same command",
        ),
    ],
)
def test_what_stops_a_run_decides_the_exit_code(
    outcome: BaseException, code: int, words: str, spec: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake_experiment(monkeypatch, outcome)
    assert cli.main(["run", str(spec)]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_debugging_shows_the_traceback(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_experiment(monkeypatch, DatasetError("music: no audio files"))
    monkeypatch.setenv("LORA_BENCH_DEBUG", "1")
    assert cli.main(["run", str(spec)]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_many_trials_ask_for_yes(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = fake_experiment(monkeypatch, 0)
    many = ["run", str(spec), "-o", f"repeats.train_seeds={list(range(40))}"]
    assert cli.main(many) == 2
    assert "81 trials, more than 64" in capsys.readouterr().err
    assert not seen
    assert cli.main([*many, "--yes"]) == 0
    assert len(seen["plan"].trials) == 81


@pytest.mark.parametrize(
    ("options", "executor"),
    [
        ([], "local"),
        (["--executor", "ray"], "ray"),
        (["--ray-address", "h:1"], "ray"),
        (["--executor", "ray", "--ray-address", "h:1"], "ray"),
        (["--executor", "local", "--ray-address", "h:1"], None),
    ],
)
def test_a_cluster_is_joined_by_the_executor_ray_only(
    options: list[str], executor: str | None, spec: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen = fake_experiment(monkeypatch, 0)
    assert cli.main(["run", str(spec), *options]) == (2 if executor is None else 0)
    assert seen.get("executor") == executor
    if executor is None:
        assert "the executor `local` does not use one; leave out one of them" in capsys.readouterr().err


TERMINATED = """
import os, signal, sys
from lora_bench.cli import main as cli
from lora_bench.cli.options import add_options
from lora_bench.runner import experiment
def run_experiment(plan, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    import time
    time.sleep(60)
experiment.run_experiment = run_experiment
sys.exit(cli.main(["run", sys.argv[1], "--quiet"]))
"""


def test_sigterm_is_an_interrupt(spec: Path) -> None:
    found = run_python(TERMINATED, str(spec))
    assert found.returncode == 3
    assert "stopped; finished work is kept" in found.stderr
    assert "Traceback" not in found.stderr
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# ---------------------------------------------------------------- report, score, compare, doctor


def test_report_prints_what_it_wrote(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec.parent / "runs/t").mkdir(parents=True)
    monkeypatch.setattr(render, "render_report", lambda run, reports: [reports / run.name / "report.md"])
    assert cli.main(["report", "runs/t"]) == 0
    assert capsys.readouterr().out == f"{spec.parent}/reports/t/report.md\n"
    assert cli.main(["report", "runs/u"]) == 2
    assert "runs/u: expected the folder of a run" in capsys.readouterr().err


def test_score_prints_values_and_says_what_is_unscored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = {
        "metric": "mfcc20",
        "value": 1.25,
        "ci_low": 1.0,
        "ci_high": None,
        "n_generated": 3,
        "n_reference": 4,
    }
    result: dict[str, Any] = {"scores": [cell], "unscored": []}
    monkeypatch.setattr(scoring, "score_folders", lambda *_, **__: SimpleNamespace(to_json=lambda: result))
    arguments = ["score", "--reference", str(tmp_path), "--generated", str(tmp_path), "--metric", "mfcc20"]
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    result["unscored"] = [{"metric": "clap", "reason": "clap: no weights"}]
    assert cli.main(arguments) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["mfcc20", "1.2500", "-", "1.0000", "-", "3", "4"]
    assert lines[3] == "clap: not scored: no weights"


def test_score_prints_under_every_number_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, level in (("real", 0.3), ("made", 0.2)):
        (tmp_path / place).mkdir()
        for index in range(10):
            noise = np.random.default_rng(index).normal(0, level, 8000)
            soundfile.write(tmp_path / place / f"{index}.wav", noise.clip(-1, 1), 16_000)
    arguments = ["score", "--reference", str(tmp_path / "real"), "--generated", str(tmp_path / "made")]
    arguments += ["--metric", "mfcc20-seed", "--quiet", "--clip-s", "0.25"]
    assert cli.main(arguments) == 0
    [told] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mfcc20-seed: D 20; ")]
    for word in ("encoder", "weights", "window_samples 2048", "resampler", "estimator", "interval 95 %"):
        assert word in told
    assert cli.main([*arguments, "--json"]) == 0
    [score] = json.loads(capsys.readouterr().out)["scores"]
    assert score["ci_low"] < score["ci_high"]
    assert (score["n_generated"], score["n_reference"]) == (20, 20)
    assert find_gaps(score) == []


@pytest.mark.parametrize("length", ["0", "-1", "eight", "nan", "inf"])
def test_score_refuses_a_length_that_is_none(length: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", "--reference", "r", "--generated", "g", "--metric", "mfcc20", f"--clip-s={length}"]
    assert cli.main(arguments) == 2
    assert f"{length}: expected a length in seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--metric": "mfcc21"}, "--metric mfcc21: unknown metric"),
        (
            {"--metric": "/mfcc20-seed"},
            "--metric /mfcc20-seed: unknown metric `/mfcc20-seed`; nothing precedes",
        ),
        ({"--metric": "mean/"}, "--metric mean/: unknown metric `mean/`; nothing follows"),
        ({"--reference": "nowhere"}, "--reference nowhere: expected a folder of audio files"),
    ],
)
def test_score_refuses_what_is_not_there(
    changed: dict[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--reference": str(tmp_path), "--generated": str(tmp_path), "--metric": "mfcc20"} | changed
    assert cli.main(["score", *(part for option in options.items() for part in option)]) == 2
    assert words in capsys.readouterr().err


def write_results(folder: Path, values: dict[tuple[str, str | None], float], **spec_fields: Any) -> Path:
    """A run folder with results alone."""
    scores = [{"metric": "mfcc20", "prompt": prompt, "value": value} for (_, prompt), value in values.items()]
    trials = [{"name": "small", "state": "done", "scores": scores}]
    document = {"schema": 1, "name": folder.name, "complete": True, "trials": trials, "spec": spec_fields}
    write_json(folder / "results.json", document)
    return folder


def test_compare_puts_cells_side_by_side_and_warns_of_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_results(
        tmp_path / "a", {("x", "p"): 1.0, ("x", None): 2.0}, generation={"seed": 0}, prompts=["p"]
    )
    second = write_results(
        tmp_path / "b", {("x", "p"): 1.5, ("x", "q"): 4.0}, generation={"seed": 1}, prompts=["p"]
    )
    assert cli.main(["compare", str(first), str(second / "results.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(cell["prompt"], cell["first"], cell["second"], cell["delta"]) for cell in document["cells"]] == [
        ("p", 1.0, 1.5, 0.5), (None, 2.0, None, None), ("q", None, 4.0, None),
    ]  # fmt: skip
    assert document["warnings"] == ["the runs differ in generation.seed; their scores are not paired"]
    assert cli.main(["compare", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["A a", "B b"]
    assert lines[4].split() == ["small", "mfcc20", "p", "1.000", "1.500", "+0.5000"]
    assert lines[5].split() == ["small", "mfcc20", "(all)", "2.000", "-", "-"]


def test_scores_over_other_prompts_are_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        write_results(tmp_path / name, {("x", prompt): value, ("x", None): value}, prompts=[prompt])
        for name, prompt, value in (("a", "p", 1.0), ("b", "q", 2.0))
    )
    assert cli.main(["compare", str(first), str(second), "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["prompt"], cell["first"], cell["second"], cell["delta"]) for cell in cells] == [
        ("p", 1.0, None, None), (None, 1.0, 2.0, None), ("q", None, 2.0, None),
    ]  # fmt: skip


def test_compare_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


def test_doctor_names_what_is_missing_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_bench.cli.commands import doctor

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--facebook--musicgen-large" / "snapshots").mkdir(parents=True)
    versions = {"torch": "2.0", "audiocraft": None}
    monkeypatch.setattr(doctor, "package_versions", lambda: versions)
    monkeypatch.setattr(doctor, "usable_gpus", lambda: doctor.Gpus({}))
    monkeypatch.setattr(doctor, "look_at_encoders", list)
    assert doctor.execute(doctor.Options(model=None, json=True)) == 0
    findings = {item["name"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert not findings["audiocraft"]["ok"]
    assert findings["audiocraft"]["mend"].startswith("uv sync --inexact --extra audiocraft")
    assert findings["facebook/musicgen-large"]["detail"] == "incomplete download"
    assert findings["facebook/musicgen-small"]["mend"].startswith("hf download facebook/musicgen-small")
    assert findings["pocket"]["ok"]
    versions["torch"] = None
    assert doctor.execute(doctor.Options(model=None, json=False)) == 1
    assert "MISSING  torch" in capsys.readouterr().out


def test_doctor_tells_an_audiocraft_that_cannot_be_imported_from_one_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lora_bench.cli.commands import doctor
    from lora_bench.models import audiocraft_library

    monkeypatch.setattr(doctor, "package_versions", lambda: {"audiocraft": "1.3.0"})
    imported: list[str] = []
    monkeypatch.setattr(audiocraft_library, "importlib", SimpleNamespace(import_module=imported.append))
    *_, finding = doctor.look_at_backends()
    assert (finding.ok, finding.detail, imported) == (True, "1.3.0", ["audiocraft.models.builders"])

    def fail(name: str) -> None:
        raise ImportError("built for another torch")

    monkeypatch.setattr(audiocraft_library, "importlib", SimpleNamespace(import_module=fail))
    *_, finding = doctor.look_at_backends()
    assert (finding.ok, finding.detail) == (False, "1.3.0, built for another torch")
    assert "uv sync" in finding.mend


def test_doctor_finds_pyarrow_that_does_not_fit_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_bench.cli.commands import doctor

    installed = {"ray": "2.60.0", "numpy": "1.26.4", "pyarrow": "26.0.0"}
    monkeypatch.setattr(doctor.metadata, "version", installed.__getitem__)
    _, ray = doctor.look_at_executors()
    assert (ray.ok, ray.mend) == (False, 'pip install "pyarrow<26"')
    installed["pyarrow"] = "25.0.0"
    assert list(doctor.look_at_executors())[1].ok


@pytest.mark.parametrize("option", ["--runs-dir", "--reports-dir"])
def test_a_url_is_not_taken_for_a_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "spec.yaml", option, "s3://bucket/runs"]) == 2
    assert f"argument {option}: 's3://bucket/runs' is a URL; expected a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
