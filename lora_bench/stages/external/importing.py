"""Clips of another system in the model's format: its sample rate and channels, all of one length, as `000.wav`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_bench.artifacts import AudioFormat, GeneratedClips
from lora_bench.audio import RESAMPLER, load_audio, resample, save_wav, to_channels
from lora_bench.progress import Progress
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.external.request import check_audio

N_FORMATS = 4


@dataclass(frozen=True)
class ImportedClips:
    """Clips of all prompts, and what was done to them, in sentences."""

    clips: Mapping[str, GeneratedClips]
    notes: tuple[str, ...]


def import_clips(
    files: Mapping[str, Mapping[int, Path]],
    generation: GenerationSpec,
    audio_format: AudioFormat,
    folder: Path,
    progress: Progress,
    former_notes: tuple[str, ...] = (),
) -> ImportedClips:
    """Write files as `folder/<slug>/000.wav`; clips that are there already are kept.

    Args:
        files: by prompt and index; those of clips that are there already may be absent.
        generation: number and length of the clips; longer files are cut at the end.
        audio_format: rate and channels, as those of the recordings that clips are compared with.
        folder: gets a folder per prompt.
        progress: advanced by clips.
        former_notes: what an earlier call noted of the clips that are kept.

    Raises:
        AudioFileError: a file is damaged, not finite or too short; names it.  Other clips are kept.
    """
    begin_s, clip_s = time.monotonic(), generation.clip_s
    progress.start("import", total=sum(map(len, files.values())))
    formats: dict[str, None] = {}
    cut_s: list[float] = []
    made: dict[str, GeneratedClips] = {}
    for prompt, slug in prompt_slugs(list(files)).items():
        place = folder / slug
        for index, file in sorted(files[prompt].items()):
            target = place / f"{index:03d}.wav"
            if not target.is_file():
                audio, rate_hz = load_audio(file)
                check_audio(file, audio, rate_hz, clip_s)
                formats[f"{rate_hz} Hz, {audio.shape[0]} channel(s)"] = None
                if audio.shape[1] > math.ceil(clip_s * rate_hz):
                    cut_s.append(audio.shape[1] / rate_hz)
                save_wav(target, _fit(audio, rate_hz, clip_s, audio_format), audio_format.sample_rate_hz)
            progress.advance()
        places = (place / f"{index:03d}.wav" for index in range(generation.n_clips))
        made[prompt] = GeneratedClips(
            prompt, tuple(path for path in places if path.is_file()), time.monotonic() - begin_s
        )
    notes = _describe(formats, cut_s, clip_s, audio_format)
    return ImportedClips(made, tuple(dict.fromkeys((*former_notes, *notes))))


def _fit(audio: np.ndarray, rate_hz: int, clip_s: float, audio_format: AudioFormat) -> np.ndarray:
    """Cut samples [C, S] to a clip, and bring them to a format."""
    n_samples = round(clip_s * audio_format.sample_rate_hz)
    audio = to_channels(audio[:, : math.ceil(clip_s * rate_hz)], audio_format.channels)
    fitted = resample(audio, rate_hz, audio_format.sample_rate_hz)[:, :n_samples]
    # a length that is no whole number of samples at the file's rate lacks a part of its last one
    return np.pad(fitted, ((0, 0), (0, n_samples - fitted.shape[1])), mode="edge")


def _describe(
    formats: Mapping[str, None], cut_s: list[float], clip_s: float, audio_format: AudioFormat
) -> list[str]:
    own = f"{audio_format.sample_rate_hz} Hz, {audio_format.channels} channel(s)"
    notes: list[str] = []
    others = [name for name in formats if name != own]
    if others:
        more = f" and {len(others) - N_FORMATS} other formats" if len(others) > N_FORMATS else ""
        notes.append(
            f"files of {' and '.join(others[:N_FORMATS])}{more} were brought to {own}, those of the recordings "
            f"({RESAMPLER})"
        )
    if cut_s:
        lengths = " to ".join(dict.fromkeys(f"{length_s:.2f}" for length_s in (min(cut_s), max(cut_s))))
        notes.append(f"{len(cut_s)} files of {lengths} s were cut to {clip_s:g} s")
    return notes
