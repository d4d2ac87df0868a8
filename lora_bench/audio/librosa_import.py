"""librosa, imported by one process at a time.

Importing its modules compiles functions and keeps them in numba's cache.  Two processes that do so at once, such as two
trials on a new machine, can leave each other code that crashes when it is called.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock

_COMPILING = (
    "util.utils", "core.audio", "core.pitch", "core.convert", "core.harmonic", "core.notation", "sequence", "beat",
    "feature.spectral",
)  # fmt: skip


@cache
def load_librosa() -> Any:
    """Return the module; all that compiles on import is imported."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"lora-bench-librosa-{os.getuid()}.lock"):
        librosa = import_module("librosa")
        for name in _COMPILING:
            import_module(f"librosa.{name}")
    return librosa
