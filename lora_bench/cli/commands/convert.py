"""`lora-bench convert`: models and adapters between transformers and audiocraft."""

from __future__ import annotations

import argparse

from lora_bench.errors import EXIT_OK


def execute(arguments: argparse.Namespace) -> int:
    """Write the folder and print its files.

    Raises:
        UsageError: the folder is in use, or the options do not fit the source.
        ModelError: the source cannot be read or converted.
    """
    from lora_bench.models.bridges.conversion import convert

    files = convert(
        arguments.source,
        arguments.to.absolute(),
        library=arguments.form,
        adapter=None if arguments.adapter is None else arguments.adapter.absolute(),
        base=arguments.base,
    )
    for path in files:
        print(path)
    return EXIT_OK
