"""`lora-bench convert`: convert models and adapters between transformers and audiocraft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_bench.cli.options import option
from lora_bench.errors import EXIT_OK


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench convert`."""

    source: str = option(
        metavar="SOURCE", help="pocket, a hub id, the folder of a model or an adapter, or a checkpoint.th"
    )
    to: Path = option("--to", metavar="FOLDER", help="a new folder")
    form: Literal["transformers", "audiocraft"] | None = option(
        "--form",
        choices=("transformers", "audiocraft"),
        help="format to write; default: the one that the source does not have",
    )
    adapter: Path | None = option(
        "--adapter", metavar="DIR", help="merge this adapter into the weights of the model"
    )
    base: str | None = option(
        "--base", metavar="MODEL", help="the converted model that an adapter belongs to"
    )


def execute(options: Options) -> int:
    """Write the folder and print its files.

    Raises:
        UsageError: the folder is in use, or the options do not fit the source.
        ModelError: the source cannot be read or converted.
    """
    from lora_bench.models.bridges.conversion import convert

    files = convert(
        options.source,
        options.to.absolute(),
        library=options.form,
        adapter=None if options.adapter is None else options.adapter.absolute(),
        base=options.base,
    )
    for path in files:
        print(path)
    return EXIT_OK
