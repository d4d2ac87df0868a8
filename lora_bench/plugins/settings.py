"""Settings and provenance of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import JsonSchemaValue

from lora_bench.errors import Problem, SpecError
from lora_bench.plugins import KINDS, Kind, PluginSource, list_plugins


class NoSettings(BaseModel):
    """Settings of a plug-in that has none."""

    model_config = ConfigDict(extra="forbid")


def check_settings(place: str, kind: Any, settings: Mapping[str, Any]) -> BaseModel:
    """Return the settings of a plug-in, checked.

    Args:
        place: field of the spec that holds them.
        kind: the plug-in's class.
        settings: as stated.

    Raises:
        SpecError: names every field that is wrong.
    """
    model: type[BaseModel] = getattr(kind, "Settings", NoSettings)
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        problems = [
            Problem(
                ".".join(map(str, (place, *item["loc"]))),
                place,
                f"{item['msg'][:1].lower()}{item['msg'][1:]}; expected the settings of the plug-in: "
                f"{', '.join(model.model_fields) or 'none'}",
            )
            for item in error.errors()
        ]
        raise SpecError(problems) from error


def describe_plugin(source: PluginSource, settings: BaseModel, plugin: Any) -> dict[str, str | int | float]:
    """Return what the results of a plug-in depend on: its own facts, package and settings."""
    given: Mapping[str, Any] = getattr(plugin, "provenance", {})
    return {
        **{
            str(key): value if isinstance(value, (int, float)) else str(value) for key, value in given.items()
        },
        "package": source.package,
        "settings": settings.model_dump_json(),
    }


def describe_settings(*, own_only: bool = False) -> dict[Kind, dict[str, JsonSchemaValue]]:
    """Return by kind and name the JSON Schema of settings; a plug-in that cannot be loaded takes anything.

    Args:
        own_only: leave out those of other packages.
    """
    return {
        kind: {
            name: _describe(source, f"{kind}/{name}")
            for name, source in list_plugins(kind).items()
            if source.is_own or not own_only
        }
        for kind in KINDS
    }


def _describe(source: PluginSource, place: str) -> JsonSchemaValue:
    try:
        schema = getattr(source.load(), "Settings", NoSettings).model_json_schema()
    except Exception:  # noqa: BLE001 (of the plug-in; `doctor` says what is wrong)
        return {"type": "object"}
    # references to its own definitions hold inside of another schema, too
    return {"$id": f"plugin:{place}", **schema} if "$defs" in schema else schema
