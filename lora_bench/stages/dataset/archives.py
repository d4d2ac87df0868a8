"""Unpack zip and tar archives; those of webdataset have `KEY.mp3`, `KEY.txt` and `KEY.json`, which are sidecars."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lora_bench.audio.listing import AUDIO_SUFFIXES, OTHER_SUFFIXES
from lora_bench.errors import DatasetError, StoreError
from lora_bench.stages.dataset.unpacked_folder import UnpackedFolder
from lora_bench.store import is_disk_full

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)


def unpack(archive: Path, target: UnpackedFolder, prefix: str = "") -> None:
    """Write the files of an archive; links and devices are refused, hidden files left out.

    Raises:
        DatasetError: it is damaged or encrypted, or holds what may not be unpacked.
        StoreError: the disk is full.
    """
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, target, prefix)
        else:
            _unpack_tar(archive, target, prefix)
    except (DatasetError, StoreError):
        raise
    except _DAMAGE as error:
        if is_disk_full(error):
            raise
        raise target.complain(
            f"cannot be unpacked ({type(error).__name__}: {error}); get or pack {archive.name} again"
        ) from error


def _unpack_zip(archive: Path, target: UnpackedFolder, prefix: str) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [member for member in packed.infolist() if not member.is_dir()]
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in {0, stat.S_IFREG}:
                raise target.complain(
                    f"holds `{member.filename}`, which is a link or a device; pack the files themselves"
                )
            if member.flag_bits & 1:
                raise target.complain(f"holds `{member.filename}`, which is encrypted; unpack it yourself")
        target.need_space(sum(member.file_size for member in members))
        for member in members:
            with packed.open(member) as stream:
                target.write(prefix + member.filename, stream)


def _unpack_tar(archive: Path, target: UnpackedFolder, prefix: str) -> None:
    with tarfile.open(archive, "r:*") as packed:
        for member in packed:
            if member.isdir():
                continue
            if not member.isreg():
                raise target.complain(
                    f"holds `{member.name}`, which is a link or a device; pack the files themselves (`tar -h`)"
                )
            stream = packed.extractfile(member)
            if stream is not None:
                target.write(prefix + member.name, stream)


def count_recordings(archive: Path) -> int | None:
    """Count the members that are audio by name; None if that takes unpacking, or the archive is damaged."""
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as packed:
                return sum(map(_is_audio, packed.namelist()))
        if archive.name.lower().endswith(".tar"):
            with tarfile.open(archive, "r:") as packed:
                return sum(map(_is_audio, _list_names(packed)))
    except _DAMAGE:
        pass
    return None


def _list_names(packed: tarfile.TarFile) -> Iterator[str]:
    for member in packed:
        if member.isreg():
            yield member.name


def _is_audio(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in AUDIO_SUFFIXES | OTHER_SUFFIXES
