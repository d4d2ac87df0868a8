"""Find and hash the files of a model: in the embedded folder, a local one, or the hub's cache."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from lora_bench.errors import ModelError
from lora_bench.models import hash_cache
from lora_bench.models.pocket import pocket_folder
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import hash_file

POCKET = "pocket"
CONFIG_FILES = ("*.json", "*.model", "*.txt")
SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "pytorch_model*.bin"  # read with torch's weights_only, as transformers does
# fetched from the hub in this order until the weights are complete; the last one matches `model.fp32.safetensors`
FETCHED = (("model.safetensors", "model-*-of-*.safetensors"), (PICKLED_WEIGHTS,), (SAFE_WEIGHTS,))
SMALL_FILE = 2**20  # bytes; hashes of smaller files are not cached between runs
SHA256_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelFolder:
    """The folder of a model; `hub_id` is None if it did not come from the hub."""

    path: Path
    hub_id: str | None


def find_model_folder(spec: ModelSpec) -> ModelFolder:
    """Find the folder with a model's files; fetch a hub model that is not in the cache.

    Raises:
        ModelError: there is none; says what was searched and how to get it.
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
        folder = _download(spec, [*FETCHED[0], *CONFIG_FILES])
        for patterns in FETCHED[1:]:
            if not _is_complete(folder):
                folder = _download(spec, [*patterns, *CONFIG_FILES])
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
    if _is_complete(folder):
        return folder
    gap = "config.json is missing"
    if (folder / "config.json").is_file():
        try:
            find_weight_files(folder)
        except ModelError as error:
            gap = str(error).removeprefix(f"{folder}: ")
    raise ModelError(f"{looked}: {gap}, in {folder}; fetch the model whole with `{command}`")


def _is_complete(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file() and bool(find_weight_files(folder).files)
    except ModelError:
        return False


def _download(spec: ModelSpec, patterns: list[str]) -> Path:
    return Path(snapshot_download(spec.id, revision=spec.revision, allow_patterns=patterns))


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a folder that load, and the options that make transformers take them."""

    files: tuple[Path, ...]
    options: Mapping[str, Any]


def find_weight_files(folder: Path) -> WeightFiles:
    """Find the first complete form of a model's weights: safetensors, then pickles, then a variant such as `fp32`.

    The order is that of transformers, which looks at names only and fails if a file of an index is missing.

    Raises:
        ModelError: there is none; names the missing files.
    """
    variants = {path.name.split(".")[1] for path in folder.glob("model.*.safetensors")}
    variants |= {path.name.split(".")[3] for path in folder.glob("model.safetensors.index.*.json")}
    forms: list[tuple[str, str, dict[str, Any]]] = [
        ("model.safetensors", "model.safetensors.index.json", {}),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", {"use_safetensors": False}),
        *(
            (f"model.{name}.safetensors", f"model.safetensors.index.{name}.json", {"variant": name})
            for name in sorted(variants, reverse=True)  # fp32 before fp16
        ),
    ]
    missing: list[str] = []
    for single, index, options in forms:
        if (folder / single).is_file():
            return WeightFiles((folder / single,), options)
        if (folder / index).is_file():
            shards = _list_shards(folder / index)
            absent = [path.name for path in shards if not path.is_file()]
            if shards and not absent:
                return WeightFiles((folder / index, *shards), options)
            missing.append(f"{', '.join(absent) or 'every file'} of {index}")
    expected = "; ".join(missing) or "model.safetensors or pytorch_model.bin"
    raise ModelError(f"{folder}: weights are missing: {expected}")


def _list_shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return []
    return [index.parent / str(name) for name in sorted(names)]


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the config and of the weight files that load, in hex.

    Raises:
        ModelError: the weights are incomplete.
    """
    files = find_weight_files(folder).files
    return hash_files([folder / "config.json", *(file for file in files if file.suffix != ".json")])


def hash_all_weights(folder: Path) -> str:
    """Return the hash over every weight file in the folder, which earlier versions used as a model's identity."""
    found = [sorted(folder.glob(pattern)) for pattern in (SAFE_WEIGHTS, PICKLED_WEIGHTS)]
    files = next((group for group in found if group), [])
    if not all(file.is_file() for file in files):
        return hash_weights(folder)  # earlier versions could not read this folder either
    return hash_files([folder / "config.json", *files])


_former: dict[str, set[str]] = {}


def note_former_hashes(weights_hash: str, former: Iterable[str]) -> None:
    """Remember the hashes that earlier versions gave to the model `weights_hash`."""
    _former.setdefault(weights_hash, set()).update(former)


def former_hashes(weights_hash: str) -> tuple[str, ...]:
    """Return the hashes that earlier versions gave to a model that this process loaded."""
    return tuple(sorted(_former.get(weights_hash, ())))


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over names and contents of files, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{hash_once(path)}\n".encode())
    return digest.hexdigest()


def hash_once(path: Path) -> str:
    """Return the SHA-256 of a file in hex; of a large file it is kept between runs, until the file changes."""
    real = Path(os.path.realpath(path))
    # the hub's cache names a large file by its SHA-256
    if SHA256_NAME.fullmatch(real.name):
        return real.name
    facts = real.stat()
    return _hash_unchanged(real, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_unchanged(path: Path, size: int, mtime_ns: int) -> str:
    if size < SMALL_FILE:
        return hash_file(path)
    facts = ["file", path, size, mtime_ns]
    found = hash_cache.recall(facts)
    if found is None:
        found = hash_file(path)
        hash_cache.remember(facts, found)
    return found
