"""Clips do not depend on their batch under other instruction sets than this processor's best."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS

NO_VECTORS = {"ATEN_CPU_CAPABILITY": "default"}
SSE4 = {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "DNNL_MAX_CPU_ISA": "SSE41"}
SETTINGS = {
    "oldest": NO_VECTORS | SSE4,
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"},
    "torch without vectors": NO_VECTORS,
    "SSE4": SSE4,
    "any processor": {"MKL_CBWR": "COMPATIBLE"},
}
SLOW = ("torch without vectors", "SSE4", "AVX2", "any processor")
KEPT = ("ATEN_", "MKL_", "DNNL_", "ONEDNN_")


@pytest.mark.parametrize(
    "setting", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SETTINGS]
)
def test_a_clip_is_the_same_in_any_batch_under_any_instruction_set(tiny_folder: Path, setting: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(KEPT)}
    done = subprocess.run(
        [sys.executable, str(TESTS / "support" / "batch_checks.py"), str(tiny_folder)],
        env={**own, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", **SETTINGS[setting]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 differences, 2 threads\n"
