"""A tiny model and a tiny prepared dataset for tests of tokens, training and generation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.artifacts import AudioFormat, Manifest, Slice, Split, Track
from lora_bench.models import load_model
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import ModelSpec

RATE_HZ = TINY.sample_rate_hz
HOP = 32


class Recorder(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0
        self.messages: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages.append((stage, total))

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.done += n

    def log(self, message: str) -> None:
        self.messages.append(message)


def load_tiny(folder: Path) -> TransformersMusicGen:
    if not (folder / "config.json").is_file():
        save_random_musicgen(folder, TINY)
    return load_model(ModelSpec(id=str(folder)), device="cpu")


def make_manifest(
    folder: Path,
    *,
    tracks: Sequence[tuple[Split, float]] = (("train", 2.5), ("train", 2.0), ("train", 1.0), ("eval", 1.5)),
    clip_s: float = 1.0,
    captions: Sequence[str] = ("a song", "another longer song"),
    seed: int = 0,
) -> Manifest:
    """Tracks of noise, cut into slices of `clip_s`; captions take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    n_samples = round(clip_s * RATE_HZ)
    made: list[Track] = []
    slices: list[Slice] = []
    for number, (split, duration_s) in enumerate(tracks):
        audio = rng.normal(0, 0.2, (1, round(duration_s * RATE_HZ))).astype(np.float32)
        file = folder / f"{number}.npy"
        np.save(file, audio)
        caption = captions[number % len(captions)]
        made.append(Track(f"track{number}", f"{number}.wav", file, caption, split, duration_s))
        for offset in range(0, audio.shape[1], n_samples):
            n_valid = min(n_samples, audio.shape[1] - offset)
            slices.append(Slice(f"track{number}", split, offset, n_samples, n_valid, caption))
    return Manifest(
        key=f"key-{seed}-{clip_s}",
        name="noise",
        folder=folder,
        format=AudioFormat(RATE_HZ, 1),
        clip_s=clip_s,
        tracks=tuple(made),
        excluded=(),
        slices=tuple(slices),
        resampler="none",
    )
