"""The bundle of a paper: its numbers are the run's, its archive rebuilds the report, its LaTeX compiles."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun
from support.light_imports import REFUSE_HEAVY

from lora_bench.cli.main import main
from lora_bench.errors import ResourceError, UsageError
from lora_bench.report.paper import bundle
from lora_bench.report.paper.bundle import compile_bundle, find_compiler, read_runs, write_bundle
from lora_bench.report.paper.methods import write_methods
from lora_bench.report.paper.references import Citations, read_entries
from lora_bench.report.render import render_report

QUICKSTART, KINDS, RANKS = (ROOT / "reports" / name for name in ("quickstart", "kinds", "rank_targets"))
needs_tex = pytest.mark.skipif(not find_compiler(), reason="pdflatex and bibtex are not installed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return FakeRun(n_wavs=2, n_references=2, prompts=[PROMPT_HTML, PROMPT_KOREAN, "codes"]).write(
        tmp_path / "runs"
    )


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_numbers_are_those_of_the_shipped_results(tmp_path: Path) -> None:
    write_bundle(read_runs([QUICKSTART]), tmp_path)
    results = json.loads((QUICKSTART / "results.json").read_text())
    methods = (tmp_path / "methods/quickstart.tex").read_text()
    dataset = results["dataset"]
    for fact in (
        f"{dataset['train']['n_tracks']} tracks ({dataset['train']['duration_s'] / 60:.1f} minutes)",
        f"{dataset['n_reference_clips']} reference excerpts",
        f"{results['spec']['generation']['n_clips']} clips of 8 s for each of {len(results['planned']['prompts'])} prompts",
        results["model"]["weights_hash"][:16],
        f"family of {results['contrasts'][0]['provenance']['family_size']} differences",
    ):
        assert fact in methods
    for trial in results["trials"][1:]:
        assert f"{trial['trainable_params']:,} trainable parameters" in methods
    table = (tmp_path / "tables/quickstart-answer.tex").read_text()
    pooled = [
        item for item in results["contrasts"] if item["prompt"] is None and item["metric"] == "mfcc20@codec"
    ]
    assert len(pooled) == 2
    for item in pooled:
        row = next(line for line in table.splitlines() if item["configuration"] in line)
        assert f" & {item['verdict']} & " in row
        assert f"{item['ci_low']:.1f}" in row.replace(r"\ensuremath{-}", "-")
    assert table.count(r" \\") == 3


def test_the_archive_rebuilds_the_report_without_torch(run: Path, tmp_path: Path) -> None:
    for adapter in run.glob("trials/*/adapter"):
        (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    write_bundle(read_runs([run]), tmp_path / "paper", with_clips=True, with_adapters=True)
    with tarfile.open(tmp_path / "paper" / "numbers.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (name,) = (path.name for path in (tmp_path / "unpacked").iterdir() if path.is_dir())
    unpacked = tmp_path / "unpacked"
    sums = dict(reversed(line.split("  ", 1)) for line in (unpacked / "SHA256SUMS").read_text().splitlines())
    found = {path: hashlib.sha256(data).hexdigest() for path, data in read_all(unpacked).items()}
    assert sums == {path: value for path, value in found.items() if path != "SHA256SUMS"}
    script = (
        f"{REFUSE_HEAVY}from lora_bench.cli.main import main\n"
        f"sys.exit(main(['report', {name!r}, '--reports-dir', 'out']))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=unpacked, check=True, capture_output=True)
    render_report(run, tmp_path / "reports")
    assert read_all(unpacked / "out" / "invented") == read_all(tmp_path / "reports" / "invented")


def test_clips_and_adapters_are_kept_only_when_asked_for(run: Path, tmp_path: Path) -> None:
    def names(*, with_clips: bool = False, with_adapters: bool = False) -> set[str]:
        write_bundle(read_runs([run]), tmp_path / "paper", with_clips=with_clips, with_adapters=with_adapters)
        with tarfile.open(tmp_path / "paper" / "numbers.tar.gz") as archive:
            return set(archive.getnames())

    for path in (run / "trials").iterdir():
        (path / "adapter").mkdir(exist_ok=True)
        (path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        (path / "checkpoint").mkdir(exist_ok=True)
        (path / "checkpoint" / "state.json").write_text("{}")
    plain, clips, adapters = names(), names(with_clips=True), names(with_adapters=True)
    assert not any(name.endswith((".wav", ".safetensors")) for name in plain)
    assert {Path(name).suffix for name in clips - plain} >= {".wav"}
    assert {Path(name).name for name in adapters - plain} == {"adapter_model.safetensors"}
    assert not any("checkpoint" in name or "/." in name for name in clips | adapters)


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    write_bundle(read_runs([run]), tmp_path / "one")
    write_bundle(read_runs([run]), tmp_path / "two")
    assert read_all(tmp_path / "one") == read_all(tmp_path / "two")


def test_a_run_is_named_once(run: Path) -> None:
    with pytest.raises(UsageError, match="'invented' is already in the paper"):
        read_runs([run, run])


def test_every_citation_has_an_entry(tmp_path: Path) -> None:
    folders = [path.parent for path in (ROOT / "reports").glob("*/results.json")]
    write_bundle(read_runs(folders), tmp_path)
    cited = {
        key
        for path in tmp_path.rglob("*.tex")
        for keys in re.findall(r"\\cite\{([^}]+)\}", path.read_text())
        for key in keys.split(",")
    }
    written = set(re.findall(r"^@\w+\{(\w+),", (tmp_path / "references.bib").read_text(), re.MULTILINE))
    assert cited == written
    assert {"musicgen", "lora", "fad"} <= cited
    assert len(read_entries()) == len(set(read_entries().values()))


def read_numbers(folder: Path) -> dict[str, str]:
    defined = re.findall(
        r"^\\lb@define\{(.+?)\}\{(.*)\}$", (folder / "numbers.tex").read_text(), re.MULTILINE
    )
    assert len(defined) == len(dict(defined))
    return {key: value.replace(r"\ensuremath{-}", "-").replace("~", " ") for key, value in defined}


def test_numbers_have_names_and_are_those_of_the_results(tmp_path: Path) -> None:
    write_bundle(read_runs([KINDS, RANKS]), tmp_path)
    numbers, results = read_numbers(tmp_path), json.loads((KINDS / "results.json").read_text())
    oft = next(
        item for item in results["contrasts"] if item["configuration"] == "oft" and item["prompt"] is None
    )
    assert oft["metric"] == "mfcc20@codec"
    assert numbers["kinds/oft/zero-shot/difference"] == f"{oft['delta']:.1f}"
    assert numbers["kinds/oft/zero-shot/interval"] == f"{oft['ci_low']:.1f} to {oft['ci_high']:.1f}"
    assert numbers["kinds/oft/zero-shot/detectable"] == f"{oft['detectable']:.1f}"
    shares = [
        int(numbers[f"kinds/oft/zero-shot/from-{part}"].split()[0]) for part in ("clips", "tracks", "seeds")
    ]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert numbers["kinds/oft/rate"] == "0.002"
    row = next(
        line
        for line in (KINDS / "report.md").read_text().splitlines()
        if line.startswith("| **all prompts** |")
    )
    assert numbers["kinds/oft/level/mfcc20@codec"].split()[0] in row
    assert (numbers["kinds/oft/attempt-1"], numbers["kinds/oft/attempt-3"]) == ("3.8127", "3.8443")
    assert numbers["kinds/test-tracks"] == str(results["dataset"]["eval"]["n_tracks"])
    effect = f"{numbers['kinds/mfcc20@codec/lora.kind/F']}, p = {numbers['kinds/mfcc20@codec/lora.kind/p']}"
    assert effect in (KINDS / "details.md").read_text()
    assert numbers["rank_targets/r2-ffn/r8-attention/verdict"] == "worse"


def test_one_table_has_the_verdicts_of_all_runs_with_what_they_detect(tmp_path: Path) -> None:
    write_bundle(read_runs([KINDS, RANKS]), tmp_path)
    expected = [
        (item["configuration"], item["against"], item["verdict"])
        for folder in (KINDS, RANKS)
        for item in json.loads((folder / "results.json").read_text())["contrasts"]
        if item["primary"] and item["prompt"] is None
    ]
    lines = [
        line for line in (tmp_path / "tables/verdicts.tex").read_text().splitlines() if line.endswith(r" \\")
    ]
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines[1:]]
    assert sorted((row[1], row[2], row[6]) for row in rows) == sorted(expected)
    assert len({row[0] for row in rows}) == 2
    assert all(float(row[5]) > 0.0 for row in rows)
    assert r"\input{tables/verdicts}" in (tmp_path / "paper.tex").read_text()


def test_methods_tell_how_rates_were_chosen_and_every_family(tmp_path: Path) -> None:
    write_bundle(read_runs([KINDS, RANKS]), tmp_path)
    kinds, ranks = (
        (tmp_path / "methods" / f"{run.name}.tex").read_text() for run in read_runs([KINDS, RANKS])
    )
    assert (
        "train.lr of each configuration chosen from 3 by the held-out loss on the selection tracks" in kinds
    )
    assert re.search(r"\\textsf\{oft\} \(OFT [^)]*learning rate 0\.002", kinds)
    assert "Values: train.lr 0.0005; train.lr 0.002;" in kinds
    assert "looked at" not in kinds  # `looks` is empty
    assert (
        "family of 33 differences from zero-shot, and over another of 30 differences from r8-attention;"
        in ranks
    )


def test_methods_speak_of_a_single_prompt_as_one(tmp_path: Path) -> None:
    run = FakeRun(prompts=["march"]).write(tmp_path)
    methods = write_methods(read_runs([run])[0].answer, Citations())
    assert "10 clips of 1 s for 1 prompt. The prompt is ``march''." in methods


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_methods_tell_melodies_and_windows_of_clips(tmp_path: Path) -> None:
    run = FakeRun().write(tmp_path)
    assert "melod" not in write_methods(read_runs([run])[0].answer, Citations())

    def add_melodies(scores: Any) -> None:
        for score in scores["scores"]:
            score["provenance"] = {**score.get("provenance", {}), "n_melodies": 3}

    for scores in run.glob("trials/*/scores.json"):
        change_json(scores, add_melodies)
    methods = write_methods(read_runs([run])[0].answer, Citations())
    assert "Clips of some configurations followed melodies." in methods
    change_json(
        run / "plan.json",
        lambda plan: plan["spec"]["generation"].update(melodies="/home/ada/tunes", clip_s=90),
    )
    methods = write_methods(read_runs([run])[0].answer, Citations())
    assert "Clips followed melodies: clip $i$ of a prompt followed number $i$ mod 3 of 3." in methods
    assert "windows of 30 s, each of which began with the last 12 s of the one before." in methods
    assert "tunes" not in methods


def test_a_document_of_ones_own_takes_the_place_of_the_written_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    own, folder = tmp_path / "own.tex", tmp_path / "paper"
    own.write_text("\\documentclass{article} % caf\u00e9\n", encoding="utf-8")
    words = ["paper", str(QUICKSTART), "--to", str(folder), "--document", str(own)]
    assert main(words) == 0
    assert (folder / "paper.tex").read_bytes() == own.read_bytes()
    assert (folder / "tables/verdicts.tex").is_file()
    own.write_bytes(b"caf\xe9")
    assert main(words) == 2
    assert f"--document {own}: cannot be read as LaTeX in UTF-8" in capsys.readouterr().err
    own.write_bytes(b"")
    assert main(words) == 2
    assert f"--document {own}: is empty; expected a LaTeX document" in capsys.readouterr().err


@needs_tex
@pytest.mark.slow
def test_a_document_sets_numbers_and_fails_at_one_that_does_not_exist(tmp_path: Path) -> None:
    text = "\\documentclass{article}\\begin{document}\\input{numbers}\\cite{lora}\\Number{rank_targets/%s}%s\\end{document}"
    end = r"\bibliographystyle{plain}\bibliography{references}"
    write_bundle(read_runs([RANKS]), tmp_path, document=text % ("r2-ffn/r8-attention/difference", end))
    assert tmp_path / "paper.pdf" in compile_bundle(tmp_path)
    write_bundle(read_runs([RANKS]), tmp_path, document=text % ("r2-ffn/nothing", end))
    with pytest.raises(ResourceError, match="No number is named rank_targets/r2-ffn/nothing"):
        compile_bundle(tmp_path)


def test_kinds_and_metrics_are_cited_by_their_papers() -> None:
    citations = Citations()
    assert citations.cite("lora+") == r"\cite{loraplus}"
    assert citations.cite_metric("mmd/clap") == r"\cite{mmd,clap}"
    assert citations.cite_metric("encodec-24k@codec") == r"\cite{fad,encodec}"
    assert citations.cite_metric("mmd/loudness-range") == r"\cite{mmd,ebu3342}"
    assert citations.cite_metric("label-kl/musicnn-tags@codec") == r"\cite{musicnn}"
    assert citations.cite_metric("tag-adherence") == r"\cite{musicnn}"
    assert citations.cite("no-such-thing") == ""
    assert citations.keys == ["loraplus", "mmd", "clap", "fad", "encodec", "ebu3342", "musicnn"]


def test_without_tex_the_sources_are_written_and_it_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["paper", str(run), "--to", str(tmp_path / "paper")]) == 0
    told = capsys.readouterr()
    assert str(tmp_path / "paper" / "paper.tex") in told.out
    assert "pdflatex and bibtex are not installed" in told.err


def test_a_failure_of_tex_names_the_file_and_its_reason(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(read_runs([run]), tmp_path)
    stand_in = tmp_path / "pdflatex"
    stand_in.write_text("#!/bin/sh\necho '! LaTeX Error: File `booktabs.sty'\"'\"' not found.'\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(bundle, "_FLAGS", ())
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ResourceError, match=r"pdflatex failed \(LaTeX Error: File `booktabs.sty' not found"):
        compile_bundle(tmp_path)


def stand_in_for_tex(folder: Path, monkeypatch: pytest.MonkeyPatch, aux: str = "") -> None:
    """Programs in the place of TeX: one writes what pdfLaTeX writes, the other fails as BibTeX does without a list."""
    (folder / "tex.aux").write_text(aux)
    pdflatex = (
        'for kind in log pdf; do touch "${1%.tex}.$kind"; done; cp "$(dirname "$0")/tex.aux" "${1%.tex}.aux"'
    )
    bibtex = (
        'grep -q bibdata "$1.aux" || { echo "I found no bibdata command"; exit 2; }; touch "$1.bbl" "$1.blg"'
    )
    for name, script in (("pdflatex", pdflatex), ("bibtex", bibtex)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(bundle, "_FLAGS", ())
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_only_files_of_the_compiler_are_removed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_tex(tmp_path, monkeypatch, "\\bibdata{references}")
    folder = tmp_path / "paper"
    write_bundle(read_runs([run]), folder)
    mine = [folder / "slurm-7.out", folder / "training.log", folder / "figures" / "mine.aux"]
    for path in mine:
        path.write_text("mine")
    made = compile_bundle(folder)
    assert made[-1] == folder / "paper.pdf"
    assert all(path.is_file() for path in (*made, *mine))
    left = {path.suffix for path in folder.rglob("*") if path.is_file() and path not in mine}
    assert left.isdisjoint({".aux", ".log", ".bbl", ".blg"})


def test_files_of_another_origin_are_not_replaced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (folder / "paper.tex").write_text("\\documentclass{article}")
    words = ["paper", str(run), "--to", str(folder), "--document", str(folder / "paper.tex")]
    assert main(words) == 2
    assert f"{folder}/README.md: was not written by `lora-bench paper`" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "paper.tex"]
    (folder / "README.md").unlink()  # the document itself may stand there
    assert main(words) == main(words) == 0
    assert (folder / "paper.tex").read_text() == "\\documentclass{article}"


def test_a_document_without_a_bibliography_compiles(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_tex(tmp_path, monkeypatch)
    write_bundle(read_runs([run]), tmp_path / "paper", document="\\documentclass{article}")
    assert compile_bundle(tmp_path / "paper")[-1].is_file()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sleep 99", "pdflatex did not end within 0.2 s"),
        ("kill -9 $$", "pdflatex ended with signal SIGKILL"),
    ],
)
def test_a_compiler_that_hangs_or_is_killed_is_an_error(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    write_bundle(read_runs([run]), tmp_path)
    (tmp_path / "pdflatex").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "pdflatex").chmod(0o755)
    monkeypatch.setattr(bundle, "COMPILE_LIMIT_S", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ResourceError, match=re.escape(words)):
        compile_bundle(tmp_path)


@needs_tex
@pytest.mark.slow
def test_the_document_of_hostile_prompts_compiles(run: Path, tmp_path: Path) -> None:
    write_bundle(
        read_runs([run, *(path.parent for path in (ROOT / "reports").glob("*/results.json"))]), tmp_path
    )
    made = compile_bundle(tmp_path)
    assert all(path.read_bytes().startswith(b"%PDF") for path in made)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".tex", ".bib", ".md", ".gz", ".pdf", ""}
