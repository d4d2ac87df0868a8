"""YAML is read as people mean it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.errors import Problem
from lora_bench.spec.reading import read_number, read_text


def read(text: str) -> object:
    """The plain value of a document without problems."""
    problems: list[Problem] = []
    node = read_text(text, "t.yaml", Path(), problems)
    assert not problems
    assert node is not None
    return node.to_plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.0e-4", 1e-4), ("1E3", 1000), ("1e3", 1000), ("-2e2", -200), ("1.0", 1.0), (".5", 0.5),
        ("5.", 5.0), ("1_000", 1000), ("+3", 3), ("0", 0), ("-0", 0), ("1e-2", 0.01), ("1.5e3", 1500.0),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    found = read_number(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["010", "0x1F", "0b1", "1:30", "2024-01-01", ".nan", ".inf", "inf", "1e", "e3", "1.2.3"]
)
def test_what_only_looks_like_a_number_is_text(text: str) -> None:
    assert read(f"a: {text}") == {"a": text}


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "n", "Yes", "NO"])
def test_words_of_yaml_1_1_are_text(word: str) -> None:
    assert read(f"{word}: {word}") == {word: word}


def test_only_true_and_false_are_booleans() -> None:
    assert read("[true, True, false, 'true']") == [True, True, False, "true"]


def test_quoted_and_block_text_is_text() -> None:
    assert read("a: '1'\nb: \"null\"\nc: |\n  1\nd: >-\n  x\n  y\n") == {
        "a": "1",
        "b": "null",
        "c": "1\n",
        "d": "x y",
    }


def test_aliases_repeat_what_they_name() -> None:
    assert read("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_places_are_counted_in_characters_from_one() -> None:
    node = read_text("ä: ö\nlonger: [x, {y: 1}]\n", "t.yaml", Path(), [])
    assert node is not None
    assert str(node.children["ä"].place) == "t.yaml:1:4"
    inner = node.children["longer"].items[1].children["y"]
    assert str(inner.place) == "t.yaml:2:17"
    assert str(inner.stated_at) == "t.yaml:2:14"


def test_a_key_that_stands_twice_names_the_first_line() -> None:
    problems: list[Problem] = []
    read_text("a: 1\nb: 2\na: 3\n", "t.yaml", Path(), problems)
    assert [str(problem) for problem in problems] == [
        "t.yaml:3:1: `a` appears twice (first on line 1); keep one of them"
    ]
