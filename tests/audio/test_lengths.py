"""Lengths by what is in a file: headers that are wrong, files that are cut, joined, garbled or no audio."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from lora_bench.audio import load_audio, read_header
from lora_bench.errors import AudioFileError

RATE_HZ = 44_100
CHUNKED = {"wav": "WAV", "rf64": "RF64", "w64": "W64", "aiff": "AIFF", "caf": "CAF", "au": "AU"}
CODED = {"flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}
# offset of the size of the sound behind this mark, its bytes and its byte order
SIZES = {
    "wav": (b"data", 4, 4, "little"), "rf64": (b"ds64", 16, 8, "little"), "w64": (b"data\xf3\xac", 16, 8, "little"),
    "aiff": (b"SSND", 4, 4, "big"), "caf": (b"data", 4, 8, "big"), "au": (b".snd", 8, 4, "big"),
}  # fmt: skip


def make_music(duration_s: float, seed: int = 0, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """Noise under a tone, [S, 2]: nothing that a codec shortens."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).normal(0.0, 0.03, (time_s.size, 2))
    return (0.2 * np.sin(2 * np.pi * 300 * (seed + 1) * time_s)[:, None] + noise).astype(np.float32)


@cache
def encode(kind: str, duration_s: float = 1.0, seed: int = 0) -> bytes:
    """A file of one of the kinds above."""
    rate_hz = 48_000 if kind == "opus" else RATE_HZ
    container, subtype = (CHUNKED[kind], "PCM_16") if kind in CHUNKED else CODED[kind]
    stream = io.BytesIO()
    soundfile.write(stream, make_music(duration_s, seed, rate_hz), rate_hz, format=container, subtype=subtype)
    return stream.getvalue()


@cache
def encode_variable(duration_s: float, *, with_header: bool = True) -> bytes:
    """An mp3 whose loud first frame says nothing of the quiet rest."""
    music = make_music(duration_s)
    music[RATE_HZ // 2 :] *= 0.003
    stream = io.BytesIO()
    soundfile.write(stream, music, RATE_HZ, format="MP3", bitrate_mode="VARIABLE", compression_level=0.1)
    data = stream.getvalue()
    return data if with_header else data[data.find(data[:2], 100) :]


def encode_with_ffmpeg(
    path: Path, codec: str, container: str, options: dict[str, str] | None = None
) -> bytes:
    """A second in a container of FFmpeg's."""
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ
    music = make_music(1.0, rate_hz=rate_hz)
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate_hz)
        stream.layout = "stereo"
        sample_format, size = stream.codec_context.format.name, stream.codec_context.frame_size or 4096
        to_format = av.AudioResampler(format=sample_format, layout="stereo", rate=rate_hz, frame_size=size)
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(music.T), format="fltp", layout="stereo")
        whole.sample_rate, whole.pts = rate_hz, 0
        for frame in [*to_format.resample(whole), *to_format.resample(None), None]:
            output.mux(stream.encode(frame))
    return path.read_bytes()


def measure(path: Path) -> float:
    """Seconds, by both readers, which must agree."""
    header = read_header(path)
    audio, rate_hz = load_audio(path)
    assert (header.sample_rate_hz, header.channels) == (rate_hz, audio.shape[0])
    assert header.duration_s == pytest.approx(audio.shape[1] / rate_hz, abs=0.06)
    return header.duration_s


def refuse(path: Path) -> str:
    """The reason for which both readers refuse a file."""
    reasons: list[str] = []
    for read in (read_header, load_audio):
        with pytest.raises(AudioFileError) as caught:
            read(path)
        assert caught.value.path == str(path)
        reasons.append(caught.value.reason)
    return reasons[1]


def set_size(kind: str, data: bytes, change: Callable[[int, int], int]) -> bytes:
    """A file with another size of its sound in the header: `change` gets the right one and the highest."""
    mark, offset, n_bytes, order = SIZES[kind]
    place = data.index(mark) + offset
    right = int.from_bytes(data[place : place + n_bytes], order)  # pyright: ignore[reportArgumentType]
    wrong = change(right, 2 ** (8 * n_bytes) - 1)
    return data[:place] + wrong.to_bytes(n_bytes, order) + data[place + n_bytes :]  # pyright: ignore[reportArgumentType]


WRONG_SIZES: dict[str, Callable[[int, int], int]] = {
    "never filled in": lambda right, highest: 0,
    "streamed": lambda right, highest: highest,
    "wrapped": lambda right, highest: right // 10,
    "a few bytes more": lambda right, highest: right + 16,
}


@pytest.mark.parametrize("wrong", WRONG_SIZES)
@pytest.mark.parametrize("kind", CHUNKED)
def test_a_size_in_the_header_that_is_wrong_does_not_shorten_the_sound(
    tmp_path: Path, kind: str, wrong: str
) -> None:
    path = tmp_path / f"song.{kind}"
    right = encode(kind)
    path.write_bytes(right)
    expected, _ = load_audio(path)
    path.write_bytes(set_size(kind, right, WRONG_SIZES[wrong]))
    assert measure(path) == pytest.approx(1.0, abs=0.01)
    audio, _ = load_audio(path)
    np.testing.assert_array_equal(audio[:, : expected.shape[1] - 64], expected[:, :-64])


