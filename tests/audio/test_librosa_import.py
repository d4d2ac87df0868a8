"""Two processes that compile librosa's functions at once: neither crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import numpy as np
from lora_bench.stages.dataset.measured import estimate_key
tone = np.sin(np.arange(5 * 22050) / 22050 * 2 * np.pi * 261.6).astype(np.float32)
for _ in range(3):
    estimate_key(tone)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # each round compiles twice
def test_processes_with_an_empty_cache_do_not_crash_each_other(tmp_path: Path) -> None:
    """Without the lock, about one round in three ended with a segmentation fault."""
    for n in range(4):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / str(n))}
        both = [subprocess.Popen([sys.executable, "-c", CODE], env=environment) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
