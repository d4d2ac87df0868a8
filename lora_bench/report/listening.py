"""Which clips a report lets people hear, compressed so that they fit into the page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import soundfile

from lora_bench.names import prompt_slug
from lora_bench.report.document import Clip, Listening
from lora_bench.report.formatting import clean_text, shorten
from lora_bench.report.spectrogram import draw_spectrogram
from lora_bench.report.view import Configuration, RunView, is_higher_better

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PROMPTS = 6
MAX_FINE_TUNED = 3
N_INDICES = 2
BUDGET_BYTES = 15_000_000  # of text in the page; the rest of its 20 MB is for tables and plots
# MPEG audio is defined at these rates only; other clips are embedded as wav.
MP3_RATES_HZ = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})


@dataclass
class Budget:
    """Bytes of page that are left for clips."""

    left: int = BUDGET_BYTES


def choose_listening(view: RunView, report_folder: Path) -> list[Listening]:
    """Zero-shot and the best configurations side by side, for the first prompts and clip indices.

    The first clip of every prompt comes before the second of any, so that each prompt is heard before the
    page is full; what does not fit is linked.

    Args:
        view: the run.
        report_folder: where the page will lie; links are relative to it.

    Returns:
        Groups prompt by prompt; groups without a single clip are left out.
    """
    references = sorted((view.run_folder / "reference_clips").glob("*.wav"))
    sources = view.track_sources
    voices = [trial for item in _choose_configurations(view) if (trial := _first_with_clips(view, item))]
    budget = Budget()
    groups: list[tuple[int, int, Listening]] = []
    for index in range(N_INDICES):
        for place, prompt in enumerate(view.prompts[:MAX_PROMPTS]):
            files = [
                (view.names_of_trials[trial["id"]], _find_clip(view, trial, prompt, index))
                for trial in voices
            ]
            found = [(name, path) for name, path in files if path is not None]
            if not found:
                continue
            if references:
                reference = references[(index * MAX_PROMPTS + place) % len(references)]
                found.append((f"reference: {_name_reference(reference, sources)}", reference))
            clips = tuple(_make_clip(name, path, report_folder, budget) for name, path in found)
            group = Listening(f"{shorten(prompt, 90)}, clip {index}", clean_text(prompt), clips)
            groups.append((place, index, group))
    return [group for _, _, group in sorted(groups, key=lambda item: item[:2])]


def _name_reference(path: Path, sources: dict[str, str]) -> str:
    """The file that an excerpt was cut from; its own name where the dataset does not tell."""
    return shorten(sources.get(path.stem.rpartition("-")[0], path.stem), 40)


def _choose_configurations(view: RunView) -> Iterator[Configuration]:
    """Zero-shot, then the best on the first metric over all prompts, in the plan's order."""
    if view.zero_shot is not None:
        yield view.zero_shot
    metric = view.metrics[0] if view.metrics else ""
    sign = -1.0 if is_higher_better(metric) else 1.0

    def rank(item: Configuration) -> float:
        value = view.cell(item, metric, None).value
        return float("inf") if value is None else sign * value

    best = sorted(view.fine_tuned, key=rank)[:MAX_FINE_TUNED]
    yield from (item for item in view.fine_tuned if item in best)


def _first_with_clips(view: RunView, configuration: Configuration) -> dict[str, Any] | None:
    for trial in configuration.trials:
        if (view.run_folder / "trials" / trial["id"] / "clips").is_dir():
            return trial
    return None


def _find_clip(view: RunView, trial: dict[str, Any], prompt: str, index: int) -> Path | None:
    folder = view.run_folder / "trials" / trial["id"] / "clips" / prompt_slug(prompt)
    return next(
        (path for path in sorted(folder.glob("*.wav")) if path.stem.isdigit() and int(path.stem) == index),
        None,
    )


def _make_clip(label: str, path: Path, report_folder: Path, budget: Budget) -> Clip:
    """A clip with sound and picture if they fit, else a link."""
    href = quote(Path(os.path.relpath(path, report_folder)).as_posix())
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return Clip(f"{label} (damaged file)", href, None, None)
    audio = np.asarray(samples, dtype=np.float32)  # [S, C]
    sound = _embed(*_compress(audio, rate_hz))
    picture = _embed("image/png", draw_spectrogram(audio, rate_hz))
    if len(audio) == 0 or len(sound) + len(picture) > budget.left:
        return Clip(label, href, None, None)
    budget.left -= len(sound) + len(picture)
    return Clip(label, href, sound, picture)


def _compress(audio: NDArray[np.float32], rate_hz: int) -> tuple[str, bytes]:
    """MP3 where its rates allow: every browser plays it, and unlike Ogg it holds no random serial number."""
    stream = io.BytesIO()
    if rate_hz in MP3_RATES_HZ and audio.shape[1] <= 2:
        soundfile.write(
            stream, audio, rate_hz, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE",
            compression_level=0.4,
        )  # fmt: skip
        return "audio/mpeg", stream.getvalue()
    soundfile.write(stream, audio, rate_hz, format="WAV", subtype="PCM_16")
    return "audio/wav", stream.getvalue()


def _embed(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