@pytest.mark.parametrize("size", [0, 36, 4088, 2**32 - 1, 10**9])
def test_the_size_of_the_whole_file_in_a_wav_may_be_anything(tmp_path: Path, size: int) -> None:
    data = encode("wav")
    (tmp_path / "song.wav").write_bytes(data[:4] + struct.pack("<I", size) + data[8:])
    assert measure(tmp_path / "song.wav") == pytest.approx(1.0)


def test_chunks_in_front_of_and_behind_the_sound_are_no_sound(tmp_path: Path) -> None:
    data = encode("wav")
    place = data.index(b"data")
    filler = b"FLLR" + struct.pack("<I", 4044) + bytes(4044)
    notes = b"LIST" + struct.pack("<I", 8) + b"INFOabcd"
    (tmp_path / "song.wav").write_bytes(data[:place] + filler + data[place:] + notes)
    assert read_header(tmp_path / "song.wav").duration_s == 1.0
    unfinished = set_size("wav", data[:place] + filler + data[place:], lambda right, highest: 0)
    (tmp_path / "song.wav").write_bytes(unfinished)
    assert measure(tmp_path / "song.wav") == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [*CHUNKED, *CODED])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_file_of_which_a_part_is_missing_is_refused_by_both_readers(
    tmp_path: Path, kind: str, share: float
) -> None:
    data = encode(kind)
    path = tmp_path / f"song.{kind}"
    path.write_bytes(data[: int(share * len(data))])
    assert refuse(path).startswith(("is cut off (", "is damaged ("))


@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".ogg", ".m4a", ""])
def test_an_mp3_of_variable_bitrate_is_read_whole_under_any_name(
    tmp_path: Path, suffix: str, with_header: bool
) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(encode_variable(3.0, with_header=with_header))
    assert measure(path) == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize("times", [0.3, 3.0])
def test_a_wrong_number_of_frames_in_an_mp3_is_not_believed(tmp_path: Path, times: float) -> None:
    data = bytearray(encode_variable(3.0))
    place = next(data.index(mark) for mark in (b"Xing", b"Info") if mark in data) + 8
    n_frames = int.from_bytes(data[place : place + 4], "big")
    data[place : place + 4] = int(times * n_frames).to_bytes(4, "big")
    (tmp_path / "song.mp3").write_bytes(data)
    assert measure(tmp_path / "song.mp3") == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize(
    ("size", "filler"), [(b"\0\x7f\x7f\x7f", 2**21 - 1), (b"\x7f\x7f\x7f\x7f", 100), (b"\0\0\x02\0", 100)]
)
def test_a_tag_in_front_of_an_mp3_may_be_large_or_lie_about_its_size(
    tmp_path: Path, size: bytes, filler: int
) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3\x03\0\0" + size + bytes(filler) + encode_variable(3.0))
    assert measure(tmp_path / "song.mp3") == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("kind", [*CHUNKED, *CODED])
def test_every_kind_is_read_by_its_content_behind_a_tag_and_under_a_wrong_name(
    tmp_path: Path, kind: str
) -> None:
    data = encode(kind)
    for place, suffix in enumerate((".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aiff")):
        path = tmp_path / f"{place}{suffix}"
        path.write_bytes(data)
        assert measure(path) == pytest.approx(1.0, abs=0.06)
    (tmp_path / "tagged.wav").write_bytes(b"ID3\x03\0\0\0\0\x04\0" + bytes(512) + data)
    assert measure(tmp_path / "tagged.wav") == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("total", [0, 10_000, 10**7, None])
def test_the_number_of_samples_in_a_flac_is_checked_against_its_last_frame(
    tmp_path: Path, total: int | None
) -> None:
    data = bytearray(encode("flac"))
    if total is not None:
        data[21] &= 0xF0
        data[22:26] = total.to_bytes(4, "big")
    path = tmp_path / "song.flac"
    path.write_bytes(data)
    if total == 10**7:
        assert refuse(path) == "is cut off (its header promises 10000000 samples, there are 44100)"
    else:
        assert measure(path) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_all_links_of_a_chained_ogg_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"song.{kind}"
    path.write_bytes(encode(kind, 1.0) + encode(kind, 3.0, seed=1))
    assert measure(path) == pytest.approx(4.0, abs=0.05)
    path.write_bytes(encode(kind) * 2)  # the same serial number twice
    assert measure(path) == pytest.approx(2.0, abs=0.05)


def test_a_chained_ogg_that_changes_its_rate_is_refused(tmp_path: Path) -> None:
    other = io.BytesIO()
    soundfile.write(other, make_music(1.0, rate_hz=22_050), 22_050, format="OGG", subtype="VORBIS")
    (tmp_path / "song.ogg").write_bytes(encode("ogg") + other.getvalue())
    assert refuse(tmp_path / "song.ogg").startswith("changes rate or channels midway")


