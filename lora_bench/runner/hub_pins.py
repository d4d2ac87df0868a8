"""Commits of the datasets on the hub that a run uses: found once, kept in its folder, used by all of its trials.

`hf:owner/name` means another commit as soon as its owner changes it, so trials of one run could train on different
data.  Identities keep the name as the spec has it; only the data is that of the commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.spec.data_sources import HUB, find_kind
from lora_bench.store import read_json, write_json


def pin_data(trial: TrialPlan, run: RunFolder) -> TrialPlan:
    """Return a trial whose dataset on the hub is that of the run's commit; other trials as they are.

    Args:
        trial: its id and the spec of its run stay.
        run: gets or has `hub_datasets.json`; the caller holds its lock.

    Raises:
        DatasetError: the dataset cannot be fetched.
    """
    path = trial.dataset.path
    if path is None or find_kind(path) != "hub":
        return trial
    name = path.as_posix().removeprefix(HUB)
    pins: dict[str, Any] = read_json(run.hub_datasets) if run.hub_datasets.is_file() else {}
    if name not in pins:
        from lora_bench.stages.dataset.hub_datasets import pin_dataset

        pins[name] = pin_dataset(name)
        write_json(run.hub_datasets, pins)
    pinned = trial.dataset.model_copy(update={"path": Path(f"{HUB}{pins[name]}")})
    return trial.model_copy(update={"dataset": pinned})
