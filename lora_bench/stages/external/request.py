"""What a command is asked for, and what it has written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_bench.audio import load_audio
from lora_bench.errors import AudioFileError, LoraBenchError
from lora_bench.store import JsonObject

SCHEMA = 1


@dataclass(frozen=True)
class WantedClip:
    """One clip that a command has to write."""

    index: int
    seed: int
    file: Path


@dataclass(frozen=True)
class WantedPrompt:
    """The clips of one prompt that are missing.

    Attributes:
        n_clips: clips of the prompt in all.
    """

    prompt: str
    slug: str
    n_clips: int
    clips: tuple[WantedClip, ...]


def make_seed(seed: int, prompt: str, index: int) -> int:
    """Return the seed of a clip, below 2^31: it depends on nothing but these."""
    digest = hashlib.sha256(f"{seed}\n{index}\n{prompt}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def write_request(wanted: Sequence[WantedPrompt], clip_s: float, settings: JsonObject) -> JsonObject:
    """Return a request as JSON."""
    return {
        "schema": SCHEMA,
        "clip_s": clip_s,
        "settings": settings,
        "prompts": [
            {
                "prompt": one.prompt,
                "slug": one.slug,
                "n_clips": one.n_clips,
                "clips": [
                    {"index": clip.index, "seed": clip.seed, "file": clip.file.as_posix()}
                    for clip in one.clips
                ],
            }
            for one in wanted
        ],
    }


def find_fault(file: Path, clip_s: float) -> str | None:
    """Return what is wrong with a clip; None if it is whole."""
    if not file.is_file():
        return f"{file.name}: was not written"
    try:
        check_audio(file, *load_audio(file), clip_s)
    except LoraBenchError as error:
        return str(error)
    return None


def check_audio(file: Path, audio: np.ndarray, rate_hz: int, clip_s: float) -> None:
    """Refuse samples [C, S] that are shorter than a clip; `load_audio` refuses those that are not finite.

    Raises:
        AudioFileError: they are; names the file.
    """
    if audio.shape[1] < round(clip_s * rate_hz):
        raise AudioFileError(
            str(file),
            f"lasts {audio.shape[1] / rate_hz:.2f} s; expected at least the {clip_s:g} s of generation.clip_s; write "
            "longer clips or lower generation.clip_s",
        )
