"""Benchmarks skip a contender that the machine refuses, and say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import ROOT

BENCHMARKS = ROOT / "benchmarks"
CODE = """
import argparse, sys
sys.path.insert(0, "BENCHMARKS")
from side_by_side import run_side_by_side
from lora_bench.errors import ModelError, ResourceError

def run(arguments):
    return {"speed": 2.0, "loaded_gib": 0.1}

def refuse(arguments):
    raise ResourceError("train.precision: no bfloat16 | here")

def refuse_model(arguments):
    raise ModelError("another model")

def break_down(arguments):
    raise RuntimeError("a fault")

contenders = {"no": refuse, "yes": run, "nor this": refuse_model, **({"broken": break_down} if "--threads" in sys.argv else {})}
run_side_by_side(argparse.ArgumentParser(), contenders, figure="speed", unit="per second")
"""


def run_benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = folder / "benchmark.py"
    script.write_text(CODE.replace("BENCHMARKS", str(BENCHMARKS)), encoding="utf-8")
    command = [sys.executable, str(script), "--rounds", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_contender_that_the_machine_refuses_is_skipped_and_named(tmp_path: Path) -> None:
    done = run_benchmark(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].startswith("| yes | 2.000 | 1.00 |")
    assert lines[3] == "| no | not run: train.precision: no bfloat16 / here | | | |"
    assert lines[4] == "| nor this | not run: another model | | | |"


def test_a_contender_that_breaks_down_ends_the_benchmark(tmp_path: Path) -> None:
    done = run_benchmark(tmp_path, "--threads", "1")
    assert done.returncode != 0
    assert "RuntimeError: a fault" in done.stderr
