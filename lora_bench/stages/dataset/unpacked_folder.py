"""A folder in the cache that files of somebody else's making are written to: names and sizes are checked."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lora_bench.errors import DatasetError, StoreError
from lora_bench.slugs import spell_path
from lora_bench.store import write_text

MAX_BYTES = 256 * 2**30
"""Of all files of a source."""
MAX_FILES = 1_000_000
_BLOCK = 1 << 20


class UnpackedFolder:
    """Writes files below a folder, and nowhere else.

    Attributes:
        source: what is unpacked, for messages.
        folder: where.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self._n_bytes = self._n_files = 0

    def complain(self, words: str) -> DatasetError:
        """Return an error about the source."""
        return DatasetError(f"dataset.path: {spell_path(self.source)}: {words}")

    def place(self, name: str) -> Path | None:
        """Return where a file of this name goes, with its folders made; None for hidden files.

        Raises:
            DatasetError: the name leads out of the folder, is not a name, or was there before.
        """
        slashed = name.replace("\\", "/")
        parts = slashed.split("/")
        if slashed.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", slashed) or "\0" in name:
            raise self.complain(
                f"holds `{spell_path(name)}`, which leads out of the folder that it is unpacked to; pack it again with "
                "relative names"
            )
        clean = posixpath.normpath(slashed)
        if clean == "." or any(part.startswith(".") for part in clean.split("/")):
            return None
        self._n_files += 1
        if self._n_files > MAX_FILES:
            raise self.complain(f"holds more than {MAX_FILES:,} files; unpack it yourself")
        path = self.folder / clean
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.complain(
                f"holds `{spell_path(name)}`, which cannot be written ({error.strerror}); rename it"
            ) from error
        if path.exists() or path.is_symlink():
            raise self.complain(f"holds `{spell_path(name)}` twice; keep one")
        return path

    def write(self, name: str, stream: IO[bytes]) -> None:
        """Write a file from a stream.

        Raises:
            DatasetError: see `place`; or the source becomes too large.
            StoreError: the disk is full.
        """
        path = self.place(name)
        if path is None:
            return
        with path.open("xb") as target:
            while block := stream.read(_BLOCK):
                self._n_bytes += len(block)
                if self._n_bytes > MAX_BYTES:
                    raise self.complain(
                        f"unpacks to more than {MAX_BYTES // 2**30} GiB; unpack it yourself, and give the folder"
                    )
                target.write(block)

    def need_space(self, n_bytes: int) -> None:
        """Check before anything is written that there is space for files of a stated size.

        Raises:
            StoreError: there is less.
        """
        free = shutil.disk_usage(self.folder).free
        if n_bytes > free:
            raise StoreError(
                f"{self.folder.parent}: {spell_path(self.source)} unpacks to {n_bytes / 2**30:.1f} GiB, and "
                f"{free / 2**30:.1f} GiB are free; free some space, or choose another disk with --runs-dir"
            )

    def write_fields(self, lines: list[Mapping[str, object]]) -> None:
        """Write what is known about files, `file_name` first, where captions are read.

        Lines without a caption go to a table that only templates use.
        """
        import csv
        import io
        import json

        from lora_bench.stages.dataset.metadata import has_caption

        if not lines:
            return
        if all(has_caption(line) for line in lines):
            text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
            write_text(self.folder / "metadata.jsonl", text)
            return
        stream = io.StringIO()
        columns = list(dict.fromkeys(name for line in lines for name in line))
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text(self.folder / "columns.csv", stream.getvalue())
