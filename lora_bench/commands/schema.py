"""`lora-bench schema`: the shipped JSON Schema."""

from __future__ import annotations

import argparse
from importlib import resources

from lora_bench.errors import EXIT_OK


def execute(arguments: argparse.Namespace) -> int:  # noqa: ARG001 (every verb has the same signature)
    """Print the schema."""
    print(resources.files("lora_bench").joinpath("spec", "schema.json").read_text(encoding="utf-8"), end="")
    return EXIT_OK
