"""Benchmarks that can run on a GPU: what they need, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import ROOT

BENCHMARKS = ROOT / "benchmarks"
REFUSED = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
for missing in ("ray", "audiocraft"):
    sys.modules[missing] = None  # importing it fails, as on a machine without it
for name in ("decode.py", "train_step.py"):
    sys.argv = [name, "--model", "tiny", "--device", "cuda"]
    try:
        runpy.run_path(f"{sys.path[0]}/{name}", run_name="__main__")
    except SystemExit as end:
        print(name, end.code)
"""


@pytest.mark.slow
def test_benchmarks_start_without_ray_and_audiocraft_and_refuse_a_gpu_that_is_not_there() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", REFUSED, str(BENCHMARKS)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["decode.py", "2", "train_step.py", "2"]
    message = "error: device 'cuda': this machine has 0 usable GPUs; choose another or use cpu"
    assert found.stderr.count(message) == 2
