"""A stand-in for a GPU: training and generating sleep for a set time and leave deterministic adapters and clips.

Everything else of a run is real: data, states, features, guards, scores, files.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from torch import Tensor

from lora_bench.artifacts import LossPoint, TrainResult
from lora_bench.machine import gpus
from lora_bench.models import device
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import Decoder
from lora_bench.progress import Progress
from lora_bench.runner import experiment, trial
from lora_bench.runner.jobs.workers import Span, Workers
from lora_bench.stages import train


@dataclass
class Timeline:
    """What was done from when to when: by the GPU, by this process on the CPU, by workers."""

    gpu: list[Span] = field(default_factory=list)
    main: list[Span] = field(default_factory=list)
    workers: list[Span] = field(default_factory=list)


@contextmanager
def stand_in(train_s: float, clip_s: float) -> Iterator[Timeline]:
    """Replace the GPU.

    Args:
        train_s: how long a training takes.
        clip_s: how long a clip takes to generate.
    """
    timeline = Timeline()
    real_exit = Workers.__exit__

    def train_adapter(
        _: Any, model: MusicModel, lora: Any, spec: Any, seed: int, place: Path, *__: Any, **___: Any
    ) -> TrainResult:
        injection = model.inject_lora(lora, seed=seed)
        with _timed(timeline.gpu, "train"):
            time.sleep(train_s)
        curve = (
            LossPoint(0, None, 2.0, spec.peak_lr, 0.0),
            LossPoint(spec.steps, 2.0, 2.0, spec.peak_lr, train_s),
        )
        result = TrainResult(
            place / "adapter", injection.trainable_params, injection.matched_modules, curve, train_s, 0.0
        )
        model.save_adapter(result.adapter, {"train": spec, "train_seed": seed, "result": result})
        model.remove_adapter()
        return result

    def decode(self: Any, clip_ids: Sequence[int], n_frames: int, progress: Progress) -> Tensor:
        with _timed(timeline.gpu, "generate"):
            time.sleep(clip_s * len(clip_ids))
        progress.advance(n_frames * len(clip_ids))
        # other adapters, other clips: equal ones would be found in the cache
        size = sum(part.numel() for part in self._model.adapter_parameters().values())
        seeds = [f"{self._prompt} {clip} {size}" for clip in clip_ids]
        return torch.stack([_draw_codes(self._info, seed, n_frames) for seed in seeds])

    def leave(self: Workers, *arguments: Any) -> None:
        real_exit(self, *arguments)
        timeline.workers += self.spans

    with ExitStack() as stack:
        for place, name, new in (
            (gpus, "usable_gpus", lambda: gpus.Gpus({0: "stand-in"})),
            (device, "_choose_automatically", lambda: torch.device("cpu")),
            (train, "train_adapter", train_adapter),
            (Decoder, "decode", decode),
            (MusicModel, "encode_audio", _encode_audio),
            (MusicModel, "decode_audio", _decode_audio),
            (Workers, "__exit__", leave),
            (trial, "score_clips", _watch(trial.score_clips, timeline, "score")),
            (experiment, "_prepare", _watch(experiment._prepare, timeline, "prepare")),
        ):
            stack.enter_context(patch.object(place, name, new))
        yield timeline


def write_tunes(folder: Path, n_tracks: int, track_s: float, rate_hz: int = 32_000) -> None:
    """Write tunes of random notes."""
    folder.mkdir(parents=True)
    for track in range(n_tracks):
        noise = np.random.default_rng(track)
        tone_hz = 110.0 * 2.0 ** (noise.integers(0, 36, int(track_s * 4)) / 12.0)
        phase = np.cumsum(np.repeat(tone_hz, rate_hz // 4)) / rate_hz
        audio = 0.2 * np.sin(2 * np.pi * phase) + 0.01 * noise.standard_normal(len(phase))
        soundfile.write(folder / f"tune{track:02d}.wav", audio, rate_hz)


def _watch(function: Any, timeline: Timeline, what: str) -> Any:
    def timed(*arguments: Any, **options: Any) -> Any:
        with _timed(timeline.main, what):
            return function(*arguments, **options)

    return timed


@contextmanager
def _timed(spans: list[Span], what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    spans.append(Span(what, began_s, time.monotonic()))


def _draw_codes(info: Any, seed: str, n_frames: int) -> Tensor:
    noise = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16))
    return torch.from_numpy(noise.integers(0, info.codebook_size, (info.n_codebooks, n_frames)))


def _encode_audio(self: MusicModel, audio: np.ndarray) -> Tensor:
    n_frames = self.info.count_frames(audio.shape[-1])
    return torch.stack([_draw_codes(self.info, f"{float(one.sum()):.3f}", n_frames) for one in audio])


def _decode_audio(self: MusicModel, codes: Tensor) -> np.ndarray:
    """Every fifth frame of the first codebook is a note."""
    hop, form = self.info.hop_samples, self.info.audio_format
    tone_hz = 110.0 * 2.0 ** (codes[:, 0].numpy() % 36 / 12.0)
    tone_hz = np.repeat(np.repeat(tone_hz[:, ::5], 5, axis=1)[:, : codes.shape[-1]], hop, axis=1)
    audio = 0.2 * np.sin(2 * np.pi * np.cumsum(tone_hz, axis=1) / form.sample_rate_hz)
    return np.repeat(audio[:, None].astype(np.float32), form.channels, axis=1)
