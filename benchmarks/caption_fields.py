"""How often tempo and key are right where they are known: on the 40 rendered chiptunes.

    python benchmarks/caption_fields.py

Tempo is right within 4 %; half and double are octave errors, thirds and other simple ratios are counted apart.  Keys
are compared by tonic and by major or minor: dorian, phrygian and harmonic minor count as minor, lydian and mixolydian
as major.  The errors are those that MIREX tells apart: the fifth, the relative and the parallel key.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from lora_bench.genres.chiptune import N_TRACKS, compose_track, render_chiptune
from lora_bench.stages.dataset.measured import RATE_HZ, TONICS, cut_middle, estimate_bpm, estimate_key

RESULT = Path(__file__).parent / "results" / "caption_fields.md"
TOLERANCE = 0.04
RATIOS = {
    "double or half": (2.0, 0.5),
    "a third or two thirds, three or one and a half times": (1 / 3, 2 / 3, 3.0, 1.5),
}
MAJOR_MODES = ("major", "lydian", "mixolydian")


def judge_tempo(found: float | None, true: float) -> str:
    if found is None:
        return "none found"
    if abs(found / true - 1) <= TOLERANCE:
        return "right"
    near = (
        name for name, ratios in RATIOS.items() if any(abs(found / true / r - 1) <= TOLERANCE for r in ratios)
    )
    return next(near, "another tempo")


def judge_key(found: str | None, tonic: int, *, is_major: bool) -> str:
    if found is None:
        return "none found"
    name, _, mode = found.partition(" ")
    step, is_found_major = (TONICS.index(name) - tonic) % 12, mode == "major"
    if is_found_major == is_major:
        return {0: "right", 7: "a fifth off", 5: "a fifth off"}.get(step, "another key")
    if step == 0:
        return "parallel (major for minor or the reverse)"
    return "relative" if step == (9 if is_major else 3) else "another key"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    tempos, keys = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        render_chiptune(Path(place), RATE_HZ)
        for index in range(N_TRACKS):
            song = compose_track(index)
            audio = cut_middle(Path(place) / f"{index:02d}.wav")
            tempos[judge_tempo(estimate_bpm(audio), song.bpm)] += 1
            keys[judge_key(estimate_key(audio), song.key.tonic, is_major=song.key.mode in MAJOR_MODES)] += 1
    lines = [
        "# Tempo and key of the chiptunes",
        "",
        f"`python benchmarks/caption_fields.py`, {N_TRACKS} songs.",
        "",
    ]
    for name, counts in (("tempo", tempos), ("key", keys)):
        rows = [f"| {verdict} | {n} | {n / N_TRACKS:.0%} |" for verdict, n in counts.most_common()]
        lines += [f"| {name} | songs | share |", "|---|---|---|", *rows, ""]
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
