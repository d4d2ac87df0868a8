from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_data import RATE_HZ, Recorder, load_tiny
from torch import Tensor

from lora_bench.audio import load_audio, save_wav
from lora_bench.errors import ModelError, OutOfMemoryError
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages import generate, wav_writer
from lora_bench.stages.generate import generate_clips, read_methods

PROMPT = "a song"
GENERATION = GenerationSpec(n_clips=5, clip_s=0.51, batch_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersMusicGen:
    return load_tiny(tmp_path_factory.mktemp("model"))


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_clips_are_numbered_and_exactly_as_long_as_asked(model: TransformersMusicGen, tmp_path: Path) -> None:
    progress = Recorder()
    clips = generate_clips(model, PROMPT, GENERATION, tmp_path / "clips", progress)
    assert [file.name for file in clips.files] == [f"00{i}.wav" for i in range(5)]
    assert sorted(tmp_path.glob("clips/*")) == list(clips.files)
    for file in clips.files:
        audio, rate_hz = load_audio(file)
        assert (audio.shape, rate_hz) == ((1, 816), RATE_HZ)  # 0.51 s are 25.5 frames
    assert (clips.prompt, clips.wall_s > 0) == (PROMPT, True)
    assert progress.stages == [("generate", 5 * 26)]
    assert progress.done == 5 * 26


def test_a_clip_is_what_codec_and_codes_give(model: TransformersMusicGen, tmp_path: Path) -> None:
    clips = generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())
    codes = generate_codes(model, PROMPT, range(5), 26, GENERATION, SilentProgress())
    for file, clip in zip(clips.files, codes, strict=True):
        expected = np.clip(model.decode_audio(clip[None])[0, :, :816], -1, 1)
        np.testing.assert_allclose(load_audio(file)[0], expected, atol=1.01 / 2**15)


def test_the_codes_of_clips_are_kept_where_asked_for(model: TransformersMusicGen, tmp_path: Path) -> None:
    place = tmp_path / "codes"
    generate_clips(model, PROMPT, GENERATION, tmp_path / "clips", SilentProgress(), codes_folder=place)
    codes = generate_codes(model, PROMPT, range(5), 26, GENERATION, SilentProgress())
    assert sorted(file.name for file in place.glob("*.npy")) == [f"00{i}.npy" for i in range(5)]
    for index, clip in enumerate(codes):
        kept = np.load(place / f"00{index}.npy")
        assert kept.dtype == np.int16
        np.testing.assert_array_equal(kept, clip.numpy())


def test_all_methods_of_decoding_that_clips_went_through_are_recorded(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, codes = tmp_path / "clips", tmp_path / "codes"

    def work() -> None:
        generate_clips(model, PROMPT, GENERATION, clips, SilentProgress(), codes_folder=codes)

    assert read_methods(codes) == []
    work()
    assert read_methods(codes) == ["compiled steps"]
    monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    work()  # nothing is missing
    assert read_methods(codes) == ["compiled steps"]
    (clips / "003.wav").unlink()
    work()
    assert read_methods(codes) == ["compiled steps", "torch on cpu, blocks of 16 clips"]


def test_an_interrupted_call_goes_on_to_the_same_files(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_clips(model, PROMPT, GENERATION, tmp_path / "whole", SilentProgress())
    calls = 0

    def stop_after_three(path: Path, audio: np.ndarray, rate_hz: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        save_wav(path, audio, rate_hz)

    with monkeypatch.context() as patch:
        patch.setattr(wav_writer, "save_wav", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            generate_clips(model, PROMPT, GENERATION, tmp_path / "cut", SilentProgress())
    assert len(list((tmp_path / "cut").iterdir())) == 3
    kept = (tmp_path / "cut" / "000.wav").stat().st_mtime_ns
    progress = Recorder()
    generate_clips(model, PROMPT, GENERATION, tmp_path / "cut", progress)
    assert (tmp_path / "cut" / "000.wav").stat().st_mtime_ns == kept
    assert progress.done == 5 * 26
    assert read_all(tmp_path / "cut") == read_all(tmp_path / "whole")


def test_missing_and_broken_clips_are_made_again(model: TransformersMusicGen, tmp_path: Path) -> None:
    generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())
    whole = read_all(tmp_path)
    (tmp_path / "003.wav").unlink()
    (tmp_path / "001.wav").write_bytes(whole["001.wav"][:300])
    save_wav(tmp_path / "004.wav", np.zeros((1, 400), dtype=np.float32), RATE_HZ)
    generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())
    assert read_all(tmp_path) == whole


def test_more_clips_keep_the_first_ones(model: TransformersMusicGen, tmp_path: Path) -> None:
    generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    more = GENERATION.model_copy(update={"n_clips": 7})
    clips = generate_clips(model, PROMPT, more, tmp_path, SilentProgress())
    assert len(clips.files) == 7
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in before.items())


def test_a_complete_folder_needs_no_model_work(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())
    monkeypatch.setattr(model, "decoder_weights", lambda: pytest.fail("the decoder was read"))
    assert generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress()).files == first.files


