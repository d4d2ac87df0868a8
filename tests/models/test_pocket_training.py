"""The parts that trained the pocket model: scores, delay pattern, captions, codec conversion."""

import random

import numpy as np
import pytest
import torch

from lora_bench.models.pocket.captions import Captioner, Heard, analyse_track
from lora_bench.models.pocket.data import Track
from lora_bench.models.pocket.lm import get_rate_frac
from lora_bench.models.pocket.measure import compute_si_sdr
from lora_bench.models.pocket.scores import write_scores
from lora_bench.models.pocket.sources import SOURCES
from lora_bench.models.pocket.tokens import delay_codes


def make_track(**changes):
    known = {
        "name": "x",
        "source": "scores",
        "words": ["jazz"],
        "instruments": ["piano"],
        "tempo_bpm": 93.0,
        "key": "a minor",
    }
    return Track(**{**known, "start": 0, "length": 160_000, "split": "train", **changes})


def test_scores_are_the_same_bytes_for_the_same_seed(tmp_path):
    first, again = write_scores(tmp_path / "a", 12, 3), write_scores(tmp_path / "b", 12, 3)
    assert [s.path.read_bytes() for s in first] == [s.path.read_bytes() for s in again]
    assert len({s.path.read_bytes() for s in first}) == 12
    assert all(s.path.read_bytes().startswith(b"MThd") for s in first)


def test_delay_pattern_keeps_every_code():
    codes = torch.randint(0, 1024, (2, 4, 7))
    inputs, targets, mask = delay_codes(codes)
    assert inputs.shape == targets.shape == (2, 4, 10)
    assert (inputs[..., 0] == 1024).all()
    assert torch.equal(inputs[..., 1:], targets[..., :-1])
    assert torch.equal(targets[:, mask].view(2, 4, 7), codes)


def test_captions_of_a_crop_know_tempo_key_and_level():
    windows = np.array([[-40.0, 8.0, 0.1]] * 10 + [[-10.0, 11.0, 3.0]] * 10)
    captioner = Captioner([make_track()], [Heard(120.0, "c major", windows)])
    quiet = captioner.write(0, 0.0, 10.0, random.Random(0), full=True)
    loud = captioner.write(0, 70.0, 10.0, random.Random(0), full=True)
    assert quiet.startswith("jazz, piano")
    assert quiet.endswith("medium tempo, 90 bpm, in a minor")
    assert quiet != loud
    assert len({captioner.write(0, 0.0, 10.0, random.Random(i)) for i in range(50)}) > 20


def test_analysis_hears_a_click_track_and_a_major_chord():
    time = np.arange(20 * 16_000) / 16_000
    wave = (
        sum(np.sin(2 * np.pi * f * time) for f in (261.63, 329.63, 392.0, 523.25))
        * 0.1
        * np.exp(-6 * (time % 0.5))
    )
    heard = analyse_track((wave * 32767).astype(np.int16))
    assert heard.tempo_bpm in (
        pytest.approx(120, rel=0.05),
        pytest.approx(60, rel=0.05),
        pytest.approx(240, rel=0.05),
    )
    assert heard.key == "c major"
    assert heard.windows.shape == (4, 3)


def test_si_sdr_ignores_scale_and_falls_with_noise():
    signal, noise = torch.randn(2, 1, 8000), torch.randn(2, 1, 8000)
    assert (compute_si_sdr(0.3 * signal, signal) > 60).all()
    assert compute_si_sdr(signal + 0.1 * noise, signal).mean() == pytest.approx(20, abs=1)


def test_held_out_music_is_not_among_the_sources():
    packages = [source.package for source in SOURCES]
    assert not any(
        word in package for package in packages for word in ("wesnoth", "drascula", "asc", "planetblupi")
    )


def test_learning_rate_ends_at_zero():
    assert get_rate_frac(0.0) > 0
    assert get_rate_frac(0.2) == 1.0
    assert get_rate_frac(1.0) == 0.0
