"""An archive of a run's numbers, from which `lora-bench report` rebuilds the report."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lora_bench.planning.run_folder import RunFolder, SourceFolder, TrialFolder

SUMS = "SHA256SUMS"
NUMBERS = frozenset({".json", ".csv", ".npz"})
_NEVER = frozenset({TrialFolder.checkpoint, TrialFolder.progress, TrialFolder.codes, RunFolder.tensorboard})
_CLIPS = frozenset({TrialFolder.clips, SourceFolder.reference_clips, SourceFolder.coded_reference_clips})


def _list_files(run_folder: Path, *, with_clips: bool, with_adapters: bool) -> Iterator[Path]:
    """Yield the files of a run that are kept, relative to its folder."""
    for path in run_folder.rglob("*"):
        parts = path.relative_to(run_folder).parts
        # of a trial or a source, the name in its own folder
        kind = (
            parts[min(2, len(parts) - 1)] if parts[0] in {RunFolder.trials, RunFolder.sources} else parts[0]
        )
        is_hidden = any(part.startswith(".") for part in parts)
        if not path.is_file() or path.is_symlink() or is_hidden or kind in _NEVER:
            continue
        is_kept = path.suffix in NUMBERS
        if kind == TrialFolder.adapter:
            is_kept = with_adapters
        elif kind in _CLIPS:
            is_kept = with_clips or path.suffix == ".json"
        if is_kept:
            yield Path(*parts)


def write_archive(path: Path, folders: dict[str, Path], *, with_clips: bool, with_adapters: bool) -> None:
    """Write a `.tar.gz` with a folder per run and the SHA-256 sum of every file; the same files give the same bytes.

    Args:
        path: of the archive.
        folders: folder of each run by the name it gets.
        with_clips: keep generated clips and the references' excerpts, which a page plays.
        with_adapters: keep adapters.
    """
    sums: list[str] = []
    with tarfile.open(path, "w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
        for name, folder in folders.items():
            for place in sorted(_list_files(folder, with_clips=with_clips, with_adapters=with_adapters)):
                data = (folder / place).read_bytes()
                inner = f"{name}/{place.as_posix()}"
                sums.append(f"{hashlib.sha256(data).hexdigest()}  {inner}\n")
                _add(archive, inner, data)
        _add(archive, SUMS, "".join(sums).encode())
    _drop_time(path)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _drop_time(path: Path) -> None:
    """Clear the time in the header of gzip (RFC 1952: bytes 4 to 7), which would make equal archives differ."""
    with path.open("r+b") as stream:
        stream.seek(4)
        stream.write(bytes(4))
