"""Results on disk: content-addressed folders, atomic writes, locks.

A folder is either complete or not there: it is made under a temporary name beside its place and
renamed when done.  A lock file per key makes one process do the work while others wait for it; the lock
goes with the process that holds it, so the file that stays behind means nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from lora_bench.errors import FULL_DISK, KEPT, StoreError, describe_os_error

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonObject: TypeAlias = Mapping[str, JsonValue]
"""A JSON object whose content is free, or is only written."""
LOCK, CACHE = ".lock", ".cache"
"""Names of the lock in a folder that one process works on, and of the cache that the runs of a folder share."""
DRAFT = re.compile(r"^\..+\.[a-z0-9_]{8}$")
"""Temporary names: a dot, the final name, a dot, and what `tempfile` adds."""


def to_jsonable(value: Any) -> Any:
    """Plain JSON types from dataclasses, paths, mappings, sequences and numpy scalars.

    A field of a dataclass whose metadata is `ABSENT_IF_NONE` is left out if it is None.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {
            part.name: to_jsonable(found)
            for part in fields(value)
            if (found := getattr(value, part.name)) is not None or "absent_if_none" not in part.metadata
        }
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    dump = getattr(value, "model_dump", None)  # Pydantic's models, without importing them
    if callable(dump):
        return dump(mode="json", by_alias=True)
    item = getattr(value, "item", None)  # numpy's scalars
    return item() if callable(item) else value


def drop_absent(record: Any) -> JsonObject:
    """Return the fields of a dataclass as JSON, without those that are None."""
    return {name: to_jsonable(value) for name, value in vars(record).items() if value is not None}


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
    """Turn a full disk into a `StoreError`, and name `path` in other errors of the disk that name none, or a draft.

    Raises:
        StoreError: the disk is full.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise StoreError(f"{path}: the disk is full ({error}); {KEPT}") from error
        if isinstance(error, OSError) and error.errno is not None:
            named = error.filename if isinstance(error.filename, str) else ""
            if not named or DRAFT.match(Path(named).name):
                error.filename = str(path)
        raise


def is_disk_full(error: Exception) -> bool:
    """Whether an error says that there was no space; safetensors and libsndfile say it in words only."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    return os.strerror(errno.ENOSPC) in str(error) or f"os error {errno.ENOSPC}" in str(error)


def make_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Write a folder whole or not at all; an earlier one is replaced.

    Args:
        folder: nobody else writes to it now.
        fill: writes the files into a draft next to the folder, which is then renamed.

    Raises:
        StoreError: the disk is full.
    """
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fill(draft)
            for path in draft.rglob("*"):
                if path.is_symlink():  # to somebody else's file
                    continue
                path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors makes its files private
            draft.chmod(0o755)
            _sync_folder(draft)
            if not folder.exists():
                draft.rename(folder)
                return
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(aside / folder.name)
            draft.rename(folder)
            shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Raises:
        StoreError: the disk is full.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """`write_bytes` for UTF-8 text.

    A byte of a file name that is not UTF-8, which Python reads as half of a surrogate pair, is written as its escape;
    in JSON that is the same string again.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given, NaN refused."""
    write_text(path, json.dumps(to_jsonable(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, with or without a byte order mark.

    Raises:
        StoreError: the file is missing, unreadable or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{path}: expected a result file here; was the run started?") from error
    except OSError as error:
        raise StoreError(describe_os_error(error)) from error
    except (ValueError, RecursionError) as error:
        mend = "remove the file and run again" if is_in_run(path) else "expected a JSON file of a run"
        raise StoreError(f"{path}: not valid JSON ({error}); {mend}") from error


def is_in_run(path: Path) -> bool:
    """Whether a file lies in a run's folder or in the cache, so that a run writes it again.

    A run's folder has a lock, and a cache next to it; folders of other programs may hold files of the same names.
    """
    return any(
        place.name == CACHE or ((place / LOCK).is_file() and (place.parent / CACHE).is_dir())
        for place in path.absolute().parents
    )


def remove_drafts(folder: Path, *, skip: Collection[str] = ()) -> None:
    """Remove what killed processes left half written below `folder`, to which nobody may be writing now.

    Args:
        folder: looked through at any depth; need not be there.
        skip: names of folders directly in it that are left alone.
    """
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in skip]
        for name in [name for name in folders if DRAFT.match(name)]:
            folders.remove(name)
            shutil.rmtree(Path(place, name), ignore_errors=True)
        for name in files:
            if DRAFT.match(name):
                Path(place, name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring files to the disk before their folder gets its name, or a power cut could leave them empty."""
    for place, _, files in os.walk(folder):
        for name in files:
            if Path(place, name).is_symlink():
                continue
            descriptor = os.open(Path(place, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Store:
    """Content-addressed folders below `root`: `root/<kind>/<key>/`.

    Attributes:
        uses_file: gets a line `<kind>/<key>` for everything that is asked for, so that cleaning knows what
            somebody needs; None keeps no record.
    """

    def __init__(self, root: Path, uses_file: Path | None = None) -> None:
        self.root = root.absolute()
        self.uses_file = uses_file
        self._uses: dict[str, None] = {}

    def folder(self, kind: str, key: str) -> Path:
        """Where the result of `key` lies or would lie."""
        return self.root / kind / key

    def get_or_make(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The finished folder of `key`; made by `make(temporary_folder)` if it is not there.

        One process makes it while others wait.  If `make` raises, nothing is left; what a killed process
        left of it is removed.

        Raises:
            StoreError: the disk is full.
        """
        place = self.folder(kind, key)
        self._note_use(f"{kind}/{key}")
        if place.is_dir():
            return place
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if not place.is_dir():
                    for found in list(place.parent.iterdir()):
                        if DRAFT.match(found.name) and found.name[1:-9] == place.name:
                            shutil.rmtree(found, ignore_errors=True)
                    make_folder(place, make)
        return place

    @contextmanager
    def hold(self, kind: str, key: str, on_wait: Callable[[], None]) -> Iterator[Path]:
        """Hold the folder of `key`, which may be made in several attempts: it is there, and may be incomplete.

        Args:
            kind: of results.
            key: of the result.
            on_wait: called if another process holds it, before waiting.

        Raises:
            StoreError: the disk is full.
        """
        place = self.folder(kind, key)
        self.note_use(kind, key)
        lock = FileLock(f"{place}.lock")
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        try:
            yield place
        finally:
            lock.release()

    def note_use(self, kind: str, key: str) -> None:
        """Record that an entry is needed, without asking for it."""
        self._note_use(f"{kind}/{key}")

    def _note_use(self, entry: str) -> None:
        """Before it is used, so that there is no moment at which it looks unused."""
        if self.uses_file is None or entry in self._uses:
            return
        self._uses[entry] = None
        with disk_errors(self.uses_file):
            self.uses_file.parent.mkdir(parents=True, exist_ok=True)
            with self.uses_file.open("a", encoding="utf-8") as stream:
                stream.write(f"{entry}\n")

    def settle_uses(self) -> None:
        """The work is done: what earlier attempts asked for, and this one did not, is no longer needed.

        Raises:
            StoreError: the disk is full; the longer record stays.
        """
        if self.uses_file is not None:
            write_text(self.uses_file, "".join(f"{entry}\n" for entry in sorted(self._uses)))
