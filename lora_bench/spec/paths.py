"""Relative paths of a spec, made absolute against the file that states them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lora_bench.spec.tree import Node

_LOCAL_MODEL = ("./", "../", "/", "~/")


def resolve_paths(node: Node, trail: tuple[str, ...] = ()) -> Node:
    """The document with absolute paths for datasets, prompt files and models in local folders.

    Keys may be dotted and values may be lists, as in axes; numbers and other wrong values stay as they
    are, for the models to refuse.
    """
    if isinstance(node.value, dict):
        children = {key: resolve_paths(child, (*trail, *key.split("."))) for key, child in node.value.items()}
        return replace(node, value=children)
    if isinstance(node.value, list):
        return replace(node, value=[resolve_paths(child, trail) for child in node.value])
    if not isinstance(node.value, str) or not node.value or "\0" in node.value:
        return node
    if trail[-2:] == ("dataset", "path") or (trail[:1] == ("datasets",) and trail[2:] == ("path",)):
        return replace(node, value=resolve_path(node.value, node.place.folder).as_posix())
    if trail[-1:] == ("file",) and trail[:1] in {("prompts",), ("prompt_sets",)}:
        return replace(node, value=resolve_path(node.value, node.place.folder).as_posix())
    if trail[-2:] == ("model", "id"):
        return replace(node, value=_resolve_model(node.value, node.place.folder))
    return node


def resolve_path(stated: str, folder: Path) -> Path:
    """Absolute, `..` folded without asking the disk (so that links keep their names)."""
    import os.path

    path = Path(stated)
    if stated == "~" or stated.startswith("~/"):
        path = path.expanduser()
    return Path(os.path.normpath(folder / path))


def _resolve_model(stated: str, folder: Path) -> str:
    """A local folder as an absolute path; `pocket` and hub ids as they are.

    What begins with `.`, `/` or `~` is a folder, and so is anything that exists beside the spec.
    """
    path = resolve_path(stated, folder)
    is_local = stated.startswith(_LOCAL_MODEL) or (stated != "pocket" and path.is_dir())
    return path.as_posix() if is_local else stated
