"""`lora-bench listen`: the page, and the table of preferences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.fake_run import zero_shot
from support.listening_run import LARGE, SMALL, ListeningRun, make_listening_run
from support.raters import answer_study, prefer, save_answers

from lora_bench.cli.main import main


@pytest.fixture
def run(tmp_path: Path) -> ListeningRun:
    return make_listening_run(tmp_path)


def test_the_page_is_written_where_it_is_asked_for(
    run: ListeningRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "new" / "page.html"
    assert main(["listen", str(run.folder), "--pairs", "4", "--seed", "2", "--to", str(place)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    first, second = shown.out.splitlines()
    assert first == str(place)
    assert second.startswith("4 pairs and 2 attention checks, ")
    assert second.endswith(f"with `lora-bench listen {run.folder} --import FILES`")
    assert place.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_preferences_stand_next_to_the_primary_metric(
    run: ListeningRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lean = prefer("r16-all", "r4-attention", "zero-shot")
    files = [
        save_answers(tmp_path / "answers" / f"{name}.json", answer_study(run.study, name, lean))
        for name in "abcdefgh"
    ]
    lost = answer_study(run.study, "ina", lambda pair, question: 2)
    files.append(save_answers(tmp_path / "answers" / "ina.json", lost))
    command = ["listen", str(run.folder), "--import", *map(str, files)]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("ina.json: excluded: failed ")
    lines = shown.out.splitlines()
    assert lines[0] == "8 raters, 160 answers, 1 file excluded"
    assert " ".join(lines[2].split()) == (
        "preference share 95 % interval strength raters answers mfcc20 change 95 % interval verdict"
    )
    row = next(line for line in lines if line.startswith(LARGE.name)).split()
    assert row[-7:] == ["8", "120", "-0.6", "-0.7", "to", "-0.5", "better"]
    assert "rank correlation of encodec with fits_genre over 3 configurations: +1.00" in lines
    assert lines[-1] == str(run.folder / "listening.json")
    assert max(map(len, lines[:-1])) <= 110
    assert not any(zero_shot().id in line or SMALL.id in line for line in lines)
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((run.folder / "listening.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "0"], "--pairs 0: expected 2 to 200"),
        (["--seed", "-1"], "--seed -1: expected a whole number from 0 to 2^31 - 1"),
        (
            ["--pairs", "4", "--import", "a.json"],
            "--pairs: is an option of the page; leave it out with --import",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    run: ListeningRun, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["listen", str(run.folder), *arguments]) == 2
    assert capsys.readouterr().err == f"lora-bench: {message}\n"


def test_a_missing_file_of_answers_is_named(run: ListeningRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", str(run.folder), "--import", "answers/*.json"]) == 1
    assert capsys.readouterr().err == "lora-bench: answers/*.json: does not exist; check the path\n"
