"""Options of verbs that take adapters by their folders, instead of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.cli.options import option
from lora_bench.errors import UsageError

if TYPE_CHECKING:
    from lora_bench.adapters.render import ClipSource


def adapters_option() -> Sequence[Path]:
    """Declare adapters, given by their folders."""
    return option(
        "--adapter", action="append", default=[], type=Path, metavar="FOLDER",
        help="an adapter as PEFT writes it, instead of a run; several are added up",
    )  # fmt: skip


def model_option() -> str | None:
    """Declare the model of such adapters."""
    return option(
        "--model", metavar="ID", help="with --adapter: its base model; default: the one that its files name"
    )


def check_choice(run: Path | None, adapters: Sequence[Path], model: str | None) -> None:
    """Check that either a run or adapters are given.

    Raises:
        UsageError: both, or neither.
    """
    if run is not None and adapters:
        raise UsageError(f"{run} and --adapter: expected a run, or adapters by their folders, not both")
    if run is None and not adapters:
        raise UsageError("expected a run, given by its spec or its folder, or --adapter FOLDER")
    if model is not None and not adapters:
        raise UsageError("--model: is that of --adapter; a run has its own")


def open_adapters(adapters: Sequence[Path], model: str | None) -> ClipSource:
    """Return the model of adapters with default sampling.

    Raises:
        UsageError: a folder is missing, or does not fit the model, or no model is known.
        ModelError: a folder is no adapter.
    """
    from lora_bench.adapters.folders import find_model
    from lora_bench.adapters.render import ClipSource
    from lora_bench.spec.schema import GenerationSpec

    return ClipSource(find_model(adapters, model), GenerationSpec())
