"""YAML as people mean it, read into nodes that know their places.

The subset is what a spec needs: mappings with text keys, lists, scalars and plain anchors.  `1e-4` is a
number; `yes`, `no`, `on`, `off`, dates and `1:30` are text; a key may stand once; tags are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lora_bench.errors import Problem
from lora_bench.spec.tree import Node, Place, Scalar

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_NODES = 100_000
MAX_DIGITS = 40

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(([0-9][0-9_]*)?\.[0-9][0-9_]*|[0-9][0-9_]*\.?)([eE][-+]?[0-9]+)?")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# libyaml where PyYAML was built with it: ten times as fast, the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableError(Exception):
    """The rest of this text cannot be read; the problem is already listed."""


@dataclass
class _Builder:
    """Builds nodes from the parser's events; `problems` takes what is wrong but can be read past."""

    events: Iterator[Any]
    source: str
    folder: Path
    problems: list[Problem]
    is_file: bool
    anchors: dict[str, Node] = field(default_factory=dict)

    def place(self, mark: Any) -> Place:
        if not self.is_file:
            return Place(self.source, 0, 0, self.folder)
        return Place(self.source, mark.line + 1, mark.column + 1, self.folder)

    def complain(self, mark: Any, message: str) -> None:
        self.problems.append(Problem(str(self.place(mark)), "", message))

    def stop(self, mark: Any, message: str) -> UnreadableError:
        self.complain(mark, message)
        return UnreadableError()

    def build(self, event: Any, depth: int) -> Node:
        """The node that begins with `event`."""
        if depth > MAX_DEPTH:
            raise self.stop(event.start_mark, f"nested deeper than {MAX_DEPTH} levels; a spec needs 6")
        if isinstance(event, yaml.AliasEvent):
            return self._recall(event)
        if event.tag is not None:
            self.complain(event.start_mark, f"tag `{event.tag}` is not supported; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            value = self._read_scalar(event)
            node = Node(value, self.place(event.start_mark))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._build_list(event, depth)
        else:
            node = self._build_mapping(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _recall(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            raise self.stop(
                event.start_mark, f"`*{event.anchor}` comes before or inside its anchor `&{event.anchor}`"
            )
        return self.anchors[event.anchor]

    def _build_list(self, start: Any, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.build(event, depth + 1))
        return self._sized(Node(items, self.place(start.start_mark)), items, start)

    def _build_mapping(self, start: Any, depth: int) -> Node:
        children: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            mark = event.start_mark
            if not isinstance(event, yaml.ScalarEvent):
                raise self.stop(mark, "a key must be plain text, not a list, a mapping or an alias")
            key, key_place = str(event.value), self.place(mark)
            if event.tag is not None:
                self.complain(mark, f"tag `{event.tag}` is not supported; write the plain key")
            child = replace(self.build(next(self.events), depth + 1), key_place=key_place)
            if key == "<<":
                self.complain(mark, "merge keys (`<<`) are not supported; use `extends` or `defaults`")
            elif key in children:
                first = children[key].stated_at.line
                self.complain(mark, f"`{key}` appears twice (first on line {first}); keep one of them")
            else:
                children[key] = child
        return self._sized(Node(children, self.place(start.start_mark)), children.values(), start)

    def _sized(self, node: Node, below: Any, start: Any) -> Node:
        n_nodes = 1 + sum(child.n_nodes for child in below)
        if n_nodes > MAX_NODES:
            raise self.stop(
                start.start_mark, f"more than {MAX_NODES:,} values, including aliases; split the spec"
            )
        return replace(node, n_nodes=n_nodes)

    def _read_scalar(self, event: Any) -> Scalar:
        text = str(event.value)
        if not event.implicit[0]:  # quoted or a block: text as it stands
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        try:
            return read_number(text)
        except OverflowError as error:
            self.complain(event.start_mark, f"{shorten(text)} {error}")
            return text


def read_number(text: str) -> int | float | str:
    """A number if `text` is one as people write it, else the text.

    `1e-4`, `.5`, `5.` and `1_000` are numbers; `1e3` is the whole number 1000; `010` and `1:30` are text.

    Raises:
        OverflowError: a number, but larger or longer than can be meant.
    """
    if not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise OverflowError(f"has {len(text)} characters; a number has at most {MAX_DIGITS}")
    plain = text.replace("_", "")
    if _INT.fullmatch(text):
        return int(plain)
    if plain.lstrip("+-").isdigit():  # a leading zero: octal to some, decimal to others
        return text
    value = float(plain)
    if value in {float("inf"), float("-inf")}:
        raise OverflowError("is too large for a number")
    whole = "." not in plain and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def shorten(text: str, length: int = 60) -> str:
    """`text` in quotes, cut to about `length` characters."""
    shown = repr(text)
    return shown if len(shown) <= length else f"{shown[: length - 2]}...'"


def read_text(
    text: str, source: str, folder: Path, problems: list[Problem], *, is_file: bool = True
) -> Node | None:
    """One YAML document as a node; None if it cannot be read or is empty.

    Args:
        text: the document.
        source: name of the file, or the override, for messages.
        folder: what relative paths in it are relative to.
        problems: gets everything that is wrong.
        is_file: False for an override, whose place has no line.
    """
    builder = _Builder(yaml.parse(text, Loader=_LOADER), source, folder, problems, is_file)
    try:
        next(builder.events)  # the stream's start
        if isinstance(event := next(builder.events), yaml.StreamEndEvent):
            return None
        node = builder.build(next(builder.events), 0)
        next(builder.events)  # the document's end
        if not isinstance(event := next(builder.events), yaml.StreamEndEvent):
            builder.complain(
                event.start_mark, "a second document begins here (`---`); a spec is one document"
            )
    except UnreadableError:
        return None
    except yaml.YAMLError as error:
        problems.append(_describe_syntax(error, builder, text))
        return None
    return node


def read_file(path: Path, shown: str, problems: list[Problem]) -> Node | None:
    """A YAML file as a node; None if it cannot be read (then `problems` says why) or is empty.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        problems.append(Problem(f"{shown}:1:1", "", f"larger than {MAX_BYTES // 1024} KiB; is this a spec?"))
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        problems.append(Problem(f"{shown}:{line}:{column}", "", message))
        return None
    found = read_text(text, shown, path.absolute().parent, problems)
    if found is None and not problems:
        problems.append(Problem(f"{shown}:1:1", "", "the file is empty; begin with `schema: 1`"))
    return found


_TAB_HINT = "indent with spaces, not with tabs"
_HINTS = (
    ("tab character", _TAB_HINT),
    ("mapping values are not allowed", "put text that contains `: ` in quotes, and check the indentation"),
    ("could not find expected ':'", "each line of a mapping is `key: value`"),
    ("did not find expected key", "check the indentation and the quotes of this line and the one before"),
    ("cannot start any token", "put text that begins with a special character in quotes"),
    ("unexpected end of stream", "a quote or bracket is not closed"),
    ("did not find expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("special characters are not allowed", "remove the control character"),
    ("control characters are not allowed", "remove the control character"),
)


def _describe_syntax(error: yaml.YAMLError, builder: _Builder, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
    hint = next((hint for sign, hint in _HINTS if sign in what), "")
    if mark is not None:
        place = str(builder.place(mark))
        line = text.split("\n")[mark.line : mark.line + 1]
        if line and "\t" in line[0][: mark.column + 1]:
            hint = _TAB_HINT
    else:
        place = f"{builder.source}:1:1" if builder.is_file else builder.source
    return Problem(place, "", f"not valid YAML: {what}" + (f"; {hint}" if hint else ""))