@pytest.mark.parametrize("kind", ["wav", "rf64", "w64", "aiff", "caf", "au", "flac"])
def test_joined_files_of_which_only_the_first_would_be_read_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"song.{kind}"
    path.write_bytes(encode(kind) * 2)
    with pytest.raises(AudioFileError, match="holds a second sound file behind the first one; split it"):
        load_audio(path)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libopus", "webm", {}), ("libopus", "webm", {"live": "1"}), ("flac", "matroska", {}), ("flac", "ogg", {}),
        ("aac", "mp4", {}), ("aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}), ("aac", "adts", {}),
        ("ac3", "ac3", {}), ("mp2", "mp2", {}),
    ],
)  # fmt: skip
def test_what_libsndfile_does_not_open_is_measured_and_read_with_ffmpeg(
    tmp_path: Path, codec: str, container: str, options: dict[str, str]
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(encode_with_ffmpeg(tmp_path / "made", codec, container, options))
    assert measure(path) == pytest.approx(1.0, abs=0.06)


def test_a_cut_mp4_is_refused_by_both_readers(tmp_path: Path) -> None:
    data = encode_with_ffmpeg(tmp_path / "made", "aac", "mp4", {"movflags": "faststart"})
    path = tmp_path / "song.m4a"
    path.write_bytes(data[: len(data) * 6 // 10])
    assert refuse(path).startswith("is damaged (its header promises 4")


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".m4a"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a pointer of Git LFS"),
        (b"/annex/objects/SHA256E-s9--00.wav\n", "is a pointer of git-annex"),
        (b"\r\n<!-- cached --><!DOCTYPE html><html></html>", "is a web page (HTML)"),
        (b'{"error": "not found"}', 'it is text that begins with `{"error": "not found"}`'),
        ("nur Text: \xe4".encode("utf-16"), "it is text that begins with `nur Text: \xe4`"),
        (b"PK\x03\x04" + bytes(range(256)), "is a compressed archive; unpack it"),
        (bytes(5000), "it begins with zero bytes only: an unfinished download?"),
        (np.random.default_rng(0).bytes(20_000), "cannot be decoded (FFmpeg: "),
    ],
    ids=["empty", "lfs", "annex", "html", "json", "utf-16", "zip", "zeros", "noise"],
)
def test_what_is_no_audio_is_called_what_it_is(tmp_path: Path, suffix: str, data: bytes, words: str) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(data)
    assert words in refuse(path)


def test_a_pipe_and_a_socket_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert refuse(tmp_path / "pipe.wav") == "cannot be read (it is a named pipe, not a file)"
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.wav")
        assert refuse(tmp_path / "socket.wav") == "cannot be read (it is a socket, not a file)"


@pytest.mark.parametrize("rate_hz", [0, 1, 2**31])
def test_an_impossible_rate_is_refused_before_anything_is_resampled(tmp_path: Path, rate_hz: int) -> None:
    data = bytearray(encode("wav"))
    data[24:28] = struct.pack("<I", rate_hz)
    (tmp_path / "song.wav").write_bytes(data)
    assert refuse(tmp_path / "song.wav")


def garble(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Damage as disks, networks and people do it."""
    garbled = bytearray(data)
    how = draw.choice(["cut", "bytes", "head", "zeros", "joined"])
    if how == "cut":
        return data[: draw.randrange(len(data))]
    if how == "joined":
        return other[: draw.randrange(len(other))] + data
    if how == "zeros":
        place = draw.randrange(len(data))
        garbled[place : place + draw.randrange(2000)] = bytes(draw.randrange(2000))
        return bytes(garbled)
    reach = len(data) if how == "bytes" else min(200, len(data))
    for _ in range(draw.randrange(1, 20)):
        garbled[draw.randrange(reach)] = draw.choice([0, 255, draw.randrange(256)])
    return bytes(garbled)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A short file of each kind."""
    made = tmp_path_factory.mktemp("whole") / "made"
    files = {kind: encode(kind, 0.5) for kind in [*CHUNKED, *CODED]}
    for codec, container in (
        ("aac", "mp4"),
        ("aac", "adts"),
        ("libopus", "webm"),
        ("flac", "matroska"),
        ("flac", "ogg"),
    ):
        files[f"{codec}-{container}"] = encode_with_ffmpeg(made, codec, container)
    return files


@pytest.mark.parametrize("seed", range(6))
def test_a_garbled_file_of_any_kind_is_read_or_refused_by_name(
    tmp_path: Path, whole_files: dict[str, bytes], seed: int
) -> None:
    draw = random.Random(seed)
    for kind, data in whole_files.items():
        path = tmp_path / f"song.{kind}"
        path.write_bytes(garble(data, draw.choice(list(whole_files.values())), draw))
        for read in (read_header, load_audio):
            try:
                read(path)
            except AudioFileError as error:
                assert error.path == str(path)
                assert error.reason
