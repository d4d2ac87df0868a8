"""A run on a stand-in for a GPU, with and without worker processes for the CPU's part.

    python benchmarks/overlap.py
    python benchmarks/overlap.py --clips 60 --train-s 40 --workers 3

The stand-in sleeps while it trains and generates.  Both runs start from nothing, and their scores and guards are
compared byte by byte.  The timeline has a line for the GPU, one for what the main process does on the CPU, and one for
each worker.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sleeping_gpu import Timeline, stand_in, write_tunes
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.models import load_model
from lora_bench.planning.plan import plan_experiment
from lora_bench.progress import SilentProgress
from lora_bench.runner.experiment import run_experiment
from lora_bench.runner.jobs.workers import Span
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.schema import ModelSpec

WIDTH = 100


def warm_up() -> None:
    """Import what a run imports, so that the first run does not pay for it."""
    from lora_bench.comparison import pairs  # noqa: F401
    from lora_bench.report.render import render_report  # noqa: F401

    load_librosa()
    load_model(ModelSpec(id="pocket"))


def run(place: Path, n_workers: int, arguments: argparse.Namespace) -> tuple[float, Timeline]:
    """Run the experiment from nothing; return seconds and what was done when."""
    spec = ExperimentSpec.model_validate(
        {
            "schema": 1,
            "name": "overlap",
            "model": {"id": "pocket"},
            "dataset": {"path": place.parent / "music", "captions": {"text": "tune"}, "clip_s": 8},
            "prompts": ["tune", "a slow tune", "a fast tune"],
            "generation": {"n_clips": arguments.clips, "clip_s": 8},
            "metrics": ["mfcc20-seed", "mfcc20"],
            "defaults": {"lora": {"rank": 2}, "train": {"steps": 1, "batch_size": 1}},
            "trials": {"variants": [{"name": "r2"}, {"name": "r4", "lora": {"rank": 4}}]},
            "resources": {"gpu": 1, "cpu": 1 + n_workers},
        }
    )
    begin_s = time.monotonic()
    with stand_in(arguments.train_s, arguments.clip_s) as timeline:
        code = run_experiment(
            plan_experiment(spec), runs_dir=place, reports_dir=place / "reports", progress=SilentProgress()
        )
    assert code == 0
    return time.monotonic() - begin_s, timeline


def draw(timeline: Timeline, wall_s: float) -> str:
    """Draw a line for the GPU, the main process and each worker; a letter stands for what is done."""
    begin_s = min(span.began_s for span in (*timeline.gpu, *timeline.main))
    lanes: list[tuple[str, list[Span]]] = [("GPU", timeline.gpu), ("main, CPU", timeline.main)]
    workers: list[list[Span]] = []
    for span in sorted(timeline.workers, key=lambda span: span.began_s):
        free = next((lane for lane in workers if lane[-1].ended_s <= span.began_s), None)
        if free is None:
            workers.append(free := [])
        free.append(span)
    lanes += [(f"worker {number}", lane) for number, lane in enumerate(workers, 1)]
    return "\n".join(f"{name:>9} |{_draw_lane(spans, begin_s, wall_s)}|" for name, spans in lanes)


def _draw_lane(spans: Sequence[Span], begin_s: float, wall_s: float) -> str:
    line = [" "] * WIDTH
    for span in spans:
        first, last = (int((at - begin_s) / wall_s * WIDTH) for at in (span.began_s, span.ended_s))
        word = span.what.removeprefix("the ")
        line[first : last + 1] = word[0] * (min(last, WIDTH - 1) - first + 1)
    return "".join(line[:WIDTH])


def read_results(place: Path) -> dict[str, bytes]:
    """Read scores and guards of every trial."""
    files = [
        file for name in ("scores", "guards") for file in (place / "overlap").glob(f"trials/*/{name}.json")
    ]
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=40, help="of each of three prompts")
    parser.add_argument("--train-s", type=float, default=20.0, help="how long a training takes")
    parser.add_argument("--clip-s", type=float, default=0.25, help="how long generating a clip takes")
    parser.add_argument("--tracks", type=int, default=10, help="of a minute")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_tunes(place / "music", arguments.tracks, 60.0)
        warm_up()
        found = {n: run(place / str(n), n, arguments) for n in (0, arguments.workers)}
        results = [read_results(place / str(n)) for n in found]
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    for n, (wall_s, timeline) in found.items():
        busy_s = sum(span.ended_s - span.began_s for span in timeline.gpu)
        print(f"{n} workers: {wall_s:.1f} s, the GPU is busy for {busy_s / wall_s:.0%} of them")
        print(draw(timeline, wall_s), "\n")
    serial_s, overlapped_s = (wall_s for wall_s, _ in found.values())
    print("t train, g generate or guards, m mfcc, p prepare, s score")
    print(f"ratio of wall times: {serial_s / overlapped_s:.2f}")
    print(f"scores and guards are equal byte by byte: {results[0] == results[1]} ({len(results[0])} files)")


if __name__ == "__main__":
    main()
