"""Compiled functions and what is kept of them from process to process."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest

from lora_bench.models.audiocraft_library import require_audiocraft
from lora_bench.models.decoding.compiled import compiler

CALLEE = """
from lora_bench.models.decoding.compiled.compiler import compiled

@compiled()
def give():
    return {value}
"""
CALLER = """
from compiled_callee import give
from lora_bench.models.decoding.compiled.compiler import compiled

@compiled()
def ask():
    return give() + 1
"""


def load_anew() -> ModuleType:
    """The caller as another process would find it."""
    for name in ("compiled_callee", "compiled_caller"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    compiler._digest_sources.cache_clear()
    return importlib.import_module("compiled_caller")


def test_a_change_of_a_callee_in_another_file_compiles_its_callers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)  # another test's laion_clap may have set it
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "compiled_caller.py").write_text(CALLER)
    answers: list[tuple[int, int]] = []
    for value in (1, 1, 20):
        (tmp_path / "compiled_callee.py").write_text(CALLEE.format(value=value))
        ask = load_anew().ask
        answers.append((ask(), sum(ask.stats.cache_hits.values())))
    assert answers == [(2, 0), (2, 1), (21, 0)]  # compiled, found, compiled again


def test_importing_audiocraft_does_not_move_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_laion_clap(_: str) -> None:
        os.environ["NUMBA_CACHE_DIR"] = "/tmp/"  # as it does

    monkeypatch.setattr(importlib, "import_module", import_laion_clap)
    for before in ("", "/mine"):
        monkeypatch.setenv("NUMBA_CACHE_DIR", before)
        require_audiocraft()
        assert os.environ["NUMBA_CACHE_DIR"] == before
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    require_audiocraft()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_sums_are_in_the_order_of_the_source_so_that_no_compilation_changes_their_bits() -> None:
    @compiler.compiled()
    def add_up(values: np.ndarray, factors: np.ndarray) -> np.float32:
        total = np.float32(0.0)
        for i in range(len(values)):
            total += values[i] * factors[i]
        return total

    rng = np.random.default_rng(0)
    for n in (7, 64, 1000):
        values, factors = rng.normal(size=(2, n)).astype(np.float32)
        in_order = np.float32(0.0)
        for value, factor in zip(values, factors, strict=True):
            in_order += value * factor
        assert np.float32(add_up(values, factors)) == in_order
