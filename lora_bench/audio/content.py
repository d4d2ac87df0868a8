"""Identify a file by its first bytes, not by its name."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_bench.audio.mpeg import find_first_frame
from lora_bench.errors import AudioFileError

Kind = Literal["chunks", "flac", "ogg", "mpeg", "other"]

HEAD_BYTES = 1 << 16
CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff\x2e\x91\xcf\x11", b"FORM", b"caff", b".snd")
LOOKS_LIKE_AUDIO = re.compile(
    rb"(RIFF|RIFX|RF64|BW64)....WAVE|riff\x2e\x91\xcf\x11|FORM....AIF[FC]|caff|fLaC|OggS|ID3[\x02-\x04]"
    rb"|....ftypM4[AB] |\xff[\xfa\xfb\xf2\xf3\xe2\xe3\xf1\xf9]",
    re.DOTALL,
)
NOT_AUDIO = (
    (re.compile(rb"version https://git-lfs\.github\.com/spec/"),
     "is a pointer of Git LFS, not the sound itself; fetch it with `git lfs pull`"),
    (re.compile(rb"\S*/annex/objects/"),
     "is a pointer of git-annex, not the sound itself; fetch it with `git annex get`"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)", re.IGNORECASE | re.DOTALL),
     "is a web page (HTML), not audio; download the file itself"),
    (re.compile(rb"PK\x03\x04|7z\xbc\xaf|Rar!|\x1f\x8b|BZh|\xfd7zXZ"), "is a compressed archive; unpack it"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|%PDF", re.DOTALL), "is a picture or a document, not audio"),
    (re.compile(rb"MThd"), "is MIDI, notes without sound; render it first"),
)  # fmt: skip
KINDS_OF_NODE = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """A file that may be audio.

    Attributes:
        start: offset of the audio, after any tags.
        n_bytes: size of the file.
    """

    kind: Kind
    start: int
    n_bytes: int


def identify(path: Path) -> Content:
    """Look at the first bytes of a file.

    Raises:
        AudioFileError: the file cannot be read, is empty, or is known to be something else.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            node = next((words for test, words in KINDS_OF_NODE if test(status.st_mode)), "something else")
            raise AudioFileError(str(path), f"cannot be read (it is {node}, not a file)")
        with path.open("rb") as stream:
            start = 0
            head = stream.read(HEAD_BYTES)
            while (tag_bytes := _measure_tag(head)) and start + tag_bytes < status.st_size:
                start += tag_bytes
                stream.seek(start)
                head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise AudioFileError(str(path), f"cannot be read ({error.strerror})") from error
    if not status.st_size:
        raise AudioFileError(str(path), "is empty (0 bytes)")
    kind = _choose_kind(head)
    if kind is None and start == 0:
        _refuse(path, head)
    return Content(kind or "other", start, status.st_size)


def looks_like_audio(path: Path) -> bool:
    """Return whether a regular file begins like audio."""
    try:
        with path.open("rb", buffering=0) as stream:
            return LOOKS_LIKE_AUDIO.match(stream.read(16)) is not None
    except OSError:
        return False


def _choose_kind(head: bytes) -> Kind | None:
    if head.startswith(CHUNKED):
        return "chunks"
    if head.startswith(b"fLaC"):
        return "flac"
    if head.startswith(b"OggS"):
        return "ogg"
    if head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u", b"wvpk", b"MAC ", b"TTA")):
        return "other"
    return "mpeg" if find_first_frame(head) is not None else None


def _refuse(path: Path, head: bytes) -> None:
    """Raise for known contents that are not audio, and for text."""
    for pattern, reason in NOT_AUDIO:
        if pattern.match(head):
            raise AudioFileError(str(path), reason)
    if not head.strip(b"\0"):
        raise AudioFileError(
            str(path), "cannot be decoded (it begins with zero bytes only: an unfinished download?)"
        )
    try:
        text = head.decode("utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return
        text = head[: error.start].decode("utf-8-sig", "replace")
    if all(letter.isprintable() or letter in "\t\r\n\f\x1b" for letter in text):
        begin = " ".join(text.split())[:40]
        raise AudioFileError(str(path), f"cannot be decoded (it is text that begins with `{begin}`)")


def _measure_tag(head: bytes) -> int:
    """Return the bytes of the ID3v2 tag that `head` begins with; 0 if there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] > 4 or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]  # 7 bits a byte
    return 10 + size + (10 if head[5] & 0x10 else 0)
