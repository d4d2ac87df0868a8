"""Clips in windows: against audiocraft's own continuation, and every way of stepping against the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT
from support.fake_graphs import gpu_by_mock
from support.fixed_steps import make_fixed_steps
from support.melody_model import save_random_melody

from benchmarks.random_model import TINY
from lora_bench.models import load_model
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder, generate_codes
from lora_bench.models.decoding.loop import Steps
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.clip_windows import Window, cut_windows
from lora_bench.spec.schema import GenerationSpec, ModelSpec

PROMPT = "a song with drums"
LONGEST, OVERLAP = 24, 10


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of `LONGEST` frames in place of 30 s."""
    monkeypatch.setattr(
        decoding, "plan_windows", lambda _, n_frames, __: cut_windows(n_frames, LONGEST, OVERLAP)
    )


class CountingProgress(SilentProgress):
    """Adds up what it is advanced by."""

    done = 0

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Count."""
        self.done += n


@given(n_frames=st.integers(1, 300), longest=st.integers(2, 50), share=st.floats(0.01, 0.99))
def test_windows_cover_every_frame_once(n_frames: int, longest: int, share: float) -> None:
    overlap = max(1, int(longest * share))
    windows = cut_windows(n_frames, longest, min(overlap, longest - 1))
    made = [frame for one in windows for frame in range(one.begin + one.n_given, one.begin + one.n_frames)]
    assert made == list(range(n_frames))
    assert all(one.n_frames <= longest for one in windows)
    assert len(windows) == 1 or n_frames > longest


def test_a_clip_of_90_s_takes_the_steps_that_the_documentation_states() -> None:
    n_steps = sum(window.n_frames for window in cut_windows(90 * 50, 30 * 50, 12 * 50))
    assert round(n_steps / (90 * 50), 2) == 1.53
    assert "1.53 times the steps" in " ".join((ROOT / "docs/specs.md").read_text(encoding="utf-8").split())


@pytest.mark.skipif(find_spec("audiocraft") is None, reason="the audiocraft extra is not installed")
@pytest.mark.parametrize("n_frames", [25, 38, 39, 70])
@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "library"])
def test_greedy_tokens_are_those_of_audiocrafts_own_windows(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch, n_frames: int, is_compiled: bool
) -> None:
    from audiocraft.models import MusicGen

    from lora_bench.models.audiocraft_backend.networks import build_codec, build_lm
    from lora_bench.models.bridges.parts import take_apart

    if not is_compiled:
        monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    parts = take_apart(tiny.network, tiny._tokenizer)
    theirs = MusicGen("tiny", build_codec(parts, "tiny"), build_lm(parts, "tiny"), max_duration=30.0)
    seconds = [(frames + 0.5) / theirs.frame_rate for frames in (n_frames, LONGEST, LONGEST - OVERLAP)]
    duration, theirs.max_duration, stride = seconds  # theirs are rounded down to frames
    theirs.set_generation_params(use_sampling=False, duration=duration, cfg_coef=3.0, extend_stride=stride)
    with torch.no_grad():
        expected = theirs._generate_tokens(*theirs._prepare_tokens_and_attributes([PROMPT], None))
    generation = GenerationSpec(guidance=3.0, top_k=1)
    assert torch.equal(generate_codes(tiny, PROMPT, [0], n_frames, generation, SilentProgress()), expected)


@pytest.mark.parametrize("steps", ["compiled", "by_library", "fixed"])
def test_a_clip_depends_on_nothing_but_itself(
    tiny: TransformersMusicGen, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    if steps != "compiled":
        request.getfixturevalue("by_library")
    if steps == "fixed":
        monkeypatch.setattr(decoding, "EagerSteps", make_fixed_steps)
    generation = GenerationSpec(top_k=40, batch_size=4)
    progress = CountingProgress()
    long = generate_codes(tiny, PROMPT, range(6), 60, generation, progress)
    assert long.shape[-1] == 60
    assert progress.done == 6 * 60
    assert int(long.max()) < tiny.info.codebook_size  # no start token between windows
    alone = generate_codes(tiny, PROMPT, [5], 60, generation, SilentProgress())
    assert torch.equal(long[5:], alone)
    short = generate_codes(tiny, PROMPT, range(6), LONGEST, generation, SilentProgress())
    assert torch.equal(long[..., :LONGEST], short)
    assert not torch.equal(long[..., LONGEST:][..., :LONGEST], short)


@pytest.mark.usefixtures("by_library")
def test_fixed_shapes_give_the_codes_of_growing_ones(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = GenerationSpec(top_k=1, batch_size=4)
    grown = generate_codes(tiny, PROMPT, range(4), 60, generation, SilentProgress())
    monkeypatch.setattr(decoding, "EagerSteps", make_fixed_steps)
    assert torch.equal(generate_codes(tiny, PROMPT, range(4), 60, generation, SilentProgress()), grown)


def test_all_windows_replay_the_graphs_of_the_first(tiny: TransformersMusicGen, by_library: None) -> None:
    generation = GenerationSpec(top_k=1, batch_size=4)
    expected = generate_codes(tiny, PROMPT, range(6), 60, generation, SilentProgress())
    with gpu_by_mock(bucket=8) as device:
        found = generate_codes(tiny, PROMPT, range(6), 60, generation, SilentProgress())
        assert device.n_captures == math.ceil((LONGEST + tiny.info.max_delay) / 8)  # the last batch, too
        assert not device.reads_after_free
    assert torch.equal(found, expected)


@pytest.mark.parametrize("n_frames", [25, 38, 60])
@pytest.mark.parametrize("steps", ["compiled", "by_library", "fixed"])
def test_steps_of_the_longest_window_give_the_codes_of_steps_of_each_windows_own_length(
    tiny: TransformersMusicGen,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    steps: str,
    n_frames: int,
) -> None:
    if steps != "compiled":
        request.getfixturevalue("by_library")
    if steps == "fixed":
        monkeypatch.setattr(decoding, "EagerSteps", make_fixed_steps)
    generation = GenerationSpec(top_k=40, batch_size=4)
    shared = generate_codes(tiny, PROMPT, range(4), n_frames, generation, SilentProgress())
    decode, lengths = Decoder._decode_window, set[int]()

    def decode_afresh(
        self: Decoder, _: Steps, rows: Sequence[int], window: Window, *rest: Any
    ) -> torch.Tensor:
        self._made = None
        lengths.add(window.n_frames)
        return decode(self, self._make_steps(len(rows), window.n_frames), rows, window, *rest)

    monkeypatch.setattr(Decoder, "_decode_window", decode_afresh)
    apart = generate_codes(tiny, PROMPT, range(4), n_frames, generation, SilentProgress())
    assert len(lengths) == (1 if n_frames == 38 else 2)
    assert torch.equal(shared, apart)


def test_a_melody_models_windows_go_on_from_the_frames_that_are_given(tmp_path: Path) -> None:
    model = load_model(ModelSpec(id=str(save_random_melody(tmp_path, TINY))), device="cpu")
    generation = GenerationSpec(guidance=3.0, top_k=1)
    long = generate_codes(model, PROMPT, [0], 38, generation, SilentProgress())
    assert torch.equal(
        long[..., :LONGEST], generate_codes(model, PROMPT, [0], LONGEST, generation, SilentProgress())
    )
    # the second window's codes are those that the model finds most probable after its beginning
    window = long[..., LONGEST - OVERLAP :]
    text = model.encode_text([PROMPT])[0]
    losses = [
        float(model.training_loss(codes, torch.tensor([24]), [text])) for codes in (window, window.flip(-1))
    ]
    assert losses[0] < losses[1]
