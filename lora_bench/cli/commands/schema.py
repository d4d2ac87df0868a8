"""`lora-bench schema`: print the JSON Schema of a spec."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import resources

from lora_bench.cli.tables import print_json_text
from lora_bench.errors import EXIT_OK


@dataclass(frozen=True)
class Options:
    """There are none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def execute(options: Options) -> int:  # noqa: ARG001 (every verb has the same signature)
    """Print the schema."""
    text = resources.files("lora_bench").joinpath("spec", "schema.json").read_text(encoding="utf-8")
    print_json_text(text.removesuffix("\n"))
    return EXIT_OK
