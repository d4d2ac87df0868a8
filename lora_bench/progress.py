"""What long work tells its caller: stages, steps, numbers; the display is the caller's."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a stage is doing."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; `total` is its number of steps, None if unknown."""
        ...

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """`n` steps of the current stage are done; `note` is a short figure such as `loss 3.21`."""
        ...

    def log(self, message: str) -> None:
        """One line worth keeping (a batch was halved, a file left out)."""
        ...


class SilentProgress:
    """Tells nobody."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Ignore."""

    def log(self, message: str) -> None:
        """Ignore."""
