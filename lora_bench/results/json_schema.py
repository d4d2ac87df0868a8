"""The JSON Schema of `results.json`, made from its records.

Written to `results.schema.json` next to this file; a test keeps the two equal.  To write it again:
`python -m lora_bench.results.json_schema`.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from lora_bench.results.run_records import RunResults

FILE = "results.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_schema_text() -> str:
    """Return the text of `results.schema.json`."""
    schema = {"$schema": _DIALECT, **RunResults.model_json_schema(by_alias=True)}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    place = resources.files("lora_bench.results").joinpath(FILE)
    Path(str(place)).write_text(write_schema_text(), encoding="utf-8")
