"""A trial's copy of an adapter that exists already, loaded into the model.

The run keeps a copy, so that its clips, exports and listening tests belong to one adapter whatever becomes of the
user's folder.  A replaced file is noticed by its hash, and copied again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE, ADAPTER_WEIGHTS
from lora_bench.errors import ModelError
from lora_bench.forecast.adapter_files import fetch_adapter, fingerprint_adapter, read_adapter
from lora_bench.forecast.shapes import find_shape
from lora_bench.models import MusicModel
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.reading import write_record
from lora_bench.results.run_files import ExistingAdapterFile
from lora_bench.store import make_folder


def take_adapter(trial: TrialPlan, path: str, model: MusicModel, folder: Path) -> None:
    """Copy an adapter into the trial's folder, load it, and write `existing_adapter.json`.

    Args:
        trial: with the model's settings.
        path: a folder, or a hub id.
        model: gets the adapter.
        folder: the trial's.

    Raises:
        ModelError: the adapter is not there, damaged, or does not fit the model.
    """
    files = TrialFolder(folder)
    source = fetch_adapter(path)
    facts = read_adapter(source, find_shape(trial.model))
    key = fingerprint_adapter(path)
    if key is None:
        raise ModelError(f"{source}: the adapter's files are gone; restore them, or change lora.path")
    if fingerprint_adapter(files.adapter.as_posix()) != key:
        make_folder(files.adapter, lambda draft: _copy(source, draft))
    model.load_adapter(files.adapter)
    size = model.count_adapter()
    record = ExistingAdapterFile(
        key=key,
        kind=facts.kind,
        rank=facts.rank,
        alpha=facts.alpha,
        targets=facts.describe_targets(find_shape(trial.model)),
        n_params=size.trainable_params,
        matched_modules=size.matched_modules,
    )
    write_record(files.existing_adapter, record)


def _copy(source: Path, target: Path) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PROVENANCE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