def test_too_long_clips_are_an_error_before_any_file(model: TransformersMusicGen, tmp_path: Path) -> None:
    long = GenerationSpec(n_clips=2, clip_s=6.0)
    with pytest.raises(ModelError, match=r"generation\.clip_s: 300 frames"):
        generate_clips(model, PROMPT, long, tmp_path, SilentProgress())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [2, 3, 16])
def test_sound_in_batches_is_that_of_single_clips(
    size: int, model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = generate_clips(model, PROMPT, GENERATION, tmp_path / "alone", SilentProgress())
    monkeypatch.setitem(generate.SOUND_BATCH, "cpu", size)
    together = generate_clips(model, PROMPT, GENERATION, tmp_path / "together", SilentProgress())
    for one, other in zip(alone.files, together.files, strict=True):
        np.testing.assert_allclose(load_audio(one)[0], load_audio(other)[0], atol=1.01 / 2**15)


def run_short_of_memory(model: TransformersMusicGen, fits: int, sizes: list[int]) -> Any:
    decode_audio = model.decode_audio

    def decode_some(codes: Tensor) -> Any:
        sizes.append(len(codes))
        if len(codes) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_audio(codes)

    return decode_some


def test_sound_that_does_not_fit_is_made_in_smaller_batches(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = GENERATION.model_copy(update={"batch_size": 5})
    monkeypatch.setitem(generate.SOUND_BATCH, "cpu", 4)
    whole = generate_clips(model, PROMPT, generation, tmp_path / "whole", SilentProgress())
    sizes: list[int] = []
    monkeypatch.setattr(model, "decode_audio", run_short_of_memory(model, 2, sizes))
    short = generate_clips(model, PROMPT, generation, tmp_path / "short", SilentProgress())
    assert sizes == [4, 2, 2, 1]
    for one, other in zip(whole.files, short.files, strict=True):
        np.testing.assert_allclose(load_audio(one)[0], load_audio(other)[0], atol=1.01 / 2**15)


def test_sound_of_one_clip_that_does_not_fit_is_an_error(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "decode_audio", run_short_of_memory(model, 0, []))
    with pytest.raises(OutOfMemoryError, match=r"decoding one clip of 26 frames .* lower generation.clip_s"):
        generate_clips(model, PROMPT, GENERATION, tmp_path, SilentProgress())


def test_an_error_of_the_model_waits_for_clips_that_are_being_written(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def save_late(*arguments: Any) -> None:
        begun.set()
        go_on.wait()
        save_wav(*arguments)

    decode_audio, n_decoded = model.decode_audio, 0

    def decode_two(codes: Tensor) -> Any:
        nonlocal n_decoded
        if n_decoded == 2:
            begun.wait()
            go_on.set()
            raise ModelError("broken")
        n_decoded += 1
        return decode_audio(codes)

    monkeypatch.setattr(wav_writer, "save_wav", save_late)
    monkeypatch.setattr(model, "decode_audio", decode_two)
    with pytest.raises(ModelError, match="broken"):
        generate_clips(model, PROMPT, GENERATION, tmp_path / "clips", SilentProgress())
    assert [file.name for file in sorted(tmp_path.glob("clips/*"))] == ["000.wav", "001.wav"]
