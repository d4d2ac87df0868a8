"""Vocals removed by a stand-in of Hybrid Demucs, and sounds that a user's program makes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torchaudio

from lora_bench.artifacts import AudioFormat
from lora_bench.errors import DatasetError
from lora_bench.progress import SilentProgress
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.prepare import PrepareSpec
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import prepare_dataset, processed_sound, vocals
from lora_bench.store import Store

SHARES = torch.tensor([0.1, 0.2, 0.3, 0.4])
"""What the stand-in gives to drums, bass, other and vocals."""


@pytest.fixture
def folder(tmp_path, save_sound):
    rng = np.random.default_rng(0)
    for index in range(4):
        save_sound(tmp_path / "genre" / f"{index}.wav", rng.normal(0, 0.1, (1, 48_000)).astype(np.float32))
    return tmp_path / "genre"


def prepare(folder, **fields):
    spec = DatasetSpec(path=folder, captions=CaptionSpec(text="a"), clip_s=1.0, prepare=PrepareSpec(**fields))
    store = Store(folder.parent / "cache")
    return prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress())


def load_track(manifest, source):
    (track,) = [track for track in manifest.tracks if track.source == source]
    return np.load(track.audio)


@pytest.mark.parametrize("duration_s", [0.1, 10.0, 10.01, 25.3])
def test_parts_are_joined_without_a_seam_and_vocals_are_left_out(monkeypatch, duration_s):
    lengths = []

    def separate(mixture):
        lengths.append(mixture.shape[-1] / vocals.RATE_HZ)
        return SHARES.reshape(1, 4, 1, 1) * mixture[:, None]

    monkeypatch.setattr(vocals, "load_separator", lambda: separate)
    audio = np.random.default_rng(0).normal(0, 0.1, (2, round(duration_s * 44_100))).astype(np.float32)
    rest, rate_hz = vocals.remove_vocals(audio, 44_100)
    assert (rate_hz, rest.shape) == (44_100, audio.shape)
    mean = audio.mean()
    assert np.allclose(rest, 0.6 * (audio - mean) + mean, atol=1e-6)
    assert max(lengths) <= 10.5
    assert not vocals.remove_vocals(np.zeros((1, 44_100), np.float32), 44_100)[0].any()


def test_the_published_network_is_loaded_from_its_place(tmp_path, monkeypatch):
    vocals.load_separator.cache_clear()
    small = torchaudio.models.HDemucs(list(vocals.SOURCES), channels=4)
    monkeypatch.setattr(torchaudio.models, "hdemucs_high", lambda sources: small)
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "torchaudio" / "models" / "hdemucs_high_trained.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"<html>")
    with pytest.raises(
        DatasetError, match=r"cannot be loaded as Hybrid Demucs .* get it again from https://"
    ):
        vocals.load_separator()
    torch.save(small.state_dict(), place)
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 44_100)).astype(np.float32)
    rest, _ = vocals.remove_vocals(audio, 44_100)
    mean, scale = audio.mean(), audio.std()
    with torch.inference_mode():
        expected = (
            small.eval()(torch.from_numpy((audio - mean) / scale)[None])[0, :3].sum(0).numpy() * scale + mean
        )
    assert np.allclose(rest, expected, atol=1e-5)
    before = processed_sound.identify_processing(PrepareSpec(vocals="remove"))
    with torch.no_grad():
        next(iter(small.parameters())).add_(1.0)
    torch.save(small.state_dict(), place)
    assert processed_sound.identify_processing(PrepareSpec(vocals="remove")) != before
    vocals.load_separator.cache_clear()


def test_missing_weights_are_named_with_their_place_and_source(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path / "hub"))
    with pytest.raises(
        DatasetError,
        match=r"dataset\.prepare\.vocals is `remove`, but .*hub/torchaudio/models/hdemucs_high_trained\.pt is missing\. Get "
        r"it from https://download\.pytorch\.org/torchaudio/models/hdemucs_high_trained\.pt",
    ):
        prepare(folder, vocals="remove")


HALF = """
import json, sys, soundfile
given = json.load(sys.stdin)
open({calls!r}, 'a').write(given['path'] + chr(10))
audio, rate = soundfile.read(given['path'], dtype='float32')
soundfile.write({target}, audio[:, None].repeat(2, 1) / 2, rate, subtype='FLOAT')
print('working')
print({target})
"""


@pytest.mark.parametrize("target", ["given['output']", "given['output'] + '.other.wav'"])
def test_a_program_gets_json_and_its_sound_is_used_and_kept_by_content(folder, tmp_path, target):
    calls = tmp_path / "calls"
    command = [sys.executable, "-c", HALF.format(calls=str(calls), target=target)]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    manifest = prepare(folder, command=command)
    assert np.allclose(
        load_track(manifest, "1.wav"), load_track(prepare(folder, remove_dc=True), "1.wav") / 2, atol=1e-3
    )
    assert sorted(calls.read_text().split()) == [str(folder / f"{index}.wav") for index in range(4)]
    prepare(folder, command=command, loudness_lufs=-20)
    assert len(calls.read_text().split()) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not list((tmp_path / "cache" / "processed").glob("*/tmp*"))


def test_arguments_can_name_the_files(folder):
    code = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
    manifest = prepare(folder, command=[sys.executable, "-c", code, "{path}", "{output}"])
    assert np.array_equal(
        load_track(manifest, "2.wav"), load_track(prepare(folder, trim_silence_db=-100), "2.wav")
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no licence')", r"ended with exit code 1 \(no licence\)"),
        ("pass", r"neither wrote \{output\} nor printed a path"),
        ("print('/nowhere/x.wav')", r"made x\.wav, which cannot be read \(No such file"),
        ("import sys; open(sys.argv[1], 'w').write('hello')", r"made output\.wav, which cannot be decoded"),
    ],
)
def test_a_program_that_fails_is_an_error_that_names_the_track(folder, code, message):
    with pytest.raises(
        DatasetError, match=rf"dataset\.prepare\.command: .* for \d\.wav {message}.*by hand, or correct"
    ):
        prepare(folder, command=[sys.executable, "-c", code, "{output}"])


def test_a_program_that_never_ends_is_stopped(folder, monkeypatch):
    monkeypatch.setattr(processed_sound, "RECORDING_TIMEOUT_S", 0.2)
    with pytest.raises(DatasetError, match=r"for \d\.wav did not end within 0\.2 s"):
        prepare(folder, command=[sys.executable, "-c", "import time; time.sleep(20)"])
