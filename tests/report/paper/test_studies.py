"""The papers that are shipped: everything that they take in exists, and they compile from the shipped reports."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from support import ROOT
from support.documents import read_blocks, read_commands

from lora_bench.cli.main import main
from lora_bench.report.paper.bundle import ARCHIVE, find_compiler, read_document, read_runs, write_bundle
from lora_bench.report.paper.joint import escape_name, list_numbers

PAPERS = sorted((ROOT / "docs" / "studies").glob("*/paper.tex"))
MAX_BYTES = 1_500_000
needs_tex = pytest.mark.skipif(not find_compiler(), reason="pdflatex and bibtex are not installed")


def name_of(path: Path) -> str:
    return path.parent.name


def read_command(paper: Path) -> list[str]:
    """The words of the command in the README that makes the paper."""
    commands = [
        words
        for block in read_blocks(paper.parent / "README.md")
        for words in read_commands(block.text)
        if words[:2] == ["lora-bench", "paper"]
    ]
    assert len(commands) == 1
    return commands[0][1:]


def read_reports(paper: Path) -> list[Path]:
    return [ROOT / word for word in read_command(paper) if word.startswith("reports/")]


def list_used_numbers(text: str) -> list[str]:
    """Names of numbers, also by the shorthands that a paper defines for a run."""
    shorthands = dict(re.findall(r"\\newcommand\{\\(\w+)\}\[1\]\{\\Number\{([^#}]+)#1\}\}", text))
    used = re.findall(r"\\Number\{([^#}]+)\}", text)
    return used + [
        prefix + key
        for word, prefix in shorthands.items()
        for key in re.findall(rf"\\{word}\{{([^#}}]+)\}}", text)
    ]


def test_papers_are_found() -> None:
    assert [name_of(path) for path in PAPERS] == ["game_music"]


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_everything_that_a_paper_takes_in_exists(paper: Path, tmp_path: Path) -> None:
    runs, text = read_runs(read_reports(paper)), read_document(paper)
    write_bundle(runs, tmp_path, document=text)
    taken = re.findall(r"\\input\{([^}]+)\}", text)
    assert [
        name for name in taken if not (tmp_path / name).exists() and not (tmp_path / f"{name}.tex").exists()
    ] == []
    known = {
        f"{run.view.results.name}/{escape_name(key)}" for run in runs for key, _ in list_numbers(run.answer)
    }
    used = list_used_numbers(text)
    assert len(used) > 20
    assert [name for name in used if name not in known] == []
    cited = {key for keys in re.findall(r"\\cite\{([^}]+)\}", text) for key in keys.split(",")}
    assert [key for key in cited if f"{{{key}," not in (tmp_path / "references.bib").read_text()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_a_paper_comes_as_a_small_pdf_from_complete_runs(paper: Path) -> None:
    pdf = paper.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) < MAX_BYTES
    for run in read_runs(read_reports(paper)):
        assert run.view.results.complete
        assert (ROOT / "specs" / f"{run.view.results.name}.yaml").is_file()


@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_the_archive_next_to_a_paper_holds_the_shipped_results(paper: Path) -> None:
    with tarfile.open(paper.with_name(ARCHIVE)) as archive:
        held = {
            entry.name: archive.extractfile(entry) for entry in archive if entry.name.endswith("results.json")
        }
        assert {name.split("/")[0]: stream.read() for name, stream in held.items() if stream is not None} == {
            run.name: (run.folder / "results.json").read_bytes() for run in read_runs(read_reports(paper))
        }


@needs_tex
@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS, ids=name_of)
def test_a_paper_compiles_from_the_shipped_reports(
    paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = read_command(paper)
    words[words.index("--to") + 1] = str(tmp_path)
    assert main(words) == 0
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
