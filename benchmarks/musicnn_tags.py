"""Tags that musicnn gives to a folder of recordings, for a reader who knows the music.

    python benchmarks/musicnn_tags.py --folder /usr/share/games/wesnoth/1.16/data/core/music

From the middle of each file 30 s are tagged by both checkpoints of the package; the highest tags are written
with their probabilities, and the mean over all files.  Sounds that are no music (noise, silence,
a sine) go through as well: their tags should have little in common with the music's.  Battle for Wesnoth's
soundtrack (Debian's wesnoth-1.16-music) is orchestral fantasy music without singing but for a choir here and there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lora_bench.artifacts import AudioClip
from lora_bench.audio import list_folder, load_audio
from lora_bench.encoders.musicnn import CHECKPOINTS, MusicnnEncoder

RESULT = Path(__file__).parent / "results" / "musicnn_tags.md"
EXCERPT_S = 30
N_TAGS = 5
# What a listener would say of orchestral music without a beat, in the words that the checkpoints know.
EXPECTED = (
    "ambient", "choir", "choral", "classical", "instrumental", "quiet", "slow", "soft", "string", "strings", "violin",
)  # fmt: skip


def cut_middles(files: Sequence[Path]) -> Iterator[AudioClip]:
    for path in files:
        audio, rate_hz = load_audio(path)
        start = max(0, (audio.shape[1] - EXCERPT_S * rate_hz) // 2)
        yield AudioClip(path.name, path.name, audio[:, start : start + EXCERPT_S * rate_hz], rate_hz)


def make_sounds() -> list[AudioClip]:
    rate_hz = 16_000
    t = np.arange(EXCERPT_S * rate_hz) / rate_hz
    sounds = {
        "white noise": np.random.default_rng(0).normal(0.0, 0.1, len(t)),
        "silence": np.zeros(len(t)),
        "sine of 440 Hz": 0.5 * np.sin(2.0 * np.pi * 440.0 * t),
    }
    return [AudioClip(name, name, wave[None].astype(np.float32), rate_hz) for name, wave in sounds.items()]


def name_best(encoder: MusicnnEncoder, row: np.ndarray, n: int = N_TAGS) -> str:
    return ", ".join(f"{encoder.tags[place]} {row[place]:.2f}" for place in row.argsort()[::-1][:n])


def count_expected(encoder: MusicnnEncoder, rows: np.ndarray) -> str:
    """In words, how many recordings have an expected tag as their highest, and which have not."""
    n_fit = sum(encoder.tags[row.argmax()] in EXPECTED for row in rows)
    known = ", ".join(tag for tag in EXPECTED if tag in encoder.tags)
    return (
        f"- `{encoder.name}`: {n_fit} of {len(rows)} recordings have one of *{known}* as their highest tag."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--files", type=int, default=14, help="the first so many in alphabetical order")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    files = list_folder(arguments.folder).files[: arguments.files]
    encoders = [MusicnnEncoder(name, device="cpu") for name in CHECKPOINTS]
    music, sounds = [list(cut_middles(files)), make_sounds()]
    tags = [encoder.embed_and_tag([*music, *sounds])[1] for encoder in encoders]
    lines = [
        "# musicnn's tags of real music",
        "",
        f"`python benchmarks/musicnn_tags.py --folder {arguments.folder}`: the middle {EXCERPT_S} s of each file.",
        "",
        "| file | " + " | ".join(f"{encoder.name} ({encoder.checkpoint})" for encoder in encoders) + " |",
        "|---|---|---|",
    ]
    for place, clip in enumerate([*music, *sounds]):
        cells = [name_best(encoder, found[place]) for encoder, found in zip(encoders, tags, strict=True)]
        lines.append(f"| {clip.name} | {' | '.join(cells)} |")
    means = [
        name_best(encoder, found[: len(music)].mean(axis=0), 8)
        for encoder, found in zip(encoders, tags, strict=True)
    ]
    lines += [f"| **mean of the {len(music)} recordings** | {' | '.join(means)} |", ""]
    lines += [
        "What a listener would expect of orchestral music:",
        "",
        *(
            count_expected(encoder, found[: len(music)])
            for encoder, found in zip(encoders, tags, strict=True)
        ),
        "",
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
