"""`extends`: a spec merged over its parents, each value keeping its place in the file that states it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lora_bench.errors import Problem, UsageError
from lora_bench.spec.paths import resolve_path
from lora_bench.spec.problems import describe_value
from lora_bench.spec.reading import read_file
from lora_bench.spec.shipped import find_spec
from lora_bench.spec.tree import Node, merge_nodes

MAX_FILES = 32


def read_with_parents(path: Path, problems: list[Problem], files: list[Path]) -> Node | None:
    """The merged document of a spec; None if it cannot be read at all.

    Its `name` is never a parent's (two specs would share a run folder): it is the file's own, or made
    from the file's name.

    Args:
        path: the spec, or the name of a shipped one.
        problems: gets what is wrong.
        files: gets every file that was read, parents before children.

    Raises:
        UsageError: the spec itself cannot be opened.
    """
    stated, path = path, find_spec(path, path)
    try:
        own = read_file(path, show_path(path), problems)
    except OSError as error:
        raise UsageError(
            f"{stated}: cannot be opened ({error.strerror or error}); expected the YAML file of a spec, or the "
            "name of a shipped one, such as quickstart (`lora-bench specs` lists them)"
        ) from error
    if own is None:
        return None
    if not isinstance(own.value, dict):
        what = describe_value(own)
        problems.append(
            Problem(str(own.place), "", f"a spec is a mapping (`key: value` lines), but this is {what}")
        )
        return None
    name = own.children.get("name") or Node(path.stem, own.place, own.place)
    merged = _merge_parents(own, (path.resolve(),), problems, files)
    files.append(path.absolute())
    return replace(merged, value={**merged.children, "name": name})


def show_path(path: Path) -> str:
    """A path as messages show it: relative to the current folder if it lies below it."""
    absolute = Path(os.path.normpath(path.absolute()))
    return (
        absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else str(absolute)
    )


def _merge_parents(own: Node, above: tuple[Path, ...], problems: list[Problem], files: list[Path]) -> Node:
    """`own` over its parents, the first parent undermost."""
    stated = own.children.get("extends")
    if stated is None:
        return own
    rest = {key: child for key, child in own.children.items() if key != "extends"}
    merged: Node | None = None
    for entry in [stated] if isinstance(stated.value, str) else stated.items:
        parent = _read_parent(entry, above, problems, files)
        if parent is not None:
            merged = parent if merged is None else merge_nodes(merged, parent)
    if not isinstance(stated.value, str | list) and stated.value is not None:
        problems.append(
            Problem(
                str(stated.place),
                "extends",
                f"`extends` is {describe_value(stated)}; expected a path or a list",
            )
        )
    own = replace(own, value=rest)
    return own if merged is None else merge_nodes(merged, own)


def _read_parent(
    entry: Node, above: tuple[Path, ...], problems: list[Problem], files: list[Path]
) -> Node | None:
    """One parent with its own parents merged in; None, and a problem, if it cannot be had."""
    if not isinstance(entry.value, str) or not entry.value or "\0" in entry.value:
        message = (
            f"`extends` names {describe_value(entry)}; expected the path of a spec, relative to this file"
        )
        problems.append(Problem(str(entry.place), "extends", message))
        return None
    path = find_spec(entry.value, resolve_path(entry.value, entry.place.folder))
    if path.resolve() in above:
        chain = " -> ".join(show_path(item) for item in (*above[above.index(path.resolve()) :], path))
        problems.append(Problem(str(entry.place), "extends", f"specs extend each other in a circle: {chain}"))
        return None
    if len(above) > MAX_FILES or len(files) > MAX_FILES:
        message = f"more than {MAX_FILES} files are extended; shorten the chain"
        problems.append(Problem(str(entry.place), "extends", message))
        return None
    try:
        parent = read_file(path, show_path(path), problems)
    except OSError as error:
        reason = error.strerror or error
        message = f"parent `{entry.value}` cannot be opened ({reason}); looked for {show_path(path)}"
        problems.append(Problem(str(entry.place), "extends", message))
        return None
    if parent is None:
        return None
    if not isinstance(parent.value, dict):
        problems.append(
            Problem(str(parent.place), "", f"a spec is a mapping, but this is {describe_value(parent)}")
        )
        return None
    parent = replace(parent, value={key: node for key, node in parent.children.items() if key != "name"})
    merged = _merge_parents(parent, (*above, path.resolve()), problems, files)
    files.append(path)
    return merged
