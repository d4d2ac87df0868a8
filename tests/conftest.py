"""Shared by all tests: no network, and small sounds in real files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="lora-bench-tests-")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# compiled functions are shared by all workers, their child processes and the next run
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba"))
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support.browser import Page

EXTRAS = ("audiocraft", "frechet_audio_distance", "hatchling", "musicnn", "optuna")
SNDFILE_KINDS = {
    ".opus": {"format": "OGG", "subtype": "OPUS"},
    ".oga": {"format": "OGG", "subtype": "VORBIS"},
    ".aif": {"format": "AIFF"},
}


def pytest_sessionstart() -> None:
    """`make` installs all extras, so that nothing is skipped there for want of one."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing and os.environ.get("LORA_BENCH_ALL_EXTRAS"):
        raise pytest.UsageError(f"not installed: {', '.join(missing)}; LORA_BENCH_ALL_EXTRAS=1 asks for them")


@pytest.fixture(scope="session")
def make_tone() -> Callable[..., NDArray[np.float32]]:
    """A sine, float32 [C, S]; every channel is half as loud as the one before."""

    def make(
        duration_s: float = 1.0, rate_hz: int = 16_000, *, channels: int = 1, tone_hz: float = 440.0
    ) -> NDArray[np.float32]:
        time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
        tone = 0.4 * np.sin(2.0 * np.pi * tone_hz * time_s)
        return np.stack([tone * 0.5**channel for channel in range(channels)]).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def save_sound() -> Callable[..., Path]:
    """Writes [C, S] to a file in the format of its suffix, m4a and aac by FFmpeg; makes its folders."""

    def save(path: Path, audio: NDArray[np.float32], rate_hz: int = 16_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in {".m4a", ".aac"}:
            soundfile.write(path, audio.T, rate_hz, **SNDFILE_KINDS.get(path.suffix, {}))
            return path
        layout = "mono" if len(audio) == 1 else "stereo"
        container_format = "adts" if path.suffix == ".aac" else "mp4"
        # the index in front, as shops sell it: a cut file can then be opened
        options = {"movflags": "faststart"} if container_format == "mp4" else {}
        with av.open(str(path), "w", format=container_format, options=options) as container:
            stream = container.add_stream("aac", rate=rate_hz, layout=layout)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout=layout)
            frame.sample_rate = rate_hz
            container.mux([*stream.encode(frame), *stream.encode(None)])
        return path

    return save


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of Chromium; an error says what is missing where there is none."""
    page = Page(tmp_path_factory.mktemp("profile"))
    try:
        yield page
    finally:
        page.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB of its own; the test is skipped where one cannot be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system of its own can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
