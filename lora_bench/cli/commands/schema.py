"""`lora-bench schema`: print the JSON Schema of a spec, with the plug-ins that are installed, or of `results.json`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from lora_bench.cli.options import option
from lora_bench.cli.tables import print_json, print_json_text
from lora_bench.errors import EXIT_OK
from lora_bench.plugins import has_foreign_plugins


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench schema`."""

    results: bool = option("--results", help="print the schema of results.json instead")


def execute(options: Options) -> int:
    """Print the schema."""
    if not options.results and has_foreign_plugins():
        from lora_bench.plugins.settings import describe_settings
        from lora_bench.spec.json_schema import build_json_schema

        print_json(build_json_schema(describe_settings()))
        return EXIT_OK
    place = ("results", "results.schema.json") if options.results else ("spec", "schema.json")
    text = resources.files("lora_bench").joinpath(*place).read_text(encoding="utf-8")
    print_json_text(text.removesuffix("\n"))
    return EXIT_OK
