"""Check of adapters that exist already (`lora.path`), before anything runs: there, PEFT's, and of this model."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lora_bench.cli.targets import is_half_precision
from lora_bench.errors import ModelError, Problem
from lora_bench.forecast.adapter_files import describe_misfit, find_adapter_folder, read_adapter
from lora_bench.forecast.shapes import find_shape, hub_cache
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.spec import LoadedSpec
from lora_bench.spec.existing_adapters import FIELD
from lora_bench.spec.kinds import LOW_RANK
from lora_bench.spec.paths import find_stated
from lora_bench.spec.schema import ModelSpec


def find_unusable_adapters(loaded: LoadedSpec, plan: ExperimentPlan) -> list[Problem]:
    """Return a problem per adapter and model that do not work together; folders that do not exist are left out."""
    pairs = {
        (path, trial.model.model_dump_json()): trial.model
        for trial in plan.trials
        if (path := trial.existing_adapter) is not None
    }
    problems: list[Problem] = []
    for (path, _), model in pairs.items():
        place, _ = find_stated(loaded.tree, path)
        is_half = is_half_precision(model.dtype, plan)
        problems += [
            Problem(place, FIELD, f"`{FIELD}` is `{path}`: {text}") for text in _check(path, model, is_half)
        ]
    return list(dict.fromkeys(problems))


def _check(path: str, model: ModelSpec, is_half: bool) -> Iterator[str]:
    folder = find_adapter_folder(path)
    if folder is None:
        if is_offline():
            yield (
                f"no folder, and not in the hub's cache ({hub_cache()}), and HF_HUB_OFFLINE is set; run `hf download "
                f"{path}` with a network, or set it to a folder"
            )
        return
    if not folder.is_dir():
        return  # listed among the missing paths
    shape = find_shape(model)
    try:
        facts = read_adapter(folder, shape)
    except ModelError as error:
        yield str(error).removeprefix(f"{folder}: ")
        return
    misfit = describe_misfit(facts, model.id)
    if misfit is not None:
        yield misfit
    if is_half and facts.kind not in LOW_RANK:
        yield (
            f"the update of kind `{facts.kind}` is merged into the weights, and `model.dtype` {model.dtype} would "
            "round small updates away; set model.dtype: float32"
        )


def is_offline() -> bool:
    """Return whether huggingface_hub is set not to use the network."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
