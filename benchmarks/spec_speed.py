"""Time to check and plan specs: a fresh process per command, many wrong specs in one process.

    python benchmarks/spec_speed.py

Prints the median and the worst of each against its limit; exits 1 if a median is above it.  Run it on a
machine that does nothing else.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parents[1]
N_REPEATS = 7
HELP_S, VALIDATE_S, PLAN_S, WRONG_S = 0.3, 0.5, 3.0, 0.5
# 25 ranks x 20 rates x 20 dropouts: 10,000 trials
LARGE = """schema: 1
name: large
dataset: {{builtin: chiptune}}
prompts: [a, b]
trials:
  grid:
    axes:
      lora.rank: {ranks}
      train.lr: {rates}
      lora.dropout: {dropouts}
"""


def time_process(*arguments: str) -> float:
    """Seconds of `lora-bench ARGUMENTS` in a fresh process."""
    began_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lora_bench", *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began_s


def report(name: str, times_s: list[float], limit_s: float) -> bool:
    """One line; whether the median is within the limit."""
    median_s = statistics.median(times_s)
    is_within = median_s <= limit_s
    print(
        f"{name:<44} median {median_s:6.3f} s   worst {max(times_s):6.3f} s   limit {limit_s:g} s   "
        f"{'ok' if is_within else 'TOO SLOW'}"
    )
    return is_within


def write_large(folder: Path) -> Path:
    """A spec of 10,000 trials."""
    path = folder / "large.yaml"
    text = LARGE.format(
        ranks=list(range(1, 26)),
        rates=[round(1e-5 * (1 + step), 7) for step in range(20)],
        dropouts=[round(0.01 * step, 2) for step in range(20)],
    )
    path.write_text(text, encoding="utf-8")
    return path


def time_wrong_specs(folder: Path, main: Callable[[list[str]], int]) -> list[float]:
    """Seconds that each malformed spec takes to be refused, in one process that has started."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.malformed_specs import MALFORMED

    path = folder / "wrong.yaml"
    times_s: list[float] = []
    for _, text, *_ in MALFORMED:
        path.write_text(text, encoding="utf-8")
        began_s = time.perf_counter()
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            code = main(["validate", str(path)])
        times_s.append(time.perf_counter() - began_s)
        if code != 2:
            raise SystemExit(f"a malformed spec exits {code}, expected 2:\n{text}")
    return times_s


def main() -> int:
    from lora_bench.cli.main import main as run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = str(write_large(folder))
        repeats = range(N_REPEATS)
        validate = ["validate", "specs/quickstart.yaml"]
        plan = ["plan", large, "--runs-dir", str(folder / "runs")]
        found = [
            report("--help", [time_process("--help") for _ in repeats], HELP_S),
            report("validate specs/quickstart.yaml", [time_process(*validate) for _ in repeats], VALIDATE_S),
            report("plan of 10,000 trials", [time_process(*plan) for _ in range(3)], PLAN_S),
            report(
                "plan of 10,000 trials, --json", [time_process(*plan, "--json") for _ in range(3)], PLAN_S
            ),
        ]
        wrong_s = time_wrong_specs(folder, run)
        found.append(report(f"{len(wrong_s)} malformed specs, each", wrong_s, WRONG_S))
        found.append(report("the slowest of them", [max(wrong_s)], WRONG_S))
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
