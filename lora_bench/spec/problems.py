"""From what Pydantic found to what people read: place, field, value, expectation, mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lora_bench.errors import Problem
from lora_bench.spec.fields import describe_type, dotted_fields, find_annotation, named_fields, section_at
from lora_bench.spec.reading import shorten
from lora_bench.spec.section import Section
from lora_bench.spec.tree import Node, Trail, find_node
from lora_bench.spec.words import find_near

_MAX_LISTED = 24


def describe_errors(error: ValidationError, root: Node, model: type[Section]) -> list[Problem]:
    """One problem per place that `model` refused in `root`, in the order of the document."""
    found: dict[Trail, Problem] = {}

    def order(item: Any) -> tuple[int, bool]:
        return -len(item["loc"]), item["type"].endswith("_type")

    for item in sorted(error.errors(include_url=False), key=order):
        trail, node = _locate(root, item["loc"])
        if any(known[: len(trail)] == trail for known in found) and item["type"].endswith("_type"):
            continue  # another branch of a union went deeper, or said the same
        found.setdefault(trail, _describe(item, trail, node, model))
    return list(found.values())


def _locate(root: Node, loc: Trail) -> tuple[Trail, Node]:
    """The part of `loc` that the tree has (Pydantic adds names of union branches), and its node."""
    node, trail = root, ()
    rest = loc
    while rest:
        found, followed = find_node(node, rest)
        node, trail, rest = found, (*trail, *rest[:followed]), rest[followed:]
        is_branch = bool(rest) and str(rest[0]).endswith("]")  # as in `dict[str,float]`, which is no key
        if rest and (followed or is_branch or not isinstance(node.value, dict)):
            rest = rest if followed else rest[1:]
        elif rest:
            break
    return trail, node


def _describe(item: Any, trail: Trail, node: Node, model: type[Section]) -> Problem:
    kind = str(item["type"])
    if kind == "extra_forbidden":
        section = section_at(model, trail[:-1]) or model
        message = describe_unknown(str(trail[-1]), field_name(trail[:-1]), section, model)
        return Problem(str(node.stated_at), field_name(trail), message)
    if kind == "missing":
        name = field_name(item["loc"])
        what = find_annotation(model, item["loc"])
        expected = f"; expected {describe_type(*what)}" if what else ""
        return Problem(str(node.stated_at), name, f"`{name}` is missing{expected}")
    name = field_name(trail) or "the spec"
    if kind == "value_error":
        return Problem(str(node.place), field_name(trail), f"`{name}`: {item['ctx']['error']}")
    what = find_annotation(model, trail)
    expected = describe_type(*what) if what else str(item["msg"])
    near = _suggest_literal(item, node)
    return Problem(
        str(node.place), field_name(trail), f"`{name}` is {describe_value(node)}; expected {expected}{near}"
    )


def _suggest_literal(item: Any, node: Node) -> str:
    if item["type"] != "literal_error" or not isinstance(node.value, str):
        return ""
    known = [word for word in str(item["ctx"]["expected"]).split("'") if word.isidentifier() and word != "or"]
    near = find_near(node.value, known)
    return f"; did you mean `{near[0]}`?" if near else ""


def field_name(trail: Trail) -> str:
    """`trials.variants[0].lora.rank` of a trail."""
    name = ""
    for part in trail:
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    return name.removeprefix(".")


def describe_value(node: Node) -> str:
    """A value as a message shows it, with its kind where that is what is wrong."""
    value = node.value
    if value is None:
        return "null (nothing)"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, dict):
        return f"a mapping with {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    return shorten(str(value)).strip("'")


def describe_unknown(key: str, above: str, section: type[Section], root: type[Section]) -> str:
    """What to say of a key that is no field of `section`."""
    where = f"of `{above}`" if above else "of a spec" if section is root else "here"
    message = f"`{key[:80]}` is not a field {where}"
    fields = list(named_fields(section))
    near = find_near(key, fields)
    if near:
        return f"{message}; did you mean `{near[0]}`?"
    elsewhere = find_elsewhere(key, root)
    if elsewhere:
        return f"{message}; did you mean `{elsewhere}`?"
    return f"{message}; fields are {', '.join(fields[:_MAX_LISTED])}"


def find_elsewhere(key: str, root: type[Section]) -> str | None:
    """The dotted field of the whole spec whose last part is `key`, or a section of that name."""
    last = key.rpartition(".")[2]
    known = list(dotted_fields(root))
    for dotted in known:
        parts = dotted.split(".")
        if last in parts[1:]:
            return ".".join(parts[: parts.index(last, 1) + 1])
    return None


def describe_unknown_dotted(dotted: str, known: Sequence[str]) -> str:
    """What to say of a dotted field that a trial does not have."""
    message = f"`{dotted[:80]}` is not a field of a trial"
    last = dotted.rpartition(".")[2]
    same_end = [field for field in known if field.rpartition(".")[2] == last]
    near = same_end[:1] or find_near(dotted, known)
    if near:
        return f"{message}; did you mean `{near[0]}`?"
    return f"{message}; fields begin with model., dataset., generation., lora. or train."
