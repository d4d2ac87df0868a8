"""Settings that make no sense next to an adapter that exists already (`lora.path`), each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lora_bench.spec.tree import Node

FIELD = "lora.path"
_OF_TRAINING = ("lora.", "train.")


def find_conflicts(patch: Mapping[str, Node], base: Node | None = None) -> Iterator[tuple[str, Node, str]]:
    """Yield field, node and message of every setting of a training that a trial states next to `lora.path`.

    What a parent or an override states elsewhere is inherited, and has no effect.

    Args:
        patch: the dotted fields that the trial states.
        base: `lora.path` of the defaults; None if they have none.
    """
    stated = patch.get(FIELD, base)
    if stated is None or not isinstance(stated.value, str):
        return
    is_own = FIELD in patch
    mend = "remove it" if is_own else "remove it, or train an adapter here with `lora.path: null`"
    where = "" if is_own else "the defaults name an adapter that exists already, so "
    for dotted, node in patch.items():
        if is_training_setting(dotted) and (not is_own or node.place.source == stated.place.source):
            yield (
                dotted,
                node,
                f"{where}`{dotted}` would not be used next to `{FIELD}`: nothing is trained; {mend}",
            )


def find_axis_conflict(axes: Mapping[str, Node], fields: Iterable[str]) -> tuple[Node, str] | None:
    """Return the axis `lora.path` and a message, if other axes of its grid vary a training."""
    others = [f"`{name}`" for name in fields if is_training_setting(name)]
    if FIELD not in axes or not others:
        return None
    return axes[FIELD], (
        f"`{FIELD}` is an axis next to {', '.join(others)}, which adapters that exist already do not have; name them "
        "in trials.variants instead"
    )


def is_training_setting(dotted: str) -> bool:
    """Return whether a field has no effect on an adapter that exists already."""
    return dotted != FIELD and (dotted.startswith(_OF_TRAINING) or dotted in {"lora", "train"})
