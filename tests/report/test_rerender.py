"""Shipped reports are rendered again without their runs: the clips and numbers of a page stay."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from support import ROOT
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.report.render import render_report


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rerender_reports", ROOT / "tools" / "rerender_reports.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_report_without_its_run_is_rendered_to_the_same_bytes(tool: ModuleType, tmp_path: Path) -> None:
    trials = [FakeTrial("r4"), FakeTrial('r8 "quoted" & <b>')]
    run = FakeRun(
        trials=[zero_shot(), *trials], prompts=[PROMPT_HTML, PROMPT_KOREAN], n_wavs=2, n_references=3,
        contrasts=[contrast(trial, "mfcc20", None, "better") for trial in trials],
    ).write(tmp_path / "runs")  # fmt: skip
    (run / "dataset.json").unlink()  # a shipped report has results.json alone
    shutil.rmtree(run / "trials" / trials[1].id / "clips")  # not every voice has clips
    render_report(run, tmp_path / "reports")
    shutil.rmtree(tmp_path / "runs")
    folder = tmp_path / "reports" / "invented"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before["report.html"].count(b"data-sound=") > 8
    (folder / "scores-9.svg").write_text("of a metric that is gone")
    tool.rerender_report(folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == before
