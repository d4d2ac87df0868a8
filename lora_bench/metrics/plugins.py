"""Names of the encoders that other packages offer; nothing of these packages is imported here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

GROUP = "lora_bench.encoders"
"""Group of entry points of encoders."""
NAME = re.compile(r"[a-z][a-z0-9.-]{0,40}")


@dataclass(frozen=True)
class EncoderSource:
    """An encoder that a package offers.

    Attributes:
        package: name and version, for provenance and errors.
        load: imports the package and returns the plug-in's class.
    """

    package: str
    load: Callable[[], Any]


@cache
def list_plugins() -> dict[str, EncoderSource]:
    """Return the encoders of other installed packages, by name; where two offer one name, the first package's."""
    found: dict[str, EncoderSource] = {}
    for point in sorted(
        entry_points(group=GROUP), key=lambda item: (item.name, item.dist.name if item.dist else "")
    ):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
        if NAME.fullmatch(point.name):
            found.setdefault(point.name, EncoderSource(package, point.load))
    return found
