"""Where a model's files lie: the embedded folder, a local one, or the hub's cache; and their hash."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from lora_bench.errors import ModelError
from lora_bench.models.pocket import pocket_folder
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import hash_file

POCKET = "pocket"
CONFIG_FILES = ("*.json", "*.model", "*.txt")
SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "pytorch_model*.bin"  # read with torch's weights_only, as transformers does
SHA256_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelFolder:
    """Where a model's files lie; `hub_id` is None if they did not come from the hub."""

    path: Path
    hub_id: str | None


def find_model_folder(spec: ModelSpec) -> ModelFolder:
    """The folder with a model's files; a hub model is fetched if it is not in the cache.

    Raises:
        ModelError: there is none; says what was looked for and how to get it.
    """
    if spec.id == POCKET:
        try:
            return ModelFolder(pocket_folder(), None)
        except FileNotFoundError as error:
            raise ModelError(f"model.id: pocket: {error}") from error
    path = Path(spec.id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"model.id: {path}: there is no config.json, expected a folder as transformers' "
                "save_pretrained writes it; an export of audiocraft runs with model.backend audiocraft, or is "
                f"turned into such a folder by `lora-bench convert {path} --to FOLDER`"
            )
        return ModelFolder(path, None)
    if spec.id.count("/") != 1 or spec.id.startswith((".", "/", "~")):
        raise ModelError(
            f"model.id: {spec.id!r} is neither `pocket`, nor a folder that exists, nor a hub id of the form "
            "owner/name such as facebook/musicgen-small"
        )
    return ModelFolder(_fetch_from_hub(spec), spec.id)


def _fetch_from_hub(spec: ModelSpec) -> Path:
    command = f"hf download {spec.id}" + (f" --revision {spec.revision}" if spec.revision else "")
    looked = f"model.id: {spec.id}" + (f" (revision {spec.revision})" if spec.revision else "")
    try:
        folder = _download(spec, [SAFE_WEIGHTS, *CONFIG_FILES])
        if not list(folder.glob(SAFE_WEIGHTS)):
            folder = _download(spec, [PICKLED_WEIGHTS, *CONFIG_FILES])
    except GatedRepoError as error:
        raise ModelError(
            f"{looked}: the hub asks for an agreement first; accept it on "
            f"https://huggingface.co/{spec.id} and log in with `hf auth login`"
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{looked}: not a hub id ({error}); expected the form owner/name") from error
    except LocalEntryNotFoundError as error:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub could not be reached"
        raise ModelError(
            f"{looked}: not in the cache {constants.HF_HUB_CACHE}, and {offline}; where there is a network "
            f"run `{command}`, or give a local folder as model.id"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{looked}: could not be fetched from the hub ({reason}); check the id and the network, or run "
            f"`{command}` yourself"
        ) from error
    if not (folder / "config.json").is_file() or not _weight_files(folder):
        raise ModelError(
            f"{looked}: config.json or weights are missing in {folder}; fetch it whole with `{command}`"
        )
    return folder


def _download(spec: ModelSpec, patterns: list[str]) -> Path:
    return Path(snapshot_download(spec.id, revision=spec.revision, allow_patterns=patterns))


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(SAFE_WEIGHTS)) or sorted(folder.glob(PICKLED_WEIGHTS))


def hash_weights(folder: Path) -> str:
    """SHA-256 over names and contents of a model's weight files and its config, in hex."""
    return hash_files([folder / "config.json", *_weight_files(folder)])


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{_hash_once(path)}\n".encode())
    return digest.hexdigest()


def _hash_once(path: Path) -> str:
    real = Path(os.path.realpath(path))
    # the hub's cache names a large file by its SHA-256
    if SHA256_NAME.fullmatch(real.name):
        return real.name
    facts = real.stat()
    return _hash_unchanged(real, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_unchanged(path: Path, _size: int, _mtime_ns: int) -> str:
    return hash_file(path)
