"""Another system's files in the model's format."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_bench.artifacts import AudioFormat
from lora_bench.errors import AudioFileError
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.external.importing import ImportedClips, import_clips

MONO = AudioFormat(sample_rate_hz=16_000, channels=1)


def take(
    place: Path, files: dict[int, Path], audio_format: AudioFormat = MONO, clip_s: float = 1.0
) -> ImportedClips:
    generation = GenerationSpec(n_clips=2, clip_s=clip_s)
    return import_clips({"p": files}, generation, audio_format, place / "clips", SilentProgress())


def write_sine(path: Path, *, rate_hz: int = 44_100, channels: int = 2, length_s: float = 1.5) -> Path:
    times_s = np.arange(round(length_s * rate_hz)) / rate_hz
    levels = np.array([0.4, 0.2])[:channels]
    audio = np.asarray(np.sin(2 * np.pi * 440.0 * times_s)[:, None] * levels, dtype=np.float64)
    soundfile.write(path, audio, rate_hz, subtype="FLOAT")
    return path


def test_files_are_resampled_mixed_and_cut_and_the_notes_say_so(tmp_path: Path) -> None:
    found = take(
        tmp_path, {0: write_sine(tmp_path / "a.wav"), 1: write_sine(tmp_path / "b.wav", length_s=2.0)}
    )
    files = found.clips["p"].files
    assert [file.name for file in files] == ["000.wav", "001.wav"]
    audio, rate_hz = soundfile.read(files[0], always_2d=True)
    assert (rate_hz, audio.shape) == (16_000, (16_000, 1))
    expected = 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(16_000) / 16_000)  # the mean of both channels
    np.testing.assert_allclose(audio[200:-200, 0], expected[200:-200], atol=1e-3)
    assert found.notes[0].startswith("files of 44100 Hz, 2 channel(s) were brought to 16000 Hz, 1 channel(s)")
    assert found.notes[1] == "2 files of 1.50 to 2.00 s were cut to 1 s"


def test_a_file_in_the_model_s_format_and_length_is_copied_without_a_note(tmp_path: Path) -> None:
    file = write_sine(tmp_path / "a.wav", rate_hz=16_000, channels=1, length_s=1.0)
    found = take(tmp_path, {0: file})
    assert found.notes == ()
    before, after = (soundfile.read(path)[0] for path in (file, found.clips["p"].files[0]))
    np.testing.assert_allclose(before, after, atol=1 / 32768)


def test_mono_files_fill_both_channels_of_a_stereo_model(tmp_path: Path) -> None:
    file = write_sine(tmp_path / "a.wav", channels=1)
    found = take(tmp_path, {0: file}, AudioFormat(sample_rate_hz=32_000, channels=2))
    audio = soundfile.read(found.clips["p"].files[0])[0]
    assert audio.shape == (32_000, 2)
    np.testing.assert_array_equal(audio[:, 0], audio[:, 1])


@pytest.mark.parametrize("clip_s", [1.0, 0.3333, 1.4999])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_all_clips_have_the_same_length(tmp_path: Path, clip_s: float, rate_hz: int) -> None:
    file = write_sine(tmp_path / "a.wav", rate_hz=rate_hz, length_s=round(clip_s * rate_hz) / rate_hz)
    found = take(tmp_path, {0: file}, clip_s=clip_s)
    assert soundfile.info(found.clips["p"].files[0]).frames == round(clip_s * 16_000)


def test_a_file_that_is_too_short_is_named_with_its_seconds_and_never_padded(tmp_path: Path) -> None:
    files = {0: write_sine(tmp_path / "long.wav"), 1: write_sine(tmp_path / "short.wav", length_s=0.9)}
    with pytest.raises(
        AudioFileError, match=r"short.wav: lasts 0.90 s; expected at least the 1 s of generation.clip_s"
    ):
        take(tmp_path, files)
    assert (tmp_path / "clips" / "p" / "000.wav").is_file()
    assert not (tmp_path / "clips" / "p" / "001.wav").exists()


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(20_000, np.inf), 16_000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"a\.wav: holds NaN or infinite samples"):
        take(tmp_path, {0: tmp_path / "a.wav"})


def test_clips_that_are_there_are_kept(tmp_path: Path) -> None:
    file = write_sine(tmp_path / "a.wav")
    first = take(tmp_path, {0: file}).clips["p"].files[0]
    before = first.stat().st_mtime_ns
    file.unlink()
    found = import_clips(
        {"p": {}}, GenerationSpec(n_clips=2, clip_s=1.0), MONO, tmp_path / "clips", SilentProgress()
    )
    assert found.clips["p"].files == (first,)
    assert first.stat().st_mtime_ns == before
