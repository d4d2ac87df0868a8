"""One walk through a folder for everything that looks at it: reader, captions and fingerprint."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FolderWalk:
    """The contents of a folder at any depth, without hidden files and folders.

    Links are followed, each real folder once and by its own name where it has one.

    Attributes:
        files: everything that is not a folder, with its status; a link that leads nowhere is not among them.
        dropped: links that lead nowhere or back to a folder above, and folders that cannot be read, by
            path relative to the folder, each with the reason.
        real_folders: real paths of all folders that were read.
    """

    files: list[tuple[Path, os.stat_result]] = field(default_factory=list[tuple[Path, os.stat_result]])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    real_folders: set[str] = field(default_factory=set[str])


def walk_folder(folder: Path) -> FolderWalk:
    """Walk through `folder`; one that is missing or cannot be read is dropped under the name `.`."""
    walk = FolderWalk()
    root = os.path.realpath(folder)
    waiting = [folder]
    while waiting:  # links wait until all real folders have been seen
        waiting = [link for place in sorted(waiting) for link in _walk_real(place, folder, root, walk)]
    return walk


def is_regular(status: os.stat_result) -> bool:
    """Return whether a file can be read like one: not a pipe, a socket or a device."""
    return stat.S_ISREG(status.st_mode)


def _walk_real(place: Path, folder: Path, root: str, walk: FolderWalk) -> Iterator[Path]:
    """Walk a folder and the real folders below it; yields links to folders."""
    real = os.path.realpath(place)
    name = os.path.relpath(place, folder)
    if real in walk.real_folders:
        return
    if real != root and Path(root).is_relative_to(real):
        walk.dropped[name] = "is a link to a folder above this one, so it is not followed"
        return
    walk.real_folders.add(real)
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError as error:
        walk.dropped[name] = f"is a folder that cannot be read ({error.strerror})"
        return
    folders: list[Path] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = place / entry.name
        try:
            status = path.stat()
        except OSError as error:
            reason = "nowhere" if isinstance(error, FileNotFoundError) else f"nowhere ({error.strerror})"
            words = (
                f"is a link that leads {reason}"
                if entry.is_symlink()
                else f"cannot be read ({error.strerror})"
            )
            walk.dropped[os.path.relpath(path, folder)] = words
            continue
        if not stat.S_ISDIR(status.st_mode):
            walk.files.append((path, status))
        elif entry.is_symlink():
            yield path
        else:
            folders.append(path)
    for path in folders:
        yield from _walk_real(path, folder, root, walk)
