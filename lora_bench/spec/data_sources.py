"""What `dataset.path` may name besides a folder: lists, archives, tables of sounds, datasets on the hub, plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["list", "zip", "tar", "table", "hub", "plugin", "folder"]
HUB = "hf:"
"""`hf:owner/name`, or `hf:owner/name@revision`."""
PLUGIN = "plugin:"
"""`plugin:NAME`, of another installed package."""
EXPECTED = (
    "a list of files (.txt, .m3u, .csv, .tsv), an archive (.zip, .tar, .tar.gz), a table with sounds (.parquet, "
    ".arrow), `hf:owner/name`, or `plugin:NAME`"
)
_SUFFIXES: dict[str, Kind] = {
    ".txt": "list", ".m3u": "list", ".m3u8": "list", ".csv": "list", ".tsv": "list",
    ".zip": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar",
    ".parquet": "table", ".arrow": "table",
}  # fmt: skip


def find_kind(path: Path) -> Kind:
    """Return what a path names, by its suffix; what has no suffix of these is a folder."""
    name = path.name.lower()
    if path.as_posix().startswith(HUB):
        return "hub"
    if path.as_posix().startswith(PLUGIN):
        return "plugin"
    if path.is_dir():
        return "folder"
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    return "folder"


def is_there(path: Path) -> bool:
    """Return whether a source exists on this machine; hub and plug-ins count, for these are asked later."""
    kind = find_kind(path)
    return kind in {"hub", "plugin"} or (path.is_dir() if kind == "folder" else path.is_file())


def name_source(path: Path) -> str:
    """Return a short name: the folder's, or the file's without its suffix."""
    if find_kind(path) == "folder":
        return path.resolve().name
    name = path.name.partition("@")[0].removeprefix(PLUGIN)
    return next((name[: -len(suffix)] for suffix in _SUFFIXES if name.lower().endswith(suffix)), name)
