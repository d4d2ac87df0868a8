"""Documents: paths and names exist, and every block of code runs or says what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.documents import REASONS, Block, ReaderFolder, read_blocks, read_commands

from lora_bench.cli.main import VERBS, build_parser

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "design").glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DOCUMENTS.append(ROOT / "benchmarks" / "README.md")
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
CODE = re.compile(r"`([\w./-]+)`")
TOP = {path.name for path in ROOT.iterdir()} - {"runs", "data", "site", "dist"}
LANGUAGES = {"sh", "console", "python", "yaml"}
SLOW = {"getting_started.md", "listening.md"}  # run the quickstart, as README.md does, and use what it leaves


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def mark_slow(path: Path) -> Any:
    return pytest.param(path, marks=[pytest.mark.slow] if path.name in SLOW else [])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_and_path_in_a_document_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if document.name == "CHANGELOG.md":  # tells of files that are gone
        pytest.skip("history")
    missing = [target for target in LINK.findall(text) if not (document.parent / target).exists()]
    for name in CODE.findall(text):
        is_path = "/" in name.strip("/") and name.split("/")[0] in TOP
        is_module = name.endswith(".py")
        if (is_path and not (ROOT / name).exists()) or (
            is_module and not is_path and not any(ROOT.glob(f"*/**/{name}"))
        ):
            missing.append(name)
    assert not missing, f"{document.name} names {missing}"


def test_every_page_is_in_the_navigation_of_the_site_and_in_the_readme() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in site
        assert f"](docs/{page.name})" in readme


def test_every_command_and_every_shipped_spec_is_in_its_table() -> None:
    commands = (ROOT / "docs" / "getting_started.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if not re.search(rf"^\| `{verb}[ `]", commands, re.MULTILINE)] == []
    specs = (
        (ROOT / "docs" / "your_own_genre.md")
        .read_text(encoding="utf-8")
        .partition("## Specs to learn from")[2]
    )
    assert [path.stem for path in (ROOT / "specs").glob("*.yaml") if f"`{path.stem}`" not in specs] == []


def test_pictures_are_small_and_each_is_shown_or_linked() -> None:
    pictures = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert max(pictures.values()) <= 120_000
    assert sum(pictures.values()) <= 1_200_000
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert [name for name in pictures if f"(images/{name})" not in text] == []


def test_every_benchmark_and_every_result_is_in_the_index() -> None:
    folder = ROOT / "benchmarks"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted(folder.glob("*.py")) if path.name not in index] == []
    results = [path.relative_to(folder).as_posix() for path in sorted((folder / "results").rglob("*.md"))]
    assert [name for name in results if f"]({name})" not in index] == []


@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_every_block_is_of_a_kind_that_runs_or_says_what_it_needs(document: Path) -> None:
    blocks = list(read_blocks(document))
    strange = [
        block.line
        for block in blocks
        if (block.mark not in REASONS if block.mark else block.language not in LANGUAGES)
    ]
    assert not strange, f"{document.name}: blocks in lines {strange}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_target_of_make_in_a_document_exists(document: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = document.read_text(encoding="utf-8")
    named = re.findall(
        r"^ *make(?: [A-Z]+=\S+)* ([a-z]+)|`make(?: [A-Z]+=\S+)* ([a-z]+)`", text, flags=re.MULTILINE
    )
    assert {first or second for first, second in named} <= set(targets)


@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_every_command_of_a_document_has_a_verb_and_options_that_exist(document: Path) -> None:
    for block in read_blocks(document):
        prompt = {"sh": "", "console": "$ "}.get(block.language)
        lines = (
            [] if prompt is None else [line for line in block.text.splitlines() if line.startswith(prompt)]
        )
        for words in read_commands("\n".join(line.removeprefix(prompt or "") for line in lines)):
            if words[0] == "lora-bench":
                assert build_parser(words[1]).parse_args(words[1:]).verb == words[1]


@pytest.mark.parametrize("document", [mark_slow(path) for path in GUIDES], ids=name_of)
def test_every_block_without_a_mark_runs(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [block for block in read_blocks(document) if block.mark is None]
    if not blocks:
        return
    monkeypatch.chdir(tmp_path)
    reader = ReaderFolder(tmp_path, capsys)
    for block in blocks:
        reader.run(block)


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("sh", "lora-bench validate missing.yaml", "ends with 2"),
        ("sh", "rm -r data", "mark the block"),
        ("console", "$ lora-bench specs\nnothing", "nothing|first line"),
        ("python", "assert False, 'no'", "no"),
        ("yaml", "trials: {grid: {axes: {lora.rnak: [1]}}}", "lora.rnak"),
    ],
)
def test_a_block_that_is_wrong_is_found(
    language: str,
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=message):
        ReaderFolder(tmp_path, capsys).run(Block(1, language, text, None))
