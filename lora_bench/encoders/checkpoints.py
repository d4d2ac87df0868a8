"""Where pretrained weights lie, and what is said when they are not there.

The folder is that of `frechet-audio-distance`: torch's hub folder (`~/.cache/torch/hub`, moved by
`TORCH_HOME`), or the one named by `LORA_BENCH_CHECKPOINTS`.  Nothing is ever downloaded from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_bench.errors import UnscoredError
from lora_bench.store import hash_file

if TYPE_CHECKING:
    from types import ModuleType

FOLDER_VARIABLE = "LORA_BENCH_CHECKPOINTS"
EXTRA = "pip install 'lora-bench[encoders]'"


def checkpoint_folder() -> Path:
    """Folder that holds pretrained weights."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(torch.hub.get_dir())


def need_checkpoint(encoder: str, place: str, source: str) -> Path:
    """A file or folder below the checkpoint folder.

    Args:
        encoder: name of the encoder, for the message.
        place: path below the folder.
        source: where it can be had.

    Raises:
        UnscoredError: it is not there; says what to put where.
    """
    path = checkpoint_folder() / place
    if not path.exists():
        raise UnscoredError(
            f"{encoder}: its weights are not on this machine: {_shorten(path)} is missing. Get it from {source} "
            f"(or name another folder in {FOLDER_VARIABLE}) and run again; nothing is downloaded by itself"
        )
    return path


def _shorten(path: Path) -> str:
    """With `~` for the home folder: the message stands in reports that are shown to others."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def hash_checkpoint(path: Path) -> str:
    """SHA-256 of a weights file; computed once per process and state of the file."""
    stat = path.stat()
    return _hash_state(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _hash_state(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  (they are the cache's key)
    return hash_file(path)


def need_package(encoder: str, package: str) -> Path:
    """Folder of an installed package, which is not imported.

    Raises:
        UnscoredError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnscoredError(f"{encoder}: the package {package} is not installed; `{EXTRA}`")
    return Path(spec.origin).parent


def import_fad_networks(encoder: str) -> ModuleType:
    """`frechet_audio_distance.models.pann`, without the package's `__init__`.

    The `__init__` imports laion_clap, which fetches three tokenizers from the network on import; the
    networks of the package's `models` folder need none of it.

    Raises:
        UnscoredError: the package is not installed.
    """
    folder = need_package(encoder, "frechet_audio_distance") / "models"
    alias = "lora_bench.encoders._fad_models"
    if alias not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            alias, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise UnscoredError(f"{encoder}: {folder} holds no networks; `{EXTRA}`")
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        spec.loader.exec_module(module)
    try:
        return importlib.import_module(f"{alias}.pann")
    except ImportError as error:
        raise UnscoredError(f"{encoder}: its network cannot be imported ({error}); `{EXTRA}`") from error
