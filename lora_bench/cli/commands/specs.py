"""`lora-bench specs`: list the shipped specs, or print one of them."""

from __future__ import annotations

from dataclasses import dataclass

from lora_bench.cli.options import option
from lora_bench.cli.tables import format_table
from lora_bench.errors import EXIT_OK, UsageError
from lora_bench.spec.shipped import shipped_specs


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench specs`."""

    name: str | None = option(
        nargs="?", metavar="NAME", help="spec to print, such as quickstart; default: list all"
    )


def execute(options: Options) -> int:
    """List the specs with their first lines, or print one.

    Raises:
        UsageError: no shipped spec has this name.
    """
    texts = {name: file.read_text(encoding="utf-8") for name, file in shipped_specs().items()}
    if options.name is None:
        rows = [(name, text.split("\n# ", maxsplit=2)[1].partition("\n")[0]) for name, text in texts.items()]
        print(format_table(("spec", "first line"), rows))
    elif options.name in texts:
        print(texts[options.name], end="")
    else:
        raise UsageError(f"{options.name}: no shipped spec has this name; expected one of {', '.join(texts)}")
    return EXIT_OK
