"""Players that are kept: the same report, without encoding again what has not changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_run import FakeRun, write_tone, zero_shot

from lora_bench.report.audio import players as sound_cache
from lora_bench.report.audio.players import SoundCache
from lora_bench.report.render import render_report


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each clip that is encoded."""
    calls: list[int] = []
    make = sound_cache._make

    def count(data: bytes) -> sound_cache.EmbeddedClip | None:
        calls.append(len(data))
        return make(data)

    monkeypatch.setattr(sound_cache, "_make", count)
    return calls


def test_a_second_report_encodes_nothing_and_is_the_same(tmp_path: Path, made: list[int]) -> None:
    run = FakeRun(n_wavs=2, n_references=1).write(tmp_path / "runs")
    render_report(run, tmp_path / "reports")
    n_first, before = len(made), read_all(tmp_path / "reports" / "invented")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "reports" / "invented").iterdir()}
    assert n_first == 5  # two trials with two clips, equal for both prompts, and a reference
    render_report(run, tmp_path / "reports")
    assert len(made) == n_first
    assert read_all(tmp_path / "reports" / "invented") == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_only_a_clip_that_changed_is_encoded_again_and_its_old_player_goes(
    tmp_path: Path, made: list[int]
) -> None:
    run = FakeRun(prompts=["invented march"], n_wavs=1).write(tmp_path / "runs")
    render_report(run, tmp_path / "reports")
    n_first, n_files = len(made), len(list((run / ".players").iterdir()))
    wav = next((run / "trials" / zero_shot().id / "clips").rglob("*.wav"))
    write_tone(wav, 1234.0)
    render_report(run, tmp_path / "reports")
    assert len(made) == n_first + 1
    assert len(list((run / ".players").iterdir())) == n_files


def test_a_damaged_or_missing_cache_only_costs_time(tmp_path: Path) -> None:
    run = FakeRun(n_wavs=1).write(tmp_path / "runs")
    render_report(run, tmp_path / "reports")
    before = read_all(tmp_path / "reports" / "invented")
    for number, path in enumerate((run / ".players").iterdir()):
        path.write_text(["{", '{"sound": "x"}', "[]"][number % 3])
    render_report(run, tmp_path / "reports")
    assert read_all(tmp_path / "reports" / "invented") == before


def test_a_folder_that_cannot_be_written_to_has_no_cache(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 440.0)
    (tmp_path / "file").write_text("x")
    clip = SoundCache(tmp_path / "file" / "cache").embed(tmp_path / "a.wav")
    assert clip is not None
    assert clip.sound.startswith("data:audio/mpeg;base64,")
