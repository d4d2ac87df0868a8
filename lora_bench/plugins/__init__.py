"""Plug-ins: what other installed packages add, by entry points, one mechanism for every kind.

A package names a class in its `pyproject.toml`:

    [project.entry-points."lora_bench.encoders"]
    my-encoder = "my_package:MyEncoder"

`KINDS` lists the groups, and `docs/plugins.md` states the contract of each kind.  The code that calls a kind is in
`encoders.plugin`, `metrics.distance_plugin` and `stages.dataset`; `settings.py` checks settings.  Nothing of a package
is imported before it is used, and every error of its own code is told with the plug-in's and the package's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from lora_bench.errors import LoraBenchError, SpecError, UnscoredError

Kind = Literal["encoders", "distances", "captioners", "sources"]
KINDS: tuple[Kind, ...] = ("encoders", "distances", "captioners", "sources")
"""Kinds of plug-ins; `lora_bench.<kind>` is the group of their entry points."""
OWN_PACKAGE = "lora-bench"
_NAME = re.compile(r"[a-z][a-z0-9.-]{0,40}")


@dataclass(frozen=True)
class PluginSource:
    """A class that keeps the contract of a kind.

    Attributes:
        package: name and version of who offers it, for provenance and errors.
        load: imports it and returns its class.
    """

    package: str
    load: Callable[[], Any]

    @property
    def is_own(self) -> bool:
        """Whether lora_bench itself offers it."""
        return self.package.startswith(f"{OWN_PACKAGE} ")


@cache
def list_plugins(kind: Kind) -> dict[str, PluginSource]:
    """Return the plug-ins of a kind by name; nothing of their packages is imported.

    Of two of one name, the one of lora_bench counts, then the first package's.
    """
    found: dict[str, PluginSource] = {}
    points = [(point.dist.name if point.dist else "", point) for point in entry_points(group=group_of(kind))]
    for owner, point in sorted(points, key=lambda item: (item[1].name, item[0] != OWN_PACKAGE, item[0])):
        package = f"{owner} {point.dist.version}" if point.dist is not None else point.value
        if _NAME.fullmatch(point.name):
            found.setdefault(point.name, PluginSource(package, point.load))
    return found


def has_foreign_plugins() -> bool:
    """Return whether another package offers a plug-in of any kind."""
    return any(not source.is_own for kind in KINDS for source in list_plugins(kind).values())


def group_of(kind: Kind) -> str:
    """Return the group of entry points of a kind."""
    return f"lora_bench.{kind}"


@contextmanager
def blame(
    name: str, source: PluginSource, what: str, error: type[LoraBenchError] = UnscoredError
) -> Iterator[None]:
    """Name the plug-in in any error of its own, which becomes an `error`.

    Args:
        name: of the plug-in, with the field that states it where that helps.
        source: who offers it.
        what: what happened to it, as in `failed`.
        error: raised instead; errors of this type, and of specs, pass as they are.
    """
    try:
        yield
    except (SpecError, UnscoredError, error):
        raise
    except Exception as caught:
        words = " ".join(str(caught).split()) or "no message"
        told = words if isinstance(caught, LoraBenchError) else f"{type(caught).__name__}: {words}"
        raise error(f"{name}: the plug-in of {source.package} {what} ({told})") from caught


def load_class(
    name: str, source: PluginSource, method: str, error: type[LoraBenchError] = UnscoredError
) -> Any:
    """Import a plug-in's class, and check that it has the method that its kind is called by."""
    with blame(name, source, "cannot be loaded", error):
        kind = source.load()
        if not callable(getattr(kind, method, None)):
            raise TypeError(f"it has no method `{method}`")
    return kind
