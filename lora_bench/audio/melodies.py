"""Melodies that clips follow: the audio files of a folder, in the order of their paths, or one file.

Clip `i` of every prompt follows melody `i mod N` of `N`.  The files are read, never written.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lora_bench.audio.listing import list_folder, name_suffixes
from lora_bench.audio.reading import read_header
from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path
from lora_bench.store import hash_file, hash_json


def list_melodies(path: Path) -> tuple[Path, ...]:
    """Return the melodies of a folder, at any depth and sorted by path; those of a file are the file.

    Raises:
        DatasetError: nothing is there, or the folder holds no audio, or something that cannot be opened.
    """
    if path.is_file():
        return (path,)
    if not path.exists():
        raise DatasetError(
            f"{spell_path(path)}: does not exist; expected a folder of melodies or one audio file ({name_suffixes()})"
        )
    listing = list_folder(path)
    for name, reason in listing.dropped.items():  # without it, clips would follow other files
        raise DatasetError(
            f"{spell_path(path)}/{name}: {reason}; clips follow the files of a folder by their order, so mend or "
            "remove it"
        )
    if not listing.files:
        raise DatasetError(
            f"{spell_path(path)}: holds no audio file; expected melodies ({name_suffixes()}), at any depth; add some"
        )
    return listing.files


def check_melodies(path: Path) -> None:
    """Read the header of every melody.

    Raises:
        DatasetError: as `list_melodies`.
        AudioFileError: a file is no audio, or damaged; names it.
    """
    for file in list_melodies(path):
        read_header(file)


def place_melody(clip: int, n_melodies: int) -> int:
    """Return which of the melodies a clip follows."""
    return clip % n_melodies


def hash_melodies(path: Path) -> tuple[str, ...]:
    """Return the hashes of the melodies' contents, in their order.

    Raises:
        DatasetError: as `list_melodies`.
    """
    dated = [(file, file.stat()) for file in list_melodies(path)]
    return tuple(_hash_unchanged(file, status.st_size, status.st_mtime_ns) for file, status in dated)


def fingerprint_melodies(path: Path) -> str | None:
    """Return one hash of the melodies' contents and order; None if they are not there."""
    try:
        return hash_json(hash_melodies(path))
    except (DatasetError, OSError):
        return None


@lru_cache(1024)
def _hash_unchanged(file: Path, _: int, __: int) -> str:
    """Return the hash of a file, which all trials of a plan share."""
    return hash_file(file)
