from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import resample_poly

from lora_bench.audio import (
    AUDIO_SUFFIXES,
    RESAMPLER,
    list_folder,
    load_audio,
    resample,
    save_wav,
    to_channels,
)
from lora_bench.errors import AudioFileError, DatasetError

RATES_HZ = {".opus": 48_000}


def find_peak_hz(audio, rate_hz):
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return np.argmax(spectrum) * rate_hz / len(audio)


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_its_rate_channels_and_tone(tmp_path, make_tone, save_sound, suffix, channels):
    rate_hz = RATES_HZ.get(suffix, 44_100)
    tone = make_tone(2.0, rate_hz, channels=channels, tone_hz=1000.0)
    audio, loaded_hz = load_audio(save_sound(tmp_path / f"song{suffix}", tone, rate_hz))
    assert (audio.dtype, loaded_hz, audio.shape[0]) == (np.float32, rate_hz, channels)
    assert audio.flags.c_contiguous
    assert tone.shape[1] <= audio.shape[1] <= tone.shape[1] + 4096  # aac pads to whole frames
    middle = audio[:, rate_hz // 2 : rate_hz * 3 // 2]
    assert find_peak_hz(middle[0], rate_hz) == pytest.approx(1000.0, abs=1.0)
    levels = np.sqrt((middle**2).mean(axis=1))
    assert levels[0] == pytest.approx(0.4 / np.sqrt(2.0), rel=0.05)
    if channels == 2:
        assert levels[1] / levels[0] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "MS_ADPCM"])
def test_every_wav_subtype_is_scaled_to_full_scale_one(tmp_path, make_tone, subtype):
    tone = make_tone(0.5)
    soundfile.write(tmp_path / "song.wav", tone.T, 16_000, subtype=subtype)
    audio, _ = load_audio(tmp_path / "song.wav")
    np.testing.assert_allclose(audio[:, : tone.shape[1]], tone, atol=0.02)


def test_an_m4a_that_is_named_wav_is_read_all_the_same(tmp_path, make_tone, save_sound):
    source = save_sound(tmp_path / "song.m4a", make_tone(1.0))
    source.rename(tmp_path / "song.wav")
    audio, rate_hz = load_audio(tmp_path / "song.wav")
    assert rate_hz == 16_000
    assert find_peak_hz(audio[0], rate_hz) == pytest.approx(440.0, abs=2.0)


def test_a_variable_bitrate_mp3_without_a_length_header_is_read_to_its_end(tmp_path, make_tone, save_sound):
    tone = make_tone(4.0, 44_100, channels=2)
    whole = save_sound(tmp_path / "whole.mp3", tone, 44_100).read_bytes()
    assert b"Xing" in whole[:200] or b"Info" in whole[:200]
    second_frame = whole.find(whole[:2], 200)
    (tmp_path / "bare.mp3").write_bytes(whole[second_frame:])
    with soundfile.SoundFile(tmp_path / "bare.mp3") as sound:
        assert sound.frames < tone.shape[1] / 2, "libsndfile guesses right now: mp3 could go back to it"
    audio, _ = load_audio(tmp_path / "bare.mp3")
    assert audio.shape[1] >= tone.shape[1]


def test_an_mp3_with_a_tag_behind_its_last_frame_is_read(tmp_path, make_tone, save_sound):
    path = save_sound(tmp_path / "song.mp3", make_tone(2.0, 44_100), 44_100)
    path.write_bytes(path.read_bytes() + b"TAG" + b"some title".ljust(125, b"\0"))
    assert load_audio(path)[0].shape[1] >= 2 * 44_100


def test_an_empty_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "song.wav").touch()
    with pytest.raises(AudioFileError, match=r"song\.wav: is empty \(0 bytes\)"):
        load_audio(tmp_path / "song.wav")


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AudioFileError, match=r"song\.wav: cannot be read \(No such file or directory\)"):
        load_audio(tmp_path / "song.wav")


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
@pytest.mark.parametrize("content", ["noise", "text", "zeros"])
def test_a_file_that_is_not_audio_is_an_error_that_names_it(tmp_path, suffix, content):
    data = {
        "noise": np.random.default_rng(0).bytes(20_000),
        "text": b"these are the lyrics\n" * 500,
        "zeros": bytes(20_000),
    }
    path = tmp_path / f"song{suffix}"
    path.write_bytes(data[content])
    with pytest.raises(AudioFileError) as caught:
        load_audio(path)
    assert caught.value.path == str(path)
    assert "decoded" in caught.value.reason


