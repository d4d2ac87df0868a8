"""Generated clips beside the training passages that they resemble."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.fake_run import PLAIN_PROMPTS, RATE_HZ, FakeRun, FakeTrial, write_json, zero_shot

from lora_bench.report.render import render_report

TUNED = FakeTrial("r4")


def write_run(folder: Path, *, has_audio: bool = True) -> Path:
    """A run whose guards name a copy of `song 1.wav`, three seconds in."""
    shared = {
        "set": "generated",
        "diversity": {},
        "n_clips": 1,
        "nearest_copy": "clip 000: song 1.wav at 3.0 s",
    }
    guards = [
        {"trial": zero_shot().id, "prompt": PLAIN_PROMPTS[0], "copy_similarity_max": 0.99, **shared},
        {"trial": TUNED.id, "prompt": None, "copy_similarity_max": 0.97, **shared},
        {"trial": TUNED.id, "prompt": PLAIN_PROMPTS[0], "copy_similarity_max": 0.97, **shared},
        {"trial": TUNED.id, "prompt": PLAIN_PROMPTS[1], "copy_similarity_max": 0.5, "nearest_copy": "odd"},
    ]
    run = FakeRun([zero_shot(), TUNED], guards=guards, n_wavs=1).write(folder)
    if has_audio:
        time_s = np.arange(20 * RATE_HZ) / RATE_HZ
        loud = np.where(np.abs(time_s - 4.0) < 1.0, 0.5, 0.0)  # the passage alone sounds
        np.save(folder / "song.npy", (loud * np.sin(880 * time_s)).astype(np.float32)[None])
        described = json.loads((run / "dataset.json").read_text())
        described["manifest"]["tracks"][1]["audio"] = str(folder / "song.npy")
        write_json(run / "dataset.json", described)
    return run


def section_of(folder: Path) -> str:
    html = (folder / "reports" / "invented" / "report.html").read_text(encoding="utf-8")
    return html.split('id="memorisation"')[1].split("</details>")[0]


def test_a_pair_holds_the_clip_and_the_passage_around_what_it_resembles(tmp_path: Path) -> None:
    render_report(write_run(tmp_path), tmp_path / "reports")
    section = section_of(tmp_path)
    assert re.findall(r"<figcaption>(.*?)</figcaption>", section) == ["r4", "training: song 1.wav at 3.0 s"]
    assert "r4: invented march, clip 0; similarity 0.970" in section
    sounds = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', section)
    passage, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(sounds[1])))
    assert len(passage) / rate_hz == pytest.approx(6.0, abs=0.2)
    loudest_s = np.convolve(np.abs(passage), np.ones(rate_hz), "same").argmax() / rate_hz
    assert loudest_s == pytest.approx(3.0, abs=1.0)  # second 4 of the track, which the passage enters at 1


def test_without_the_prepared_audio_the_passage_is_named_only(tmp_path: Path) -> None:
    render_report(write_run(tmp_path, has_audio=False), tmp_path / "reports")
    section = section_of(tmp_path)
    assert section.count("<audio ") == 1
    assert "training: song 1.wav at 3.0 s" in section
    assert "not in this report" in section


def test_a_run_without_such_guards_has_no_such_section(tmp_path: Path) -> None:
    render_report(FakeRun(n_wavs=1).write(tmp_path), tmp_path / "reports")
    assert "memorisation" not in (tmp_path / "reports" / "invented" / "report.html").read_text(
        encoding="utf-8"
    )
