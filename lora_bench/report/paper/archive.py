"""An archive of a run's numbers, from which `lora-bench report` rebuilds the report."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lora_bench.planning.run_folder import RunFolder, TrialFolder

SUMS = "SHA256SUMS"
NUMBERS = frozenset({".json", ".csv", ".npz"})
_NEVER = frozenset({TrialFolder.checkpoint, TrialFolder.progress})
_CLIP_FOLDERS = frozenset({TrialFolder.clips, "reference_clips", "coded_reference_clips"})


def list_files(run_folder: Path, *, with_clips: bool, with_adapters: bool) -> list[Path]:
    """Return the files of a run that are kept, relative to its folder, by name.

    Args:
        run_folder: the run.
        with_clips: keep generated clips and the references' excerpts, which a page plays.
        with_adapters: keep adapters.
    """
    return sorted(_choose(run_folder, with_clips=with_clips, with_adapters=with_adapters))


def _choose(run_folder: Path, *, with_clips: bool, with_adapters: bool) -> Iterator[Path]:
    for path in run_folder.rglob("*"):
        place = path.relative_to(run_folder)
        parts = set(place.parts)
        if not path.is_file() or path.is_symlink() or any(part.startswith(".") for part in place.parts):
            continue
        if parts & _NEVER or TrialFolder.codes in parts:
            continue
        if TrialFolder.adapter in parts:
            if with_adapters:
                yield place
        elif parts & _CLIP_FOLDERS:
            if with_clips or path.suffix == ".json":
                yield place
        elif path.suffix in NUMBERS and RunFolder.tensorboard not in parts:
            yield place


def write_archive(path: Path, folders: dict[str, Path], *, with_clips: bool, with_adapters: bool) -> int:
    """Write a `.tar.gz` with a folder per run and the SHA-256 sum of every file; the same files give the same bytes.

    Args:
        path: of the archive.
        folders: folder of each run by the name it gets.
        with_clips: see `list_files`.
        with_adapters: see `list_files`.

    Returns:
        The number of files.
    """
    sums: list[str] = []
    with tarfile.open(path, "w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
        for name, folder in folders.items():
            for place in list_files(folder, with_clips=with_clips, with_adapters=with_adapters):
                data = (folder / place).read_bytes()
                inner = f"{name}/{place.as_posix()}"
                sums.append(f"{hashlib.sha256(data).hexdigest()}  {inner}\n")
                _add(archive, inner, data)
        _add(archive, SUMS, "".join(sums).encode())
    _drop_time(path)
    return len(sums)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _drop_time(path: Path) -> None:
    """Clear the time in the header of gzip (RFC 1952: bytes 4 to 7), which would make equal archives differ."""
    with path.open("r+b") as stream:
        stream.seek(4)
        stream.write(bytes(4))
