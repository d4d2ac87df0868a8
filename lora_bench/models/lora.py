"""Adapters by PEFT: inject, save, load and remove adapters of a transformers MusicGen.

In addition to PEFT: targets are full module names, so that nothing outside the decoder matches; the initial A depends
only on the seed and the module's name, not on the device or on other adapted modules; saved files do not depend on the
process (sorted targets, no path of this machine).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE, ADAPTER_WEIGHTS
from lora_bench.errors import ModelError, StoreError
from lora_bench.models.adapter_kinds import (
    ADAPTER,
    find_adapted,
    find_base,
    has_merged_update,
    hash_seed,
    list_own_parameters,
    make_config,
    merge_copy,
    restore_originals,
    seed_kind,
    unwrap,
)
from lora_bench.models.adapter_strength import blend, scale_low_rank
from lora_bench.models.changed_base import ChangedBase
from lora_bench.models.linears import PackedLinear
from lora_bench.models.model_files import former_hashes
from lora_bench.models.targets import count_by_group
from lora_bench.spec.kinds import CHANGING_BASE, LOW_RANK
from lora_bench.spec.schema import LoraSpec
from lora_bench.store import JsonObject, make_folder, read_json, write_json

CHANGED_BASE = "_lora_bench_changed_base"


def add_adapter(model: nn.Module, names: Sequence[str], lora: LoraSpec, seed: int) -> PeftModel:
    """Add a fresh adapter, whose update is zero, to the modules `names`.

    Args:
        model: changed in place; all its own parameters are frozen.
        names: full names of linear layers; of full fine-tuning, of any modules.
        lora: kind and settings.
        seed: of the initial values.
    """
    config = make_config(lora, names, seed)
    changed = ChangedBase(model, list(names)) if lora.kind in CHANGING_BASE else None
    # PEFT uses deprecated names of transformers, and draws values that are not kept
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
        peft_model = cast("PeftModel", get_peft_model(cast("Any", model), config))
    if changed is not None:
        changed.keep_initial(peft_model)
        peft_model.__dict__[CHANGED_BASE] = changed
    elif lora.kind in LOW_RANK:
        _seed_adapter(peft_model, seed)
    else:
        seed_kind(adapted_modules(peft_model), seed)
    return peft_model


def _seed_adapter(peft_model: PeftModel, seed: int) -> None:
    for name, module in adapted_modules(peft_model).items():
        down = cast("nn.Linear", cast("LoraLayer", module).lora_A[ADAPTER]).weight
        generator = torch.Generator().manual_seed(hash_seed(seed, name))
        fresh = torch.empty(down.shape)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)  # PEFT's own distribution
        with torch.no_grad():
            down.copy_(fresh)


def adapted_modules(peft_model: PeftModel) -> dict[str, nn.Module]:
    """Return the adapted modules by their name in the base model."""
    return find_adapted(peft_model.get_base_model())


def find_changed_base(peft_model: PeftModel) -> ChangedBase | None:
    """Return what an adapter changed in the base weights; None for most kinds."""
    return peft_model.__dict__.get(CHANGED_BASE)


def count_adapter(peft_model: PeftModel) -> tuple[dict[str, int], int]:
    """Count the adapted modules per target group, and the adapter's parameters."""
    names = adapted_modules(peft_model)
    return count_by_group(names), sum(p.numel() for p in adapter_parameters(peft_model).values())


def adapter_parameters(peft_model: PeftModel) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters under their names in the saved file."""
    found: dict[str, nn.Parameter] = {}
    for name, module in adapted_modules(peft_model).items():
        found |= {f"{name}.{part}": value for part, value in list_own_parameters(module).items()}
    return found


def remove_adapter(peft_model: PeftModel) -> None:
    """Restore the base model's own modules bit for bit (nothing is ever merged into them)."""
    base = peft_model.get_base_model()
    restore_originals(base)
    cast("Any", peft_model.base_model).unload()
    changed = find_changed_base(peft_model)
    if changed is not None:
        changed.restore(base)
    # PEFT warns about a second adapter as long as this stays on the base model
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in base.__dict__:
            delattr(base, attribute)


