"""Keep libraries quiet: transformers without bars and warnings, imports without side effects."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from lora_bench.audio.librosa_import import load_librosa


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Show only errors and no bars; restore the settings afterwards."""
    level = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def keep_numba_folder() -> Generator[None]:
    """Keep numba's cache folder: importing laion_clap moves it to a folder that everybody can write.

    audiocraft and laion_clap import librosa, so it is imported first, by one process at a time.
    """
    load_librosa()
    name = "NUMBA_CACHE_DIR"
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)