def test_a_picture_is_not_audio(tmp_path):
    with av.open(str(tmp_path / "cover.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (tmp_path / "cover.mp4").rename(tmp_path / "cover.m4a")
    with pytest.raises(AudioFileError, match="holds no audio stream"):
        load_audio(tmp_path / "cover.m4a")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, make_tone, save_sound, suffix):
    rate_hz = RATES_HZ.get(suffix, 44_100)
    noise = np.random.default_rng(0).normal(0.0, 0.1, (2, 6 * rate_hz)).astype(np.float32)
    path = save_sound(tmp_path / f"song{suffix}", noise, rate_hz)
    load_audio(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(AudioFileError, match=r"cut off|damaged"):
        load_audio(path)


def test_damage_that_ffmpeg_would_conceal_is_an_error(tmp_path, save_sound):
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, 64_000)).astype(np.float32)
    path = save_sound(tmp_path / "song.flac", noise)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 50_000
    with pytest.raises(AudioFileError, match=r"song\.flac: is damaged \(libsndfile: .*lost sync"):
        load_audio(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_an_error(tmp_path, make_tone, bad):
    tone = make_tone(0.1)
    tone[0, 7] = bad
    soundfile.write(tmp_path / "song.wav", tone.T, 16_000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"song\.wav: holds NaN or infinite samples"):
        load_audio(tmp_path / "song.wav")


def test_a_file_without_samples_is_an_error(tmp_path):
    soundfile.write(tmp_path / "song.wav", np.zeros((0, 1)), 16_000)
    with pytest.raises(AudioFileError, match="holds no samples"):
        load_audio(tmp_path / "song.wav")


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 16_000), (48_000, 32_000), (22_050, 32_000)])
def test_resampling_agrees_with_scipy(from_hz, to_hz):
    # below both Nyquist frequencies, where the two filters agree
    time_s = np.arange(from_hz) / from_hz
    audio = np.stack([np.sin(2 * np.pi * f * time_s) for f in (440.0, 3000.0)]).astype(np.float32)
    ours = resample(audio, from_hz, to_hz)
    divisor = np.gcd(from_hz, to_hz)
    theirs = resample_poly(audio.astype(np.float64), to_hz // divisor, from_hz // divisor, axis=1)
    assert ours.dtype == np.float32
    assert ours.shape == (2, to_hz)
    edge = to_hz // 10
    np.testing.assert_allclose(ours[:, edge:-edge], theirs[:, edge:-edge], atol=3e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold(make_tone):
    above = make_tone(1.0, 44_100, tone_hz=12_000.0)
    assert np.abs(resample(above, 44_100, 16_000)[:, 2000:-2000]).max() < 1e-4


def test_resampling_to_the_same_rate_changes_nothing(make_tone):
    tone = make_tone()
    assert resample(tone, 16_000, 16_000) is tone


@given(
    n_samples=st.integers(1, 5000),
    from_hz=st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000]),
    to_hz=st.sampled_from([16_000, 32_000, 44_100]),
)
def test_resampling_gives_the_rounded_number_of_samples(n_samples, from_hz, to_hz):
    resampled = resample(np.zeros((1, n_samples), np.float32), from_hz, to_hz)
    assert abs(resampled.shape[1] - n_samples * to_hz / from_hz) <= 0.5


def test_the_resampler_is_named_with_its_version():
    assert f"soxr-hq {soxr.__version__}" == RESAMPLER


def test_mono_is_the_mean_of_all_channels():
    stereo = np.array([[1.0, 0.5], [0.0, -0.5]], np.float32)
    np.testing.assert_array_equal(to_channels(stereo, 1), [[0.5, 0.0]])


def test_stereo_of_mono_repeats_it_and_of_surround_is_the_front_pair():
    mono = np.array([[1.0, 0.5]], np.float32)
    np.testing.assert_array_equal(to_channels(mono, 2), [[1.0, 0.5]] * 2)
    surround = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(to_channels(surround, 2), surround[:2])


@given(arrays(np.int16, st.tuples(st.integers(1, 2), st.integers(1, 200))))
def test_sixteen_bit_samples_survive_saving_and_loading(tmp_path_factory, pcm):
    path = tmp_path_factory.mktemp("wav") / "song.wav"
    audio = pcm.astype(np.float32) / 32768.0
    save_wav(path, audio, 16_000)
    loaded, rate_hz = load_audio(path)
    np.testing.assert_array_equal(loaded, audio)
    assert rate_hz == 16_000


def test_saving_rounds_to_nearest_and_clips_at_full_scale(tmp_path):
    audio = np.array([[2.0, -2.0, 0.6 / 32768, -0.6 / 32768, 0.4 / 32768]], np.float32)
    save_wav(tmp_path / "song.wav", audio, 32_000)
    pcm, _ = soundfile.read(tmp_path / "song.wav", dtype="int16")
    assert pcm.tolist() == [32767, -32768, 1, -1, 0]
    assert soundfile.info(tmp_path / "song.wav").subtype == "PCM_16"


def test_saving_is_atomic_and_leaves_no_other_file(tmp_path, make_tone, monkeypatch):
    path = tmp_path / "clips" / "000.wav"
    save_wav(path, make_tone(0.1), 16_000)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        save_wav(path, make_tone(0.2), 16_000)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_samples_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(AudioFileError, match=r"song\.wav: not written, because the samples hold NaN"):
        save_wav(tmp_path / "song.wav", np.full((1, 4), np.nan, np.float32), 16_000)
    assert not (tmp_path / "song.wav").exists()


def test_audio_files_are_found_at_any_depth_sorted_and_without_hidden_ones(tmp_path):
    names = ["b.WAV", "a.flac", "deep/er/c.Ogg", "._b.wav", ".hidden/d.wav", "notes.txt", "cover.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_folder(tmp_path).files]
    assert found == ["a.flac", "b.WAV", "deep/er/c.Ogg"]


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    music = tmp_path / "music"
    (tmp_path / "elsewhere").mkdir()
    music.mkdir()
    (tmp_path / "elsewhere" / "a.wav").touch()
    (music / "linked").symlink_to(tmp_path / "elsewhere")
    (music / "circle").symlink_to(music)
    assert [path.name for path in list_folder(music).files] == ["a.wav"]


def test_listing_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: does not exist; expected a folder of audio files"):
        list_folder(Path(tmp_path / "nowhere"))
