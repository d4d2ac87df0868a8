"""Recall and false alarms of the search for near-duplicates, on planted copies.

    python benchmarks/near_duplicates.py                    # the 40 rendered chiptunes
    python benchmarks/near_duplicates.py --folder MUSIC     # and a folder of different pieces

Eight recordings (the first 90 s of each, spread over the folder) get a copy of each kind.  A copy is found if the
search pairs it with its original; a false alarm is a pair of different recordings of the folder.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

from lora_bench.audio import list_folder, load_audio, resample, to_channels
from lora_bench.genres.chiptune import render_chiptune
from lora_bench.stages.dataset.near_duplicates import (
    MIN_CORRELATION,
    RATE_HZ,
    compare,
    compute_fingerprint,
    prepare,
)

RESULT = Path(__file__).parent / "results" / "near_duplicates.md"
WORK_HZ, LENGTH_S, SHORTEST_S, N_ORIGINALS = 22_050, 90, 30, 8
Sound = NDArray[np.float32]


def encode_mp3(sound: Sound) -> Sound:
    stream = io.BytesIO()
    settings = {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": 0.8,
    }
    soundfile.write(stream, sound, WORK_HZ, **settings)
    stream.seek(0)
    return soundfile.read(stream, dtype="float32")[0]


def transpose(steps: float) -> Callable[[Sound], Sound]:
    return lambda sound: librosa.effects.pitch_shift(sound, sr=WORK_HZ, n_steps=steps)


def stretch(rate: float) -> Callable[[Sound], Sound]:
    return lambda sound: librosa.effects.time_stretch(sound, rate=rate)


COPIES: dict[str, Callable[[Sound], Sound]] = {
    "mp3 of a low rate": encode_mp3,
    "begins 3 s later": lambda sound: sound[3 * WORK_HZ :],
    "10 dB quieter": lambda sound: sound * np.float32(10**-0.5),
    "a semitone higher": transpose(1),
    "a semitone lower": transpose(-1),
    "3 % faster": stretch(1.03),
    "3 % slower": stretch(0.97),
    "3 % faster and higher, as a tape": lambda sound: resample(sound[None], WORK_HZ, round(WORK_HZ / 1.03))[
        0
    ],
    "a loop of 10 s of it": lambda sound: np.tile(sound[10 * WORK_HZ : 20 * WORK_HZ], 4),
    "all but the loop": lambda sound: encode_mp3(
        transpose(1)(stretch(1.03)(sound[3 * WORK_HZ :])) * np.float32(0.3)
    ),
}


def fingerprint(sound: Sound) -> Sound:
    return compute_fingerprint(resample(sound[None], WORK_HZ, RATE_HZ)[0])


def measure(name: str, folder: Path) -> list[str]:
    sounds: list[Sound] = []
    for path in list_folder(folder).files:
        audio, rate_hz = load_audio(path)
        sound = resample(to_channels(audio[:, : LENGTH_S * rate_hz], 1), rate_hz, WORK_HZ)[0]
        if len(sound) >= SHORTEST_S * WORK_HZ and np.abs(sound).max() > 1e-3:
            sounds.append(sound)
    prints = [prepare(fingerprint(sound)) for sound in sounds]
    start = time.perf_counter()
    others = [compare(first, second) for first, second in itertools.combinations(prints, 2)]
    pair_s = (time.perf_counter() - start) / len(others)
    n_false = sum(fit >= MIN_CORRELATION for fit in others)
    alarms = (
        f"False alarms: {n_false} of {len(others)} pairs; the highest correlation of different recordings is "
        f"{max(others):.2f} (threshold {MIN_CORRELATION}). {1000 * pair_s:.0f} ms a pair on this machine."
    )
    lines = [f"## {name}: {len(sounds)} recordings", "", alarms, ""]
    lines += ["| copy | found | lowest correlation |", "|---|---|---|"]
    chosen = np.unique(np.linspace(0, len(sounds) - 1, N_ORIGINALS).astype(int))
    for kind, make in COPIES.items():
        fits = [compare(prints[place], prepare(fingerprint(make(sounds[place])))) for place in chosen]
        n_found = sum(fit >= MIN_CORRELATION for fit in fits)
        lines.append(f"| {kind} | {n_found} of {len(fits)} | {min(fits):.2f} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    lines = ["# Near-duplicates", "", "`python benchmarks/near_duplicates.py [--folder MUSIC]`", ""]
    with tempfile.TemporaryDirectory() as place:
        render_chiptune(Path(place), WORK_HZ)
        lines += measure("Chiptunes", Path(place))
    if arguments.folder is not None:
        lines += measure(arguments.folder.name, arguments.folder)
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
