"""Wrong specs: each is refused with a place and words, none with a traceback."""

from __future__ import annotations

import contextlib
import random
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.malformed_specs import HEAD, MALFORMED, OVERRIDES

from lora_bench.cli.main import main
from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_file
from lora_bench.spec import load_spec


def refuse(path: Path, overrides: tuple[str, ...] = ()) -> SpecError:
    """What loading and planning a wrong spec raises."""
    with pytest.raises(SpecError) as caught:
        plan_file(load_spec(path, overrides))
    return caught.value


@pytest.mark.parametrize(
    ("text", "place", "words"), [case[1:] for case in MALFORMED], ids=[c[0] for c in MALFORMED]
)
def test_malformed_spec_is_refused_with_place_and_words(
    text: str, place: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8")
    problems = refuse(path).problems
    hits = [problem for problem in problems if words in problem.message]
    assert hits, f"none of {[str(problem) for problem in problems]} says {words!r}"
    assert f"t.yaml:{place}" in hits[0].place


def test_the_table_holds_enough_malformed_specs() -> None:
    assert len(MALFORMED) + len(OVERRIDES) >= 100
    assert len({case[0] for case in MALFORMED}) == len(MALFORMED)


@pytest.mark.parametrize(("override", "words"), OVERRIDES)
def test_malformed_override_is_refused_in_its_own_words(override: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(HEAD, encoding="utf-8")
    problems = refuse(path, (override,)).problems
    hits = [problem for problem in problems if words in problem.message]
    assert hits, f"none of {[str(problem) for problem in problems]} says {words!r}"
    assert all(problem.place == f"-o {override}" for problem in hits)


def test_wrong_bytes_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(HEAD.encode() + b"report: {title: \xff}\n")
    assert str(refuse(path).problems[0]).endswith(
        "t.yaml:5:17: byte 0xff is not UTF-8 text; save the file as UTF-8"
    )


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(b"#" * (2 << 20))
    assert "larger than 1024 KiB" in refuse(path).problems[0].message


def test_all_problems_of_file_parent_axis_and_override_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("generation: {n_clips: 0}\n", encoding="utf-8")
    path = tmp_path / "t.yaml"
    path.write_text(
        HEAD + "extends: parent.yaml\nmetrics: [nope]\ntrials: {grid: {axes: {lora.rank: [0, x]}}}\n",
        encoding="utf-8",
    )
    places = [problem.place for problem in refuse(path, ("train.lr=fast",)).problems]
    names = [re.sub(r".*/", "", place) for place in places]
    assert names == ["parent.yaml:1:23", "t.yaml:6:11", "t.yaml:7:36", "t.yaml:7:39", "-o train.lr=fast"]


RICH = {
    "schema": 1,
    "name": "t",
    "model": {"id": "pocket", "dtype": "float32"},
    "datasets": {"chip": {"builtin": "chiptune"}, "own": {"path": "music", "clip_s": 5}},
    "dataset": "chip",
    "prompts": ["a", "b"],
    "prompt_sets": {"far": ["c"]},
    "generation": {"n_clips": 4, "clip_s": 2, "top_k": None},
    "metrics": ["mfcc20"],
    "defaults": {"lora": {"rank": 4, "targets": "ffn"}, "train": {"steps": 10, "lr": 0.001}},
    "baseline": "one",
    "trials": {
        "variants": [
            {"name": "one", "lora": {"rank": 2}},
            {"name": "two", "train.lr": 0.1, "dataset": "own"},
        ],
        "grid": {
            "name": "r{lora.rank}-{dataset}",
            "axes": {"lora.rank": [8, 16], "dataset": ["chip", "own"]},
            "zip": {"lora.alpha": [8, 16], "with": "lora.rank"},
            "exclude": [{"lora.rank": 16, "dataset": "own"}],
        },
    },
    "ablations": {"short": {"train.steps": 5}},
    "repeats": {"train_seeds": [0, 1]},
    "resources": {"cpu": 1},
}
JUNK: tuple[object, ...] = (
    None,
    True,
    -7,
    3.5,
    "",
    "?",
    "a" * 300,
    [],
    [None],
    {},
    {"x": {"y": []}},
    [[1]],
    "0x1F",
)


def list_trails(value: object, trail: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value of a document, its own root left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in ((*trail, key), *list_trails(item, (*trail, key)))]


def mutate(trail: tuple[str | int, ...], junk: object) -> dict[str, object]:
    """The rich document with junk in one place."""
    document = yaml.safe_load(yaml.safe_dump(RICH))
    place = document
    for part in trail[:-1]:
        place = place[part]
    place[trail[-1]] = junk
    return document


def misspell(trail: tuple[str | int, ...]) -> dict[str, object]:
    """The rich document with one key misspelt; its value stays."""
    document = yaml.safe_load(yaml.safe_dump(RICH))
    place = document
    for part in trail[:-1]:
        place = place[part]
    place[f"{trail[-1]}_x"] = place.pop(trail[-1])
    return document


def generate_malformed() -> list[tuple[str, str]]:
    """Every key misspelt, and a mapping in the place of every value that is none; names are free to choose."""
    named = {"datasets", "prompt_sets", "ablations"}
    made: list[tuple[str, str]] = []
    for trail in list_trails(RICH):
        is_name = len(trail) == 2 and trail[0] in named
        words = ".".join(str(part) for part in trail)
        if isinstance(trail[-1], str) and not is_name and trail != ("name",):
            made.append((f"misspelt {words}", yaml.safe_dump(misspell(trail))))
        if not is_name or trail[0] != "datasets":
            made.append((f"junk in {words}", yaml.safe_dump(mutate(trail, {"x": {"y": []}}))))
    return made


def test_two_hundred_malformed_specs_exit_2_with_a_place_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    specs = [(case[0], case[1]) for case in MALFORMED] + generate_malformed()
    assert len({text for _, text in specs}) >= 200
    for name, text in specs:
        Path("t.yaml").write_text(text, encoding="utf-8")
        code = main(["validate", "t.yaml"])
        captured = capsys.readouterr()
        assert code == 2, f"{name}: {captured.out}"
        assert re.match(r"t\.yaml:\d+:\d+: .{10}", captured.err), f"{name}: {captured.err}"
        assert "Traceback" not in captured.err
        assert captured.out == ""


def test_junk_in_any_place_is_refused_or_understood(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(RICH), encoding="utf-8")
    plan_file(load_spec(path))  # the document itself is valid
    every = [(trail, junk) for trail in list_trails(RICH) for junk in JUNK]
    n_refused = 0
    for trail, junk in random.Random(0).sample(every, 300):
        path.write_text(yaml.safe_dump(mutate(trail, junk)), encoding="utf-8")
        try:
            plan_file(load_spec(path))
        except SpecError as error:
            n_refused += 1
            for problem in error.problems:
                assert re.search(r"t\.yaml:\d+:\d+$", problem.place), f"{trail} = {junk!r}: {problem}"
                assert len(problem.message) > 10
    assert n_refused >= 200


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = sorted({*RICH, "extends", "report", "baseline"})


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(SECTIONS), YAML_VALUES, max_size=5), st.booleans())
def test_any_document_is_refused_or_understood(sections: dict[str, object], has_rest: bool) -> None:
    document = {**RICH, **sections} if has_rest else sections
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        with contextlib.suppress(SpecError):
            plan_file(load_spec(path))


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_understood(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_bytes(data)
        with contextlib.suppress(SpecError):
            plan_file(load_spec(path))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_text_is_refused_or_understood(data: st.DataObject) -> None:
    text = yaml.safe_dump(RICH)
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    noise = data.draw(st.text(st.sampled_from("{}[]:,&*!|>'\"%@`#-? \t\n019eE.~aé\x00\x85"), max_size=12))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_text(text[:start] + noise + text[start + length :], encoding="utf-8")
        with contextlib.suppress(SpecError):
            plan_file(load_spec(path))
