"""`lora-bench specs`: the specs that come with the package."""

from __future__ import annotations

import argparse

from lora_bench.cli.tables import format_table
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.spec.shipped import shipped_specs


def execute(arguments: argparse.Namespace) -> int:
    """List the specs with their first lines, or print one.

    Raises:
        UsageError: no shipped spec has this name.
    """
    texts = {name: file.read_text(encoding="utf-8") for name, file in shipped_specs().items()}
    if arguments.name is None:
        rows = [(name, text.split("\n# ", maxsplit=2)[1].partition("\n")[0]) for name, text in texts.items()]
        print(format_table(("spec", "first line"), rows))
    elif arguments.name in texts:
        print(texts[arguments.name], end="")
    else:
        raise UsageError(
            f"{arguments.name}: no shipped spec has this name; expected one of {', '.join(texts)}"
        )
    return EXIT_OK
