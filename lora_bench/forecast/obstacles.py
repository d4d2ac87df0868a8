"""Causes of failure that are known before a model is loaded: an unsupported kind, a missing library."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from lora_bench.errors import ModelError
from lora_bench.forecast.shapes import config_files
from lora_bench.spec.schema import ModelSpec

SUPPORTED_TYPES = ("musicgen", "musicgen_melody")


def find_obstacle(model: ModelSpec) -> str | None:
    """Return why every trial of a model would fail on this machine; None if no reason is known.

    Imports torch for a model in audiocraft's form only, whose config lies in a file of torch's.
    """
    if model.backend == "audiocraft" and find_spec("audiocraft") is None:
        return (
            "model.backend audiocraft: it is not installed; `lora-bench doctor` has the command that mends it"
        )
    for place in config_files(model):
        kind = _read_type(place)
        if kind == "musicgen_melody" and model.backend == "audiocraft":
            return "it is a melody model, which runs in transformers' form only; leave out model.backend audiocraft"
        if kind is not None:
            is_known = kind in SUPPORTED_TYPES
            return None if is_known else f"it is of type {kind!r}, and only MusicGen is supported"
    return _find_obstacle_in_export(model)


def _read_type(place: Path) -> str | None:
    """Return the `model_type` of a config.json; None if there is none, which loading reports."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return str(found["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_obstacle_in_export(model: ModelSpec) -> str | None:
    place = Path(model.id).expanduser()
    if model.id == "pocket" or not place.exists():
        return None
    from lora_bench.models.bridges.exports import check_export, find_audiocraft_files

    files = find_audiocraft_files(model)
    if files is None:
        return None
    if model.backend != "audiocraft":
        return "it is in audiocraft's form; use model.backend audiocraft, or `lora-bench convert` it"
    try:
        check_export(files.lm, model.id)
    except ModelError as error:
        return str(error).removeprefix(f"model.id: {model.id}: ")
    return None
