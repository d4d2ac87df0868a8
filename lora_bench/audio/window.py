"""A part of a file that decoders read as a file of its own."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_LOST_FRAC = 0.01
"""Share of a file that may be missing or junk (tags between frames, a cut first frame), which every player skips."""


class Window(io.RawIOBase):
    """Bytes `start` to `end` of a file, with `head` in place of the first ones."""

    def __init__(self, path: Path, start: int = 0, end: int | None = None, head: bytes = b"") -> None:
        super().__init__()
        self._stream = path.open("rb")
        size = path.stat().st_size
        self._start, self._n_bytes = start, (size if end is None else end) - start
        self._head, self._place = head, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset in the window."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset; before the start means the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._n_bytes}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer` with the bytes that are left."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._n_bytes - self._place)
        if wanted <= 0:
            return 0
        if self._place < len(self._head):
            part = self._head[self._place : self._place + wanted]
        else:
            self._stream.seek(self._start + self._place)
            part = self._stream.read(wanted)
        view[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        """Close the window and its file."""
        self._stream.close()
        super().close()
