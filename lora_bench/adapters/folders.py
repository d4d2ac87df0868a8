"""Adapters given by their folders, without a run: the model that they are for, and whether they fit it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE
from lora_bench.errors import UsageError
from lora_bench.forecast.adapter_files import describe_misfit, read_adapter
from lora_bench.forecast.shapes import find_shape
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import read_json


def find_model(folders: Sequence[Path], stated: str | None) -> ModelSpec:
    """Return the model of adapters: the stated one, else the one that their files name.

    Raises:
        UsageError: a folder is missing; the files name no model, or several; or an adapter does not fit the model.
        ModelError: a folder is no adapter, or damaged.
    """
    named: dict[str, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--adapter {folder}: does not exist; expected the folder of an adapter")
        read_adapter(folder)
        if (name := _read_model(folder)) is not None:
            named[name] = None
    if stated is None and len(named) != 1:
        told = f"name several ({', '.join(named)})" if named else "do not name it"
        raise UsageError(f"--model: which model the adapter is for must be stated, because its files {told}")
    model = ModelSpec(id=stated or next(iter(named)))
    for folder in folders:
        misfit = describe_misfit(read_adapter(folder, find_shape(model)), model.id)
        if misfit is not None:
            raise UsageError(f"--adapter {folder}: {misfit}; or state its model with --model")
    return model


def _read_model(folder: Path) -> str | None:
    """Return the model that an adapter's files name; None if they do not."""
    provenance = folder / ADAPTER_PROVENANCE
    found = read_json(provenance).get("model") if provenance.is_file() else None
    return found or read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
