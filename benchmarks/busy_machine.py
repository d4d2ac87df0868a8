"""Wait policies of OpenMP threads: decoding and training steps, alone and next to a second program.

    python benchmarks/busy_machine.py --out benchmarks/results/busy_machine.md

Spinning is what libgomp does by itself; sleeping is `OMP_WAIT_POLICY=PASSIVE`; `--spin-counts` adds settings between
the two.  Every measurement is a process of its own with a setting in its environment; the second program is the same
work under the same setting.  Settings take turns within a round, so that ratios compare neighbours in time; the page
shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "spin": {
        "GOMP_SPINCOUNT": "300000"
    },  # libgomp's own where nothing is set; stated, for `lora-bench` would choose
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WORKS = ("decode", "train", "quickstart")
QUICKSTART = ("run", "quickstart", "--quiet", "-o", "train.steps=40", "-o", "generation.n_clips=8")
N_WARM_UPS = 2


def make_work(name: str) -> Callable[[], object]:
    """One decoding step of 8 clips, or one training step of 2 slices of 2 s, on the pocket model."""
    import torch
    from models import make_model

    from lora_bench.models.decoding.kv_cache import GrowingPast, KeyValueCache
    from lora_bench.models.decoding.small_batch_step import StreamedStep
    from lora_bench.spec.schema import LoraSpec

    model = make_model("pocket")
    if name == "decode":
        with torch.inference_mode():
            step = StreamedStep(model.decoder_weights(), model.info, 8, 3.0, is_int8=False)
            step.read_text(model.encode_text(["calm"])[0])
            past = GrowingPast(KeyValueCache.allocate(model.decoder_weights(), 16, 200, torch.float32))
        past.position = 150
        tokens = torch.zeros(8, model.info.n_codebooks, dtype=torch.int64)
        return torch.inference_mode()(lambda: step(tokens, step.positions[150], past))
    model.inject_lora(LoraSpec(rank=16, targets="attention"), seed=0)
    model.set_training(True)
    network = model.network
    labels = torch.zeros(2, 100, model.info.n_codebooks, dtype=torch.int64)
    text = model._tokenizer(["calm"] * 2, return_tensors="pt")

    def take_step() -> None:
        network(**text, labels=labels).loss.backward()

    return take_step


def measure_quickstart() -> float:
    """Milliseconds of a reduced quickstart in empty folders."""
    print("ready", flush=True)
    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        begin_s = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "lora_bench",
                *QUICKSTART,
                "--runs-dir",
                f"{folder}/runs",
                "--reports-dir",
                folder,
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return 1e3 * (time.perf_counter() - begin_s)


def measure(name: str, n_steps: int) -> float:
    """Milliseconds of a step, for the process that this is called in."""
    if name == "quickstart":
        return measure_quickstart()
    work = make_work(name)
    for _ in range(N_WARM_UPS):
        work()
    print("ready", flush=True)
    sys.stdin.readline()
    begin_s = time.perf_counter()
    for _ in range(n_steps):
        work()
    return 1e3 * (time.perf_counter() - begin_s) / n_steps


def start(name: str, setting: str, n_steps: int, threads: int) -> subprocess.Popen[str]:
    """A process that has warmed up and waits for its start."""
    own = {
        key: value for key, value in os.environ.items() if key not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    }
    process = subprocess.Popen(
        [sys.executable, __file__, "--work", name, "--steps", str(n_steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**own, "OMP_NUM_THREADS": str(threads), **SETTINGS[setting]},
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        if process.poll() is not None:
            raise RuntimeError(f"{name} under {setting} ended with code {process.returncode}")
    return process


def run(name: str, setting: str, n_programs: int, arguments: argparse.Namespace) -> float:
    """Mean milliseconds of a step over programs that run at the same time."""
    processes = [start(name, setting, arguments.steps, arguments.threads) for _ in range(n_programs)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return statistics.mean(float(process.communicate()[0].split()[-1]) for process in processes)


def tell_rounds(n_rounds: int) -> str:
    """What a time is of."""
    return "one round" if n_rounds == 1 else f"median of {n_rounds} rounds"


def write_page(
    times: dict[tuple[str, int, str], list[float]], arguments: argparse.Namespace, load: float
) -> str:
    """The results as a page."""
    about = (
        f"`python benchmarks/busy_machine.py --rounds {arguments.rounds} --steps {arguments.steps}`: milliseconds of a "
        f"step of the pocket model, {arguments.threads} threads each, {tell_rounds(arguments.rounds)}."
    )
    loads = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    lines = [
        "# How threads should wait on a busy machine",
        "",
        about,
        "",
        "| | " + " | ".join(SETTINGS) + " | spin over sleep |",
        "|:---|" + "---:|" * (len(SETTINGS) + 1),
    ]
    for name in arguments.works:
        for n_programs in (1, 2):
            found = [statistics.median(times[name, n_programs, setting]) for setting in SETTINGS]
            cells = " | ".join(f"{value:.1f}" for value in found)
            where = "alone" if n_programs == 1 else "two programs"
            lines.append(f"| {name}, {where} | {cells} | {found[0] / found[1]:.2f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{os.cpu_count()} cores; {loads}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--works", nargs="+", choices=WORKS, default=["decode", "train"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--spin-counts", nargs="+", type=int, default=[], metavar="N")
    arguments = parser.parse_args()
    for count in arguments.spin_counts:
        SETTINGS[f"spin {count}"] = {"GOMP_SPINCOUNT": str(count)}
    if arguments.work:
        print(measure(arguments.work, arguments.steps))
        return
    load = os.getloadavg()[0]
    times: dict[tuple[str, int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for name in arguments.works:
            for n_programs in (1, 2):
                for setting in SETTINGS:
                    found = run(name, setting, n_programs, arguments)
                    times.setdefault((name, n_programs, setting), []).append(found)
                    print(
                        f"{name}, {n_programs} at once, {setting}: {found:.1f} ms",
                        file=sys.stderr,
                        flush=True,
                    )
    page = write_page(times, arguments, load)
    print(page)
    if arguments.out is not None:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
