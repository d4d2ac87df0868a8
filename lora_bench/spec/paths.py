"""Relative paths of a spec, made absolute against the file that states them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from lora_bench.errors import Problem
from lora_bench.spec.data_sources import EXPECTED, HUB, PLUGIN, is_there
from lora_bench.spec.tree import Node

_SCRIPTS = (".py", ".sh")
MELODIES = ("generation", "melodies")
_LOCAL_MODEL = ("./", "../", "/", "~/")


def resolve_paths(node: Node, trail: tuple[str, ...] = ()) -> Node:
    """The document with absolute paths for data, prompts, captions, melodies, and models and adapters in local folders.

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
    return replace(node, value=_resolve_value(node.value, node.place.folder, trail))


def _resolve_value(stated: str, folder: Path, trail: tuple[str, ...]) -> str:
    """A text of the spec, as an absolute path if its field is that of a file or a folder."""
    is_data = trail[-2:] == ("dataset", "path") or (trail[:1] == ("datasets",) and trail[2:] == ("path",))
    is_text = trail[-2:] in {
        ("captions", "file"),
        ("external", "clips"),
        ("external", "files"),
        MELODIES,
    } or (trail[-1:] == ("file",) and trail[:1] in {("prompts",), ("prompt_sets",)})
    is_adapter = trail[-2:] == ("lora", "path")
    if trail[-2:] == ("external", "command"):
        return _resolve_argument(stated, folder)
    if trail[-2:] == ("model", "id") or (is_adapter and stated.count("/") == 1):  # a name alone is no hub id
        return _resolve_model(stated, folder)
    if is_text or is_adapter or (is_data and not stated.startswith((HUB, PLUGIN))):
        return resolve_path(stated, folder).as_posix()
    return stated


def _resolve_argument(stated: str, folder: Path) -> str:
    """A script, or any file next to the spec, as an absolute path; any other word of a command as it is."""
    path = resolve_path(stated, folder)
    is_path = path.suffix in _SCRIPTS or stated.startswith(("./", "../", "~/"))
    return path.as_posix() if path.is_file() or is_path else stated


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


def find_missing_paths(tree: Node, used: Collection[str] | None = None) -> list[Problem]:
    """Problems of recordings, captions, melodies, local models and adapters that are not there, each at its place.

    Args:
        tree: a document with absolute paths.
        used: paths that count; None is all of them.
    """
    problems: list[Problem] = []
    for field, node in _list_paths(tree):
        path = Path(str(node.value))
        if used is not None and str(node.value) not in used:
            continue
        if field == "dataset.path" and not is_there(path):
            found = "is a file" if path.exists() else "does not exist"
            mend = (
                "expected a folder of recordings of the genre (wav, flac, ogg, opus, mp3 or m4a, at any depth); put "
                "them there or change dataset.path"
            ) + (f" (or {EXPECTED})" if path.exists() else "")
        elif field == "dataset.captions.file" and not path.is_file():
            found = "is a folder" if path.is_dir() else "does not exist"
            mend = "expected a csv or jsonl file; write one with `lora-bench captions`, or change dataset.captions.file"
        elif field == "external.clips" and not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            mend = (
                "expected a folder with the clips of another system; put them there or change external.clips"
            )
        elif field == "external.files" or (field == "external.command" and path.suffix in _SCRIPTS):
            if path.is_file():
                continue
            found = "is a folder" if path.is_dir() else "does not exist"
            mend = f"expected a file; change {field}"
        elif field == "generation.melodies" and not path.exists():
            found = "does not exist"
            mend = (
                "expected a folder of melodies or one audio file; put it there or change generation.melodies"
            )
        elif field == "model.id" and not path.exists():
            found = "does not exist"
            mend = "expected a folder with a MusicGen model, `pocket`, or a hub id such as facebook/musicgen-small"
        elif field == "lora.path" and not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            mend = "expected the folder of an adapter as PEFT writes it, or a hub id such as owner/name"
        else:
            continue
        problems.append(
            Problem(str(node.place), field, f"`{field}` is `{node.value}`, which {found}; {mend}")
        )
    return list(dict.fromkeys(problems))


def find_stated(tree: Node, path: str) -> tuple[str, str | None]:
    """Where a path or a model is stated, and where the captions next to it are; the document's place if nowhere."""

    def search(node: Node) -> Iterator[tuple[str, str | None]]:
        captions = node.children.get("captions")
        for child in (*node.children.values(), *node.items):
            if child.value == path:
                yield str(child.place), str(captions.stated_at) if captions is not None else None
            yield from search(child)

    return next(search(tree), (str(tree.place), None))


def _list_paths(node: Node, trail: tuple[str, ...] = ()) -> Iterator[tuple[str, Node]]:
    """`dataset.path`, `model.id` or `lora.path`, and its node, for every absolute path of the document."""
    for key, child in node.children.items():
        yield from _list_paths(child, (*trail, *key.split(".")))
    for child in node.items:
        yield from _list_paths(child, trail)
    if isinstance(node.value, str) and node.value.startswith("/") and "\0" not in node.value:
        if trail[-2:] == ("dataset", "path") or (trail[:1] == ("datasets",) and trail[2:] == ("path",)):
            yield "dataset.path", node
        elif trail[-2:] == ("captions", "file"):
            yield "dataset.captions.file", node
        elif trail[-2:] in {("external", "clips"), ("external", "files"), ("external", "command")}:
            yield ".".join(trail[-2:]), node
        elif trail[-2:] == MELODIES:
            yield "generation.melodies", node
        elif trail[-2:] == ("model", "id"):
            yield "model.id", node
        elif trail[-2:] == ("lora", "path"):
            yield "lora.path", node
