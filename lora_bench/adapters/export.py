"""An adapter as other programs load it: PEFT's folder, or the base model's weights with the adapter merged in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lora_bench.adapters.choose import ChosenTrial
from lora_bench.adapters.model_card import CardFacts, write_card
from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE, ADAPTER_WEIGHTS
from lora_bench.errors import StoreError, UsageError
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import make_folder, read_json, write_json, write_text

CARD = "README.md"


def export_trial(chosen: ChosenTrial, folder: Path, facts: CardFacts, *, merged: bool) -> list[Path]:
    """Write `folder` whole or not at all, with a model card.

    Args:
        chosen: the trial.
        folder: must not be there, or be empty.
        facts: what the card says beyond the report.
        merged: weights with the adapter in them, as transformers loads them, instead of the adapter.

    Returns:
        The files, by name.

    Raises:
        UsageError: the folder holds something.
        ModelError: the base model is unavailable (only where `merged`), or the adapter is another's.
        StoreError: the adapter is damaged, or the disk is full.
    """
    _check_target(folder)
    write = _write_merged if merged else _write_adapter

    def fill(draft: Path) -> None:
        write(chosen, draft)
        write_text(draft / CARD, write_card(chosen, facts, merged=merged))

    make_folder(folder, fill)
    return sorted(folder.iterdir())


def _check_target(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {folder}: already exists and is not empty; choose a new folder")


def export_sum(model: ModelSpec, adapters: Sequence[Path], folder: Path, *, merged: bool) -> list[Path]:
    """Write the sum of adapters that belong to no run, as an adapter or merged; without a model card.

    Args:
        model: that of the adapters.
        adapters: their folders.
        folder: must not be there, or be empty.
        merged: weights with the updates in them, as transformers loads them, instead of an adapter.

    Returns:
        The files, by name.

    Raises:
        UsageError: the folder holds something.
        ModelError: the base model is unavailable, or an adapter is another's.
        StoreError: the disk is full.
    """
    _check_target(folder)
    from lora_bench.adapters.stack import stack_adapters
    from lora_bench.models import load_model
    from lora_bench.models.bridges.conversion import write_merged

    def fill(draft: Path) -> None:
        with tempfile.TemporaryDirectory() as parent:
            adapter = Path(parent) / "sum"
            stack_adapters(load_model(model), adapters, adapter)
            if merged:
                write_merged(model, adapter, draft)
                return
            for path in adapter.iterdir():
                shutil.copyfile(path, draft / path.name)
            origin = read_json(draft / ADAPTER_PROVENANCE)
            write_json(draft / ADAPTER_PROVENANCE, {**origin, "model": public_model_name(model.id)})

    make_folder(folder, fill)
    return sorted(folder.iterdir())


def _write_adapter(chosen: ChosenTrial, folder: Path) -> None:
    """Write PEFT's two files, and where the adapter comes from."""
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if not (chosen.adapter / name).is_file():
            raise StoreError(
                f"{chosen.adapter / name}: expected the adapter that training left; remove the trial's folder "
                "and run again"
            )
    shutil.copyfile(chosen.adapter / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    write_json(folder / ADAPTER_CONFIG, read_json(chosen.adapter / ADAPTER_CONFIG))
    write_origin(chosen, folder)


def write_origin(chosen: ChosenTrial, folder: Path) -> None:
    """Write what the adapter was made from and how, without any path of this machine."""
    path = chosen.adapter / ADAPTER_PROVENANCE
    found = read_json(path) if path.is_file() else {}
    kept = {key: found[key] for key in ("weights_hash", "lora", "train", "train_seed") if key in found}
    result = {key: value for key, value in (found.get("result") or {}).items() if key != "adapter"}
    name = public_model_name(chosen.plan.model.id)
    origin = {"model": name, **kept, "trial": chosen.plan.id, "result": result}
    write_json(folder / ADAPTER_PROVENANCE, origin)


def public_model_name(name: str) -> str:
    """Return a hub id as it is; of a local folder only its last part."""
    is_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).expanduser().is_dir()
    return Path(name).expanduser().name if is_local else name


def _write_merged(chosen: ChosenTrial, folder: Path) -> None:
    """Write a transformers folder, also for an adapter that was trained on another backend."""
    from lora_bench.models.bridges.conversion import write_merged

    write_merged(chosen.plan.model, chosen.adapter, folder, chosen.plan.generation.adapter_scale)
    write_origin(chosen, folder)
