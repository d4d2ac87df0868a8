"""Find pretrained weights, and say how to get them if they are missing.

The folder is that of `frechet-audio-distance`: torch's hub folder (`~/.cache/torch/hub`, moved by
`TORCH_HOME`), or the one named by `LORA_BENCH_CHECKPOINTS`.  Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_bench.errors import UnscoredError

if TYPE_CHECKING:
    from types import ModuleType

FOLDER_VARIABLE = "LORA_BENCH_CHECKPOINTS"
EXTRA = "pip install 'lora-bench[encoders]'"


def checkpoint_folder() -> Path:
    """Return the folder that holds pretrained weights."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(torch.hub.get_dir())


def need_checkpoint(encoder: str, place: str, source: str) -> Path:
    """Return a file or folder below the checkpoint folder.

    Args:
        encoder: name of the encoder, for the message.
        place: path below the folder.
        source: where to get it.

    Raises:
        UnscoredError: it is missing; says what to put where.
    """
    path = checkpoint_folder() / place
    if not path.exists():
        raise UnscoredError(
            f"{encoder}: its weights are not on this machine: {_shorten(path)} is missing. Get it from {source} "
            f"(or name another folder in {FOLDER_VARIABLE}) and run again; nothing is downloaded by itself"
        )
    return path


def need_hub_folder(encoder: str, weights: str) -> Path:
    """Return the folder of a checkpoint: a local folder, or a hub id's in the hub's cache.

    Raises:
        UnscoredError: it is missing; says how to get it.
    """
    if Path(weights).is_dir():
        return Path(weights)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(weights, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise UnscoredError(
            f"{encoder}: its weights {weights} are not on this machine, neither as a folder nor in "
            f"{_shorten(Path(constants.HF_HUB_CACHE))}. Get them with `hf download {weights}` and run again; nothing "
            "is downloaded by itself"
        ) from error


def import_network(encoder: str, module: str, package: str) -> ModuleType:
    """Import a module of a package that holds a network.

    Raises:
        UnscoredError: it is not installed, or cannot be imported here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnscoredError(
            f"{encoder}: the package {package} cannot be imported ({error}); `pip install {package}`"
        ) from error


def _shorten(path: Path) -> str:
    """Write `~` for the home folder, because the message appears in reports that others read."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def need_package(encoder: str, package: str) -> Path:
    """Return the folder of an installed package without importing it.

    Raises:
        UnscoredError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnscoredError(f"{encoder}: the package {package} is not installed; `{EXTRA}`")
    return Path(spec.origin).parent


def import_fad_networks(encoder: str) -> ModuleType:
    """Import `frechet_audio_distance.models.pann` without the package's `__init__`.

    The `__init__` imports laion_clap, which fetches three tokenizers from the network on import; the
    networks in the package's `models` folder do not need it.

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
