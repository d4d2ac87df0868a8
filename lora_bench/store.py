"""Results on disk: content-addressed folders, atomic writes, locks.

A folder is either complete or not there: it is made under a temporary name beside its place and
renamed when done.  A lock file per key makes one process do the work while others wait for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lora_bench.errors import StoreError

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


def to_jsonable(value: Any) -> Any:
    """Plain JSON types from dataclasses, paths, mappings, sequences and numpy scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    dump = getattr(value, "model_dump", None)  # Pydantic's models, without importing them
    if callable(dump):
        return to_jsonable(dump(mode="json", by_alias=True))
    item = getattr(value, "item", None)  # numpy's scalars
    return item() if callable(item) else value


def hash_json(value: Any, *, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into an error that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StoreError(
                f"{path}: the disk is full ({error.strerror}); free some space and run the same command "
                "again, what is finished is kept"
            ) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Raises:
        StoreError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given, NaN refused."""
    write_text(path, json.dumps(to_jsonable(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: expected a result file here; was the run started?") from error
    except ValueError as error:
        raise StoreError(f"{path}: not valid JSON ({error}); remove the file and run again") from error


class Store:
    """Content-addressed folders below `root`: `root/<kind>/<key>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def folder(self, kind: str, key: str) -> Path:
        """Where the result of `key` lies or would lie."""
        return self.root / kind / key

    def get_or_make(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The finished folder of `key`; made by `make(temporary_folder)` if it is not there.

        One process makes it while others wait.  If `make` raises, nothing is left.

        Raises:
            StoreError: the disk is full.
        """
        place = self.folder(kind, key)
        if place.is_dir():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(place), FileLock(f"{place}.lock"):
            if place.is_dir():
                return place
            draft = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=place.parent))
            try:
                make(draft)
                draft.chmod(0o755)
                draft.rename(place)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return place
