"""The interface through which long work reports stages and steps to its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """A receiver of progress."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; `total` is its number of steps, None if unknown."""
        ...

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """`n` steps of the current stage are done; `note` is a short figure such as `loss 3.21`."""
        ...

    def log(self, message: str) -> None:
        """A line worth keeping, such as a batch that was halved or a file that was left out."""
        ...


def track(
    items: Iterable[Item], progress: Progress, note: Callable[[Item], str] = lambda _: ""
) -> Iterator[Item]:
    """Yield items, and advance the progress by one when the next item is asked for."""
    for item in items:
        yield item
        progress.advance(note=note(item))


class SilentProgress:
    """A receiver that ignores everything."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Ignore."""

    def log(self, message: str) -> None:
        """Ignore."""
