"""Run every benchmark that compares contenders, in a short form, and print one table of ratios.

    python benchmarks/ratios.py          # or `make bench`: some minutes on two cores

Above 1, lora_bench is faster than what it is compared with.  The settings are small enough for a look at a machine.
Figures to cite come from the scripts themselves, with the settings that `benchmarks/README.md` lists.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
POCKET = ["--model", "pocket", "--rounds", "1"]
AUDIOCRAFT = ["lora_bench on audiocraft", "audiocraft"]


class Case(NamedTuple):
    """A script in a short form.

    Attributes:
        figure: what its contenders are compared by; more is better.
    """

    name: str
    script: str
    arguments: list[str]
    figure: str


DECODE = [*POCKET, "--seconds", "4", "--without", "transformers static cache", *AUDIOCRAFT]
TRAIN = ["lora_bench compiled", "lora_bench bfloat16, compiled", *AUDIOCRAFT]
FRECHET = ["--rounds", "1", "--replicates", "4"]
CASES = (
    Case("decode 1 clip of 4 s", "decode.py", [*DECODE, "--batch", "1"], "audio_s_per_s"),
    Case("decode 8 clips of 4 s", "decode.py", [*DECODE, "--batch", "8"], "audio_s_per_s"),
    Case(
        "training step, 4 slices of 4 s",
        "train_step.py",
        [*POCKET, "--seconds", "4", "--batch", "4", "--without", *TRAIN],
        "audio_s_per_s",
    ),
    Case(
        "Frechet distance, D = 512, 150 vectors",
        "frechet.py",
        ["--case", "distance", "--dim", "512", *FRECHET],
        "per_s",
    ),
    Case(
        "the same with its interval, D = 64, 150 clips of 4 windows",
        "frechet.py",
        ["--case", "interval", "--dim", "64", "--windows", "4", *FRECHET],
        "per_s",
    ),
    Case(
        "embedding of 4 clips of 8 s",
        "embedding.py",
        ["--clips", "4", "--repeats", "1"],
        "ratio",
    ),
)


def run_case(case: Case, file: Path) -> Iterator[tuple[str, str, float]]:
    """Yield name, other contender and ratio of one script."""
    command = [sys.executable, str(FOLDER / case.script), *case.arguments, "--json", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(found, list):  # embedding.py, whose contenders are the two sides of an encoder
        for row in found:
            yield f"{case.name}, {row['encoder']}", "frechet-audio-distance", row[case.figure]
        return
    rounds: dict[str, list[dict[str, Any]]] = found["rounds"]
    best = {name: max(run[case.figure] for run in runs) for name, runs in rounds.items()}
    first = next(iter(best))
    for name, value in best.items():
        if name != first:
            yield case.name, name, best[first] / value


def main() -> None:
    load = os.getloadavg()[0]
    print("| benchmark | speed of lora_bench relative to | ratio |\n|:---|:---|---:|")
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(CASES):
            for name, other, ratio in run_case(case, Path(place) / f"{number}.json"):
                print(f"| {name} | {other} | {ratio:.2f} |", flush=True)
    print(
        f"\n{os.cpu_count()} CPUs, load {load:.1f} before and {os.getloadavg()[0]:.1f} after; one round each"
    )


if __name__ == "__main__":
    main()
