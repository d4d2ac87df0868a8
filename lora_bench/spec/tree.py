"""A spec as it was written: values that remember the file, line and column they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Trail: TypeAlias = tuple[str | int, ...]

# Of these, at most one is set; stating one undoes the other one of a parent or a default.
RIVALS: Mapping[tuple[str, str], str] = {
    ("dataset", "path"): "builtin",
    ("dataset", "builtin"): "path",
    ("lora", "budget"): "rank",
    ("lora", "rank"): "budget",
    ("lora", "block_size"): "budget",
}

WHOLE = frozenset({"train.lr", "dataset.source_settings", "dataset.captions.captioner_settings"})
"""Fields of a trial whose value may be a mapping; it is a value like others, not a section."""


@dataclass(frozen=True)
class Place:
    """Where something was written.

    Attributes:
        source: file as shown to people, or the override (`-o lora.rank=8`).
        line: 1-based, 0 for an override.
        column: 1-based, in characters.
        folder: what relative paths written here are relative to.
    """

    source: str
    line: int
    column: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Node:
    """A value with its place; mappings hold nodes by key, lists hold nodes.

    Attributes:
        place: where the value begins.
        key_place: where its key stands, None for list items and the document.
        n_nodes: nodes below and including this one, counted as often as aliases repeat them.
    """

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    key_place: Place | None = None
    n_nodes: int = 1

    @property
    def children(self) -> dict[str, Node]:
        """The mapping's nodes; empty if this is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The list's nodes; empty if this is no list."""
        return self.value if isinstance(self.value, list) else []

    @property
    def stated_at(self) -> Place:
        """Place of the key, or of the value where there is no key."""
        return self.key_place or self.place

    def to_plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.to_plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.to_plain() for child in self.value]
        return self.value


def merge_nodes(base: Node, over: Node, name: str = "") -> Node:
    """`base` with what `over` states: mappings merge key by key, anything else is replaced.

    A merged mapping stands where `over` has it, unless that is an override, which has no line.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        if child.value is not None:
            merged.pop(RIVALS.get((name, key), ""), None)
        merged[key] = merge_nodes(merged[key], child, key) if key in merged else child
    return replace(over if over.place.line else base, value=merged)


def nest_node(path: tuple[str, ...], leaf: Node) -> Node:
    """Mappings around `leaf`, one for each part of `path`."""
    for part in reversed(path):
        inner = leaf if leaf.key_place else replace(leaf, key_place=leaf.place)
        leaf = Node({part: inner}, leaf.place, leaf.key_place)
    return leaf


def find_node(root: Node, trail: Trail) -> tuple[Node, int]:
    """The deepest node along `trail`, and how many of its parts were followed.

    Keys may hold dots themselves (`lora.rank` as an axis), so several parts can be one key.
    """
    node, position = root, 0
    while position < len(trail):
        step = _follow(node, trail, position)
        if step is None:
            break
        node, position = step
    return node, position


def _follow(node: Node, trail: Trail, position: int) -> tuple[Node, int] | None:
    part = trail[position]
    if isinstance(node.value, list):
        in_range = isinstance(part, int) and 0 <= part < len(node.value)
        return (node.value[part], position + 1) if isinstance(part, int) and in_range else None
    for end in range(len(trail), position, -1):
        key = ".".join(str(item) for item in trail[position:end])
        if key in node.children:
            return node.children[key], end
    return None