def save_adapter(peft_model: PeftModel, folder: Path, provenance: JsonObject, base_name: str | None) -> None:
    """Write `folder` whole or not at all: PEFT's two files and `lora_bench.json`.

    Args:
        peft_model: model with the adapter.
        folder: replaced if it exists.
        provenance: content of `lora_bench.json`.
        base_name: hub id of the base model, None if it is not on the hub.
    """

    def fill(draft: Path) -> None:
        config = peft_model.peft_config[ADAPTER]
        config.base_model_name_or_path = base_name
        changed = find_changed_base(peft_model)
        if changed is None:
            peft_model.save_pretrained(str(draft), save_embedding_layers=False)
        else:
            changed.save(peft_model, draft)
        (draft / "README.md").unlink(missing_ok=True)  # an empty template
        saved = read_json(draft / ADAPTER_CONFIG)
        # these are sets, in an order that changes from process to process; PEFT also fills an empty name with the
        # folder that the model was loaded from
        for name in ("target_modules", "feedforward_modules", "modules_to_save"):
            if isinstance(saved.get(name), list):
                saved[name] = sorted(saved[name])
        saved["base_model_name_or_path"] = base_name
        write_json(draft / ADAPTER_CONFIG, saved)
        write_json(draft / ADAPTER_PROVENANCE, provenance)

    make_folder(folder, fill)


def read_provenance(folder: Path) -> JsonObject | None:
    """Read the provenance that `save_adapter` wrote; None if another program wrote the adapter."""
    try:
        return cast("JsonObject", read_json(folder / ADAPTER_PROVENANCE))
    except StoreError:
        return None


def check_adapter(folder: Path, *, model_name: str, weights_hash: str) -> None:
    """Check that `folder` holds an adapter of this model.

    Raises:
        ModelError: it does not.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder}: {name} is missing, expected an adapter folder as PEFT writes it "
                f"({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS})"
            )
    provenance = read_provenance(folder)
    known = (weights_hash, *former_hashes(weights_hash))
    if provenance is not None and provenance.get("weights_hash") not in known:
        raise ModelError(
            f"{folder}: the adapter was trained on {provenance.get('model')} (weights "
            f"{str(provenance.get('weights_hash'))[:12]}), but the model is {model_name} "
            f"(weights {weights_hash[:12]}); load the model that it was trained on"
        )


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Load the adapter in `folder` into `model`, in eval mode.

    Raises:
        ModelError: damaged files, or modules and shapes that this model does not have.
    """
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as stored:
            names = set(stored.keys())
        with warnings.catch_warnings(action="ignore"):  # PEFT's warnings are checked below
            peft_model = PeftModel.from_pretrained(cast("Any", model), str(folder), low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        _discard_injected(model)
        raise ModelError(
            f"{folder}: the adapter does not fit the model ({_first_line(error)}); expected one that was "
            "trained on the same architecture"
        ) from error
    expected = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    if names != expected:
        remove_adapter(peft_model)
        odd = sorted(names ^ expected)
        raise ModelError(
            f"{folder}: {len(odd)} adapter weights do not fit the model, first {odd[0]}; expected an adapter "
            "that was trained on the same architecture"
        )
    return peft_model


def _discard_injected(model: nn.Module) -> None:
    """Remove layers of PEFT that a failed load left behind."""
    restore_originals(model)
    for name, module in find_adapted(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, cast("Any", module).get_base_layer())
    if "peft_config" in model.__dict__:
        del model.__dict__["peft_config"]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]


@torch.no_grad()
def read_linear(module: nn.Module, strength: float = 1.0) -> PackedLinear:
    """Read a linear layer's tensors, with the update of its adapter, if it has one, at some strength.

    LoRA's update stays apart; the update of other kinds is merged into a copy of the weight.
    """
    if not isinstance(module, LoraLayer):
        return _read_merged(module, strength)
    base = cast("nn.Linear", module.get_base_layer())
    down = cast("nn.Linear", module.lora_A[ADAPTER]).weight.detach().float()
    up = cast("nn.Linear", module.lora_B[ADAPTER]).weight.detach().float() * module.scaling[ADAPTER]
    scale = None
    if module.use_dora.get(ADAPTER):
        magnitude = cast("Any", module.lora_magnitude_vector[ADAPTER]).weight.detach().float()
        norm = torch.linalg.norm(base.weight.detach().float() + up @ down, dim=1)
        scale = magnitude / norm
    linear = PackedLinear(base.weight.detach(), _detached(base.bias), down, up, scale)
    return scale_low_rank(linear, strength)


def _read_merged(module: nn.Module, strength: float) -> PackedLinear:
    """Read a layer whose update, if it has one, is merged into a copy of its weight, or is the copy itself."""
    base = find_base(module)
    if base is module or strength == 0.0:
        return PackedLinear(base.weight.detach(), _detached(base.bias))
    adapted = merge_copy(module) if has_merged_update(module) else cast("nn.Linear", unwrap(module))
    bias, adapted_bias = _detached(base.bias), _detached(adapted.bias)
    if bias is not None and adapted_bias is not None:
        bias = blend(bias, adapted_bias, strength)
    return PackedLinear(blend(base.weight.detach(), adapted.weight.detach(), strength), bias)


def _detached(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach()
