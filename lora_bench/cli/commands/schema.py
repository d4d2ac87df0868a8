"""`lora-bench schema`: the shipped JSON Schema."""

from __future__ import annotations

import argparse
from importlib import resources

from lora_bench.cli.tables import print_json_text
from lora_bench.errors import EXIT_OK


def execute(arguments: argparse.Namespace) -> int:  # noqa: ARG001 (every verb has the same signature)
    """Print the schema."""
    text = resources.files("lora_bench").joinpath("spec", "schema.json").read_text(encoding="utf-8")
    print_json_text(text.removesuffix("\n"))
    return EXIT_OK
