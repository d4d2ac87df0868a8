"""Prompts from files, and groups of prompts, brought into the one list that trials are generated from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lora_bench.errors import Problem
from lora_bench.spec.problems import describe_value
from lora_bench.spec.reading import MAX_BYTES
from lora_bench.spec.tree import Node, Place
from lora_bench.text.files import split_lines


def expand_prompts(tree: Node, problems: list[Problem]) -> Node:
    """The document with every `{file: ...}` replaced by its prompts, and the groups added to `prompts`.

    In a prompt file each line is a prompt; empty lines and lines that begin with `#` are skipped.
    """
    children = dict(tree.children)
    if "prompts" in children:
        children["prompts"] = _expand(children["prompts"], problems)
    sets = children.get("prompt_sets")
    if sets is not None and sets.children:
        sets = replace(sets, value={name: _expand(group, problems) for name, group in sets.children.items()})
        children["prompt_sets"] = sets
        own = children.get("prompts") or Node([], sets.place, sets.key_place)
        known = {node.value for node in own.items if isinstance(node.value, str)}
        added: list[Node] = []
        for group in sets.children.values():
            for node in group.items:
                if not isinstance(node.value, str) or node.value not in known:
                    added.append(node)
                    known |= {node.value} if isinstance(node.value, str) else set()
        if isinstance(own.value, list):
            children["prompts"] = replace(own, value=[*own.value, *added])
    return replace(tree, value=children)


def _expand(node: Node, problems: list[Problem]) -> Node:
    if list(node.children) == ["file"]:
        return replace(node, value=_read_prompts(node.children["file"], problems))
    if not isinstance(node.value, list):
        return node
    items: list[Node] = []
    for item in node.value:
        if list(item.children) == ["file"]:
            items += _read_prompts(item.children["file"], problems)
        else:
            items.append(item)
    return replace(node, value=items)


def _read_prompts(stated: Node, problems: list[Problem]) -> list[Node]:
    """The prompts of a file, each with its place there."""
    if not isinstance(stated.value, str) or not stated.value or "\0" in stated.value:
        message = (
            f"`file` is {describe_value(stated)}; expected the path of a text file with one prompt per line"
        )
        problems.append(Problem(str(stated.place), "prompts", message))
        return []
    path = Path(stated.value)
    try:
        if path.stat().st_size > MAX_BYTES:
            problems.append(
                Problem(str(stated.place), "prompts", f"{path} is larger than {MAX_BYTES // 1024} KiB")
            )
            return []
        lines = split_lines(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        problems.append(Problem(str(stated.place), "prompts", f"{path}: cannot be read ({reason})"))
        return []
    found = [
        Node(line.strip(), Place(str(path), number, 1, path.parent))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        problems.append(
            Problem(str(stated.place), "prompts", f"{path} contains no prompt; expected one per line")
        )
    return found
