"""What each metric notices: distances of recordings that are made worse by degrees.

    python benchmarks/degradation.py --folder /usr/share/games/wesnoth/1.16/data/core/music

Three windows of 8 s are cut from each recording.  Every second recording is the reference; the others are
degraded and scored against it.  Each distance is divided by that of the undegraded recordings, so 1 is the level of
real music.  Writes a table and a plot.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from lora_bench.artifacts import AudioClip
from lora_bench.audio import list_folder, load_audio, resample, to_channels
from lora_bench.encoders import get_encoder
from lora_bench.metrics import parse_metric
from lora_bench.models import load_model
from lora_bench.report.writers.svg import SERIES_COLOURS, Canvas
from lora_bench.spec.schema import ModelSpec
from lora_bench.stages.score import score_embeddings

RESULT = Path(__file__).parent / "results" / "degradation.md"
RATE_HZ, LENGTH_S = 32_000, 8
METRICS = (
    "mfcc20", "mfcc20-seed", "encodec", "musicnn", "tonality", "tempo", "pulse", "onsets", "loudness", "brightness",
)  # fmt: skip
Sound = NDArray[np.float32]
Degrade = Callable[[Sound, float, np.random.Generator], Any]


def add_noise(sound: Sound, ratio_db: float, rng: np.random.Generator) -> Any:
    return sound + rng.normal(size=len(sound)) * sound.std() * 10 ** (-ratio_db / 20)


def pass_low(sound: Sound, edge_hz: float, _rng: np.random.Generator) -> Any:
    return sosfiltfilt(butter(4, edge_hz, fs=RATE_HZ, output="sos"), sound)


def clip_peaks(sound: Sound, gain_db: float, _rng: np.random.Generator) -> Any:
    """Clip at that many dB below the peak; the level stays as it was."""
    limit = np.abs(sound).max() * 10 ** (-gain_db / 20)
    clipped = np.clip(sound, -limit, limit)
    return match_level(clipped, sound)


def match_level(sound: Any, pattern: Sound) -> Any:
    return sound * (pattern.std() / max(float(sound.std()), 1e-9))


def shuffle(sound: Sound, piece_s: float, rng: np.random.Generator) -> Any:
    pieces = sound[: LENGTH_S * RATE_HZ].reshape(-1, round(piece_s * RATE_HZ))
    return pieces[rng.permutation(len(pieces))].ravel()


def transpose(sound: Sound, most_steps: float, rng: np.random.Generator) -> Any:
    """Transpose up or down, by chance."""
    shifted = librosa.effects.pitch_shift(sound, sr=RATE_HZ, n_steps=most_steps * rng.choice([-1.0, 1.0]))
    return match_level(shifted, sound)


def hasten(sound: Sound, rate: float, _rng: np.random.Generator) -> Any:
    """Play faster at the same pitch; the window is filled by repetition."""
    return match_level(np.resize(librosa.effects.time_stretch(sound, rate=rate), len(sound)), sound)


def attenuate(sound: Sound, gain_db: float, _rng: np.random.Generator) -> Any:
    return sound * 10 ** (-gain_db / 20)


DEGRADATIONS: dict[str, tuple[Degrade, tuple[float, ...], str]] = {
    "noise": (add_noise, (40, 30, 20, 10), "dB of signal to white noise"),
    "low-pass": (pass_low, (8000, 4000, 2000, 1000), "Hz"),
    "clipping": (clip_peaks, (6, 12, 18, 24), "dB below the peak"),
    "shuffled": (shuffle, (2, 1, 0.5, 0.25), "s a piece"),
    "transposed": (transpose, (1, 2, 4, 6), "semitones up or down"),
    "faster": (hasten, (1.1, 1.25, 1.5, 2), "times"),
    "quieter": (attenuate, (3, 6, 12, 24), "dB"),
}


def cut_windows(folder: Path) -> list[list[Sound]]:
    """Return the windows of each recording that is long enough."""
    n, found = LENGTH_S * RATE_HZ, []
    for path in list_folder(folder).files:
        audio, rate_hz = load_audio(path)
        sound = resample(to_channels(audio, 1), rate_hz, RATE_HZ)[0]
        starts = [round(place * (len(sound) - n)) for place in (0.25, 0.5, 0.75)]
        if starts[0] >= 0:
            found.append([sound[start : start + n] for start in starts])
    return found


def name_clips(recordings: Sequence[Sequence[Any]]) -> list[AudioClip]:
    return [
        AudioClip(f"{i}-{j}", f"{i}", np.asarray(sound, np.float32)[None], RATE_HZ)
        for i, sounds in enumerate(recordings)
        for j, sound in enumerate(sounds)
    ]


def degrade_all(recordings: Sequence[Sequence[Sound]]) -> dict[tuple[str, float], list[AudioClip]]:
    """Return the clips of each degradation and grade."""
    made: dict[tuple[str, float], list[AudioClip]] = {}
    for name, (degrade, grades, _) in DEGRADATIONS.items():
        for grade in grades:
            rng = np.random.default_rng(0)
            made[name, grade] = name_clips(
                [[degrade(sound, grade, rng) for sound in sounds] for sounds in recordings]
            )
        print(f"{name}: made", flush=True)
    return made


def measure(
    metric: str,
    real: list[AudioClip],
    plain: list[AudioClip],
    made: Mapping[tuple[str, float], list[AudioClip]],
) -> dict[tuple[str, float], float]:
    """Return the distance of each degradation and grade, in that of the undegraded clips."""
    model = load_model(ModelSpec(id="pocket")) if metric in ("mfcc20", "encodec") else None
    encoder: Any = get_encoder(metric, music_model=model)
    if metric == "mfcc20":
        encoder.fit_scale(real)
    reference = encoder.embed(real)
    level = score_embeddings(parse_metric(metric), encoder.embed(plain), reference).value
    return {
        key: score_embeddings(parse_metric(metric), encoder.embed(clips), reference).value / level
        for key, clips in made.items()
    }


def is_rising(ratios: Sequence[float]) -> bool:
    return all(later > earlier for earlier, later in zip([1.0, *ratios], ratios, strict=False))


def write_table(found: Mapping[str, Mapping[tuple[str, float], float]]) -> list[str]:
    lines = ["| degradation | grades | " + " | ".join(f"`{metric}`" for metric in found) + " |"]
    lines.append("|---" * (2 + len(found)) + "|")
    for name, (_, grades, unit) in DEGRADATIONS.items():
        cells = []
        for ratios in found.values():
            row = [ratios[name, grade] for grade in grades]
            cells.append(", ".join(f"{ratio:.3g}" for ratio in row) + (" **↑**" if is_rising(row) else ""))
        lines.append(f"| {name} | {', '.join(f'{g:g}' for g in grades)} {unit} | " + " | ".join(cells) + " |")
    return lines


def draw(found: Mapping[str, Mapping[tuple[str, float], float]]) -> str:
    """Draw a panel per metric with a line per degradation, on a common logarithmic scale."""
    width, height, left, gap, columns = 170.0, 150.0, 44.0, 24.0, 4
    colours = dict(zip(DEGRADATIONS, SERIES_COLOURS, strict=False))
    rows = math.ceil(len(found) / columns)
    logs = [math.log10(max(ratio, 0.1)) for ratios in found.values() for ratio in ratios.values()]
    low, high = math.floor(min(0.0, *logs)), math.ceil(max(logs))
    canvas = Canvas(
        left + columns * (width + gap),
        44 + rows * (height + 44),
        "Distances of degraded recordings, by metric",
    )
    for place, (name, colour) in enumerate(colours.items()):
        canvas.box((left + 110.0 * place, 6, 12, 12), colour)
        canvas.text(left + 110.0 * place + 17, 16, name)
    for place, (metric, ratios) in enumerate(found.items()):
        x0, y0 = left + (place % columns) * (width + gap), 52.0 + (place // columns) * (height + 44)
        canvas.text(x0, y0 - 6, metric, kind="lb-label")
        for power in range(low, high + 1):
            y = y0 + height * (1 - (power - low) / (high - low))
            canvas.line((x0, y, x0 + width, y), kind="lb-floor" if power == 0 else "lb-grid")
            if place % columns == 0:
                canvas.text(x0 - 6, y + 4, f"{10.0**power:g}", anchor="end", kind="lb-soft")
        for name, (_, grades, unit) in DEGRADATIONS.items():
            points = [(x0, y0 + height * (1 - (0 - low) / (high - low)))]
            for step, grade in enumerate(grades, start=1):
                share = (math.log10(max(ratios[name, grade], 0.1)) - low) / (high - low)
                points.append((x0 + width * step / len(grades), y0 + height * (1 - share)))
            canvas.path(points, colours[name])
            for (x, y), grade in zip(points[1:], grades, strict=True):
                canvas.dot(x, y, colours[name], hint=f"{name}, {grade:g} {unit}: {ratios[name, grade]:.3g}")
        canvas.text(x0, y0 + height + 16, "as it is", kind="lb-soft")
        canvas.text(x0 + width, y0 + height + 16, "worst", anchor="end", kind="lb-soft")
    return str(canvas.render())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--metric", nargs="+", default=METRICS)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    recordings = cut_windows(arguments.folder)
    real, plain = name_clips(recordings[::2]), name_clips(recordings[1::2])
    made = degrade_all(recordings[1::2])
    found: dict[str, dict[tuple[str, float], float]] = {}
    for metric in arguments.metric:
        found[metric] = measure(metric, real, plain, made)
        print(
            metric,
            {f"{name} {grade:g}": round(r, 3) for (name, grade), r in found[metric].items()},
            flush=True,
        )
    plot = arguments.out.with_suffix(".svg")
    plot.write_text(draw(found), encoding="utf-8")
    method = (
        f"{len(real)} windows of {LENGTH_S} s as reference, {len(plain)} of other recordings made worse. Distances in "
        "those of the undegraded windows: 1 is the level of real music. **↑**: above 1 and rising with every grade."
    )
    lines = ["# What each metric notices", ""]
    lines += [f"`python benchmarks/degradation.py --folder {arguments.folder}`: {method}", ""]
    lines += [f"![Distances of degraded recordings, by metric]({plot.name})", "", *write_table(found), ""]
    arguments.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
