"""Runs by their spec or their folder, and files of other programs among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_bench.cli import main as cli
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import StoreError, UsageError
from lora_bench.results.reading import read_results_file
from lora_bench.store import write_json

TEXT = """schema: 1
name: {name}
dataset: {{builtin: chiptune}}
prompts: [one]
metrics: [mfcc20]
trials: {{variants: [{{name: small}}]}}
"""
TRIAL = {"name": "small", "scores": [{"metric": "mfcc20", "value": 1.0}]}
ALIEN = {
    "a list": b'[{"task": "x", "score": 1}]',
    "a mark and nothing": b"\xef\xbb\xbf{}",
    "empty": b"",
    "a number": b"1",
    "no JSON": b"name: small",
    "UTF-16": b"\xff\xfe{\x00}\x00",
    "trials of another kind": b'{"trials": {"a": 1}}',
    "trials that are numbers": b'{"trials": [1, 2]}',
    "trials without names": b'{"trials": [{"lr": 0.1}]}',
    "scores of another kind": b'{"trials": [{"name": "a", "scores": {"acc": 1}}]}',
    "a score in words": b'{"trials": [{"name": "a", "scores": [{"metric": "acc", "value": "good"}]}]}',
    "a score that is none": b'{"trials": [{"name": "a", "scores": [{"metric": "acc", "value": NaN}]}]}',
    "a score of nothing": b'{"trials": [{"name": "a", "scores": [{"value": 1}]}]}',
    "a state of another kind": b'{"trials": [{"name": "a", "state": {"done": true}}]}',
    "a spec that is a path": b'{"trials": [], "spec": "spec.yaml"}',
    "a name that is a path": b'{"trials": [], "name": "../../elsewhere"}',
    "floors of another kind": b'{"trials": [], "floors": 3}',
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two specs, the runs of both, and the current folder around them."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TEXT.format(name=name), encoding="utf-8")
        write_json(tmp_path / "runs" / name / "results.json", {"name": name, "trials": [TRIAL]})
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "one.yaml"],
        ["report", "runs/one"],
        ["compare", "one.yaml", "two.yaml"],
        ["compare", "one.yaml", "runs/two"],
        ["compare", "one.yaml:small", "two.yaml:small", "--json"],
        ["compare", "runs/one/results.json", "two.yaml"],
        ["index", "one.yaml"],
        ["index", "runs"],
    ],
)
def test_a_verb_takes_a_run_by_its_spec_or_its_folder(
    arguments: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "one" in shown.out or "reports/" in shown.out


def test_a_spec_is_found_in_another_folder_of_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.rename(runs.with_name("elsewhere"))
    assert cli.main(["report", "one.yaml"]) == 2
    assert (
        "one.yaml: has no run in runs/one yet; start it with `lora-bench run one.yaml`"
        in capsys.readouterr().err
    )
    assert cli.main(["report", "one.yaml", "--runs-dir", "elsewhere"]) == 0


@pytest.mark.parametrize("verb", ["report", "generate", "export"])
def test_what_is_neither_a_spec_nor_a_run_is_refused_with_both_named(
    verb: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"generate": ["--prompt", "x"], "export": ["--to", "out"]}.get(verb, [])
    assert cli.main([verb, "three.yaml", *more]) == 2
    assert (
        "three.yaml: expected the folder of a run, such as runs/quickstart, or its spec; neither exists"
        in capsys.readouterr().err
    )
    (runs.parent / "bad.yaml").write_text("name: [", encoding="utf-8")
    assert cli.main([verb, "bad.yaml", *more]) == 2
    assert "remove" not in capsys.readouterr().err


def test_generate_and_export_look_for_the_run_of_a_spec(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", "one.yaml", "--prompt", "x"]) == 2
    assert cli.main(["export", "one.yaml", "--to", "out"]) == 2
    assert capsys.readouterr().err.count("runs/one: expected the folder of a run, with plan.json in it") == 2
    with pytest.raises(UsageError, match="has no run"):
        resolve_run(Path("one.yaml"), Path("nowhere"))


@pytest.mark.parametrize("kind", ALIEN)
def test_results_of_another_program_are_refused_in_words_and_never_to_be_removed(
    kind: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "alien").mkdir()
    (runs / "alien" / "results.json").write_bytes(ALIEN[kind])
    for arguments in (["report", "runs/alien"], ["compare", "runs/alien", "runs/one"], ["compare", "one.yaml", "runs/alien/results.json"]):  # fmt: skip
        assert cli.main(arguments) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "runs/alien/results.json: " in line
        assert "expected a " in line
        assert "remove" not in line
    assert cli.main(["index", "runs"]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("left out: alien: ")
    assert "2 runs" in (runs.parent / "reports" / "leaderboard.md").read_text(encoding="utf-8")
    assert (runs / "alien" / "results.json").read_bytes() == ALIEN[kind]


@pytest.mark.parametrize(
    "data", [b"[]", b'{"trials": 1}', b'{"resource_changes": []}', b"x", b'{"trials": [{}]}']
)
def test_a_plan_of_another_program_is_no_run(
    data: bytes, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "alien").mkdir()
    (runs / "alien" / "plan.json").write_bytes(data)
    for arguments in (["report", "runs/alien"], ["status", "runs/alien"], ["generate", "runs/alien", "--prompt", "x"], ["compare", "runs/alien", "runs/one"]):  # fmt: skip
        assert cli.main(arguments) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "alien/plan.json: " in line
        assert "remove" not in line
    assert cli.main(["index", "runs"]) == 0
    assert capsys.readouterr().err.startswith("left out: alien: ")
    assert cli.main(["clean", "--yes", "--old-trials"]) == 0
    assert [path.name for path in (runs / "alien").iterdir()] == ["plan.json"]


def test_files_of_other_programs_inside_a_run_are_named_and_the_rest_is_reported(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dataset.json", "environment.json", "trials/small/state.json", "trials/small/train.json"):
        (runs / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / "one" / name).write_text("[1]", encoding="utf-8")
    assert cli.main(["report", "runs/one"]) == 0
    write_json(runs / "one" / "plan.json", {"name": "one", "trials": [{"id": "small"}], "spec": {}})
    assert cli.main(["report", "runs/one"]) == 0
    assert "holds a list" in json.dumps(json.loads((runs.parent / "reports/one/results.json").read_text()))


def test_results_that_say_little_are_completed(runs: Path) -> None:
    found = read_results_file(runs / "one" / "results.json")
    assert found.complete is False
    assert found.trials[0].id == "small"
    assert found.trials[0].scores[0].prompt is None
    write_json(runs / "one" / "results.json", {"trials": []})
    assert read_results_file(runs / "one" / "results.json").name == "one"
    with pytest.raises(StoreError, match="was the run started"):
        read_results_file(runs / "three" / "results.json")
