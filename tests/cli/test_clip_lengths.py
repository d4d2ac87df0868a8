"""Clips that are longer than their model has positions for, refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.cli.main import main
from lora_bench.models import load_model
from lora_bench.spec.schema import ModelSpec

SPEC = """schema: 1
name: t
dataset: {builtin: chiptune}
prompts: [a]
metrics: [mfcc20]
generation: {n_clips: 4, clip_s: %s}
trials: {variants: [{name: a}]}
"""


@pytest.mark.parametrize("clip_s", [25, 60])
def test_clips_beyond_the_positions_of_the_model_are_a_problem(
    clip_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.yaml").write_text(SPEC % clip_s, encoding="utf-8")
    assert main(["validate", "t.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        f"t.yaml:6:26: `generation.clip_s` of `zero-shot` is {clip_s}, and pocket has positions for clips of 20.4 s; make "
        "clips shorter"
    )


def test_the_longest_clip_is_that_of_the_loaded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    info = load_model(ModelSpec(), device="cpu").info
    for n_frames, code in ((info.max_frames, 0), (info.max_frames + 1, 2)):
        Path("t.yaml").write_text(SPEC % (n_frames / info.frame_rate_hz), encoding="utf-8")
        assert main(["validate", "t.yaml"]) == code, capsys.readouterr().err


def test_models_of_meta_make_long_clips_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("small", "stereo-large", "melody", "stereo-melody"):
        text = (SPEC % 300) + f"model: {{id: facebook/musicgen-{name}}}\n"
        Path("t.yaml").write_text(text, encoding="utf-8")
        main(["validate", "t.yaml"])
        assert "positions" not in capsys.readouterr().err
