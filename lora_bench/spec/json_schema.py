"""The JSON Schema of a spec file, for editors: what the models take, plus what loading resolves.

Written to `schema.json` beside this file; a test keeps the two equal.  To write it anew:
`python -m lora_bench.spec.json_schema`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic.json_schema import JsonSchemaValue

from lora_bench.metrics import METRIC_NAMES
from lora_bench.metrics.names import CODEC_MATCHED, COMMAND, ENCODER_NAMES
from lora_bench.plugins import Kind
from lora_bench.plugins.settings import describe_settings
from lora_bench.spec.commands import CommandSpec
from lora_bench.spec.data_sources import PLUGIN
from lora_bench.spec.experiment import ExperimentSpec, TrialSettings
from lora_bench.spec.fields import dotted_fields
from lora_bench.spec.tune import OWN_FIELDS, TUNED_SECTIONS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_json_schema(plugins: Mapping[Kind, Mapping[str, JsonSchemaValue]] = {}) -> JsonSchemaValue:
    """JSON Schema (2020-12) of a spec file.

    Args:
        plugins: by kind and name of the plug-ins that are installed, the schema of their settings.
    """
    schema = ExperimentSpec.model_json_schema(by_alias=True)
    settings = TrialSettings.model_json_schema(by_alias=True)
    definitions: JsonSchemaValue = {**settings["$defs"], **schema["$defs"]}
    properties: JsonSchemaValue = schema["properties"]
    prompt_file: JsonSchemaValue = {
        "type": "object",
        "properties": {"file": {"type": "string", "description": "Text file with one prompt per line."}},
        "required": ["file"],
        "additionalProperties": False,
    }
    properties["extends"] = _either(properties["extends"], {"type": "string"})
    properties["dataset"] = _either(properties["dataset"], {"type": "string"})
    properties["prompts"] = _with_files(properties["prompts"], prompt_file)
    groups: JsonSchemaValue = properties["prompt_sets"]["patternProperties"]
    groups |= {pattern: _with_files(listed, prompt_file) for pattern, listed in groups.items()}
    encoders, distances = plugins.get("encoders", {}), plugins.get("distances", {})
    metrics: list[JsonSchemaValue] = [{"enum": list(METRIC_NAMES)}]
    metrics += [_match_metrics(("fad", "mmd"), encoders, "?")]
    metrics += [_match_metrics(distances, (*ENCODER_NAMES, *encoders))] if distances else []
    ratings = "|".join(map(re.escape, encoders))
    metrics += [{"type": "string", "pattern": f"^mean/({ratings})$"}] if encoders else []
    properties["metrics"]["items"] = {"anyOf": metrics}
    properties["distances"] |= {"properties": dict(distances), "additionalProperties": False}
    properties["encoders"] |= {
        "properties": dict(encoders),
        "patternProperties": {f"^{COMMAND.pattern}$": CommandSpec.model_json_schema()},
        "additionalProperties": False,
    }
    _settle(definitions["DatasetSpec"], "path", "source_settings", plugins.get("sources", {}), PLUGIN)
    _settle(definitions["CaptionSpec"], "captioner", "captioner_settings", plugins.get("captioners", {}))
    changes = _changes_schema(settings)
    ablations: JsonSchemaValue = properties["ablations"]["patternProperties"]
    ablations |= {pattern: {**changes, "minProperties": 1, "maxProperties": 1} for pattern in ablations}
    for name in ("datasets", "prompt_sets", "ablations"):
        properties[name]["additionalProperties"] = False
    _open_trials(definitions, changes)
    schema["$defs"] = definitions
    schema["required"] = ["schema"]  # a parent may state the rest, and the file's name is the name
    schema["anyOf"] = [
        {"required": ["dataset", "prompts"]},
        {"required": ["dataset", "prompt_sets"]},
        {"required": ["extends"]},
    ]
    schema["title"] = "lora_bench experiment"
    return {"$schema": _DIALECT, **_without_titles(schema)}


def _match_metrics(distances: Iterable[str], encoders: Iterable[str], often: str = "") -> JsonSchemaValue:
    """Metrics of some distances and encoders, and of commands; `often` is `?` where the encoder alone is a metric."""
    before, after = ("|".join(map(re.escape, names)) for names in (distances, encoders))
    names = f"{after}|{COMMAND.pattern}" if after else COMMAND.pattern
    return {"type": "string", "pattern": f"^(({before})/){often}({names})({CODEC_MATCHED})?$"}


def _settle(
    section: JsonSchemaValue,
    chosen: str,
    field: str,
    plugins: Mapping[str, JsonSchemaValue],
    prefix: str = "",
) -> None:
    """Give the field of settings the schema of the plug-in that another field chooses."""
    if plugins:
        section["allOf"] = [
            {
                "if": {"properties": {chosen: {"const": f"{prefix}{name}"}}, "required": [chosen]},
                "then": {"properties": {field: schema}},
            }
            for name, schema in plugins.items()
        ]


def _either(first: JsonSchemaValue, second: JsonSchemaValue) -> JsonSchemaValue:
    """A field that takes one or the other, description and default kept."""
    outer = {key: first[key] for key in ("description", "default") if key in first}
    return {"anyOf": [{key: value for key, value in first.items() if key not in outer}, second], **outer}


def _with_files(prompts: JsonSchemaValue, prompt_file: JsonSchemaValue) -> JsonSchemaValue:
    """A list of prompts whose items may be files, or one file."""
    listed = {**prompts, "items": {"anyOf": [prompts["items"], prompt_file]}}
    return _either(listed, prompt_file)


def _changes_schema(settings: JsonSchemaValue) -> JsonSchemaValue:
    """Sections with any of their fields, or dotted fields."""
    sections: JsonSchemaValue = {
        name: {"$ref": field["$ref"]} for name, field in settings["properties"].items()
    }
    sections["dataset"] = {"anyOf": [sections["dataset"], {"type": "string"}]}
    dotted: JsonSchemaValue = {name: {} for name in dotted_fields(TrialSettings)}
    return {"type": "object", "properties": {**sections, **dotted}, "additionalProperties": False}


def _open_trials(definitions: JsonSchemaValue, changes: JsonSchemaValue) -> None:
    """Variants, links and axes as they are written, not as they are stored."""
    variant: JsonSchemaValue = definitions["VariantSpec"]
    own = {name: variant["properties"][name] for name in ("name", "external")}
    variant["properties"] = {**own, **changes["properties"]}
    link: JsonSchemaValue = definitions["ZipSpec"]
    values: JsonSchemaValue = {"type": "array", "minItems": 1}
    fields: JsonSchemaValue = dict.fromkeys((*dotted_fields(TrialSettings), "dataset"), values)
    link["properties"] = {"with": link["properties"]["with"], **fields}
    link["required"] = ["with"]
    tune: JsonSchemaValue = definitions["TuneSpec"]
    tuned = {name: values for name in fields if name.startswith(TUNED_SECTIONS)}
    tune["properties"] = {**{name: tune["properties"][name] for name in OWN_FIELDS}, **tuned}
    del tune["required"]
    grid: JsonSchemaValue = definitions["GridSpec"]["properties"]
    grid["axes"] = {**grid["axes"], "properties": fields, "additionalProperties": False}
    grid["zip"] = _either(grid["zip"], {"$ref": "#/$defs/ZipSpec"})
    grid["exclude"]["items"] = changes


def _without_titles(value: Any) -> Any:
    """Titles repeat the names; editors show them instead of the descriptions."""
    if isinstance(value, dict):
        return {
            key: _without_titles(item)
            for key, item in value.items()
            if key != "title" or isinstance(item, dict)
        }
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    return value


def write_schema_text() -> str:
    """The text of `schema.json`, which knows lora_bench's own plug-ins as they are installed."""
    return (
        json.dumps(build_json_schema(describe_settings(own_only=True)), indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    Path(str(resources.files("lora_bench.spec").joinpath("schema.json"))).write_text(
        write_schema_text(), encoding="utf-8"
    )
