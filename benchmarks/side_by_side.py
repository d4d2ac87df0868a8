"""Contenders of a benchmark in a process each, one after another, and a table of what they took.

A process of its own gives each contender its own peak memory (`ru_maxrss`); rounds of all contenders in
turn give ratios that a slow minute of the machine does not decide.  The best round counts.  A contender that the
machine or its settings refuse is skipped, and the table says why.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from lora_bench.errors import LoraBenchError, ModelError, ResourceError

Contender = Callable[[argparse.Namespace], dict[str, float]]
Rounds = dict[str, list[dict[str, Any]]]
REFUSED = "refused"


def run_side_by_side(
    parser: argparse.ArgumentParser,
    contenders: dict[str, Contender],
    *,
    figure: str,
    unit: str,
    prepare: Callable[[argparse.Namespace], Collection[str]] | None = None,
    describe: Callable[[argparse.Namespace, Rounds], str] | None = None,
) -> None:
    """Run every contender and print ratios to the first.

    Args:
        parser: of the benchmark; `--rounds`, `--threads` and `--json` are added.
        contenders: by name; each measures once and returns figures, `figure` among them, and `peak_gib` if that
            is not its process's.
        figure: what is compared; more is better.
        unit: of `figure`, for the table.
        prepare: told the arguments before anything runs; returns contenders that these leave out, raises what makes
            them useless.
        describe: more words below the table.

    Raises:
        SystemExit: `prepare` refused the arguments.
    """
    parser.add_argument("--rounds", type=int, default=2, help="times that each contender runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--without", nargs="*", default=[], choices=sorted(contenders), help="leave them out")
    parser.add_argument("--only", choices=sorted(contenders), help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        arguments.into.write_text(json.dumps(_measure(contenders[arguments.only], arguments)))
        return
    left_out = set(arguments.without)
    if prepare is not None:
        try:
            left_out |= set(prepare(arguments))
        except LoraBenchError as error:
            parser.error(str(error))
    rounds: Rounds = {name: [] for name in contenders if name not in left_out}
    if not rounds:
        parser.error("no contender is left to run")
    refused: dict[str, str] = {}
    for number in range(arguments.rounds):
        for name in [name for name in rounds if name not in refused]:
            figures = _run_alone(name, arguments.threads)
            print(f"round {number + 1}: {name}: {figures}", file=sys.stderr, flush=True)
            if REFUSED in figures:
                refused[name] = figures[REFUSED]
                del rounds[name]
            else:
                rounds[name].append(figures)
    _print_table(rounds, figure, unit, refused)
    machine = f"{os.cpu_count()} cores, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}"
    print(f"\n{machine}, best of {arguments.rounds} rounds")
    if describe is not None:
        print(describe(arguments, rounds))
    if arguments.json:
        facts = {"command": sys.argv, "load": os.getloadavg(), "rounds": rounds, "refused": refused}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def _measure(contender: Contender, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of a contender, or under `REFUSED` why it cannot run here."""
    try:
        figures = contender(arguments)
    except (ResourceError, ModelError) as error:
        return {REFUSED: str(error)}
    return {"peak_gib": resident_gib(), **figures}


def _run_alone(name: str, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "figures.json"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *sys.argv, "--only", name, "--into", str(into)]
        subprocess.run(command, check=True, env=environment)
        return json.loads(into.read_text())


def _print_table(rounds: Rounds, figure: str, unit: str, refused: dict[str, str]) -> None:
    best = {name: max(runs, key=lambda run: run[figure]) for name, runs in rounds.items()}
    first = next(iter(best.values()), {})
    print(f"| | {unit} | ratio of the first to this | peak memory GiB | before work GiB |")
    print("|---|---|---|---|---|")
    for name, run in best.items():
        ratio = first[figure] / run[figure]
        print(
            f"| {name} | {run[figure]:.3f} | {ratio:.2f} | {run['peak_gib']:.2f} | {run['loaded_gib']:.2f} |"
        )
    for name, reason in refused.items():
        print(f"| {name} | not run: {reason.replace('|', '/')} | | | |")


def resident_gib() -> float:
    """Memory of this process so far at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
