"""The kinds of adapters besides plain LoRA, by PEFT's own classes: their configs, initial values and merging.

A kind's initial values depend only on the seed and a module's name, like LoRA's: PEFT draws them on the CPU, module
by module.  Full fine-tuning is PEFT's `modules_to_save`: copies of the modules, which leave the base model as it is.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from peft import (
    DeloraConfig,
    EvaConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    VeraConfig,
)
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import DUMMY_TARGET_MODULES
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from lora_bench.errors import ModelError
from lora_bench.spec.kinds import CHANGING_BASE, FROM_DATA, LOW_RANK
from lora_bench.spec.schema import LoraSpec

ADAPTER = "default"


def make_config(lora: LoraSpec, names: Sequence[str], seed: int) -> PeftConfig:
    """Return PEFT's config of an adapter.

    Args:
        lora: kind and settings.
        names: full names of the modules.
        seed: of the projections that all modules of VeRA share.
    """
    if lora.kind in LOW_RANK:
        return LoraConfig(
            r=lora.rank,
            lora_alpha=cast("int", lora.resolved_alpha),  # PEFT takes any number, its annotation does not
            target_modules=list(names),
            lora_dropout=lora.dropout,
            use_dora=lora.is_dora,
            use_rslora=lora.is_rslora,
            bias="none",
            init_lora_weights=cast("Any", lora.kind) if lora.kind in CHANGING_BASE | FROM_DATA else True,
            eva_config=EvaConfig(rho=1.0)
            if lora.kind == "eva"
            else None,  # every layer keeps the stated rank
        )
    return _MAKERS[lora.kind](lora, list(names), seed)


def _make_ia3(_: LoraSpec, names: list[str], __: int) -> PeftConfig:
    # the published kind scales keys, values, and what the second feed-forward layer reads
    return IA3Config(
        target_modules=names, feedforward_modules=[name for name in names if name.endswith(".fc2")]
    )


_MAKERS: dict[str, Callable[[LoraSpec, list[str], int], PeftConfig]] = {
    "loha": lambda lora, names, _: LoHaConfig(
        r=lora.rank, alpha=cast("int", lora.resolved_alpha), target_modules=names
    ),
    "lokr": lambda lora, names, _: LoKrConfig(
        r=lora.rank,
        alpha=cast("int", lora.resolved_alpha),
        decompose_factor=-1 if lora.factor is None else lora.factor,
        target_modules=names,
    ),
    "oft": lambda lora, names, _: OFTConfig(r=0, oft_block_size=lora.block_size, target_modules=names),
    "vera": lambda lora, names, seed: VeraConfig(
        r=lora.rank, vera_dropout=lora.dropout, projection_prng_key=seed, target_modules=names
    ),
    "ia3": _make_ia3,
    "miss": lambda lora, names, _: MissConfig(r=lora.rank, miss_dropout=lora.dropout, target_modules=names),
    "delora": lambda lora, names, _: DeloraConfig(
        r=lora.rank, module_dropout=lora.dropout, delora_lambda=cast("int", lora.bound), target_modules=names
    ),
    "full": lambda _, names, __: LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=names),
}


def check_precision_of_kind(kind: str, dtype: torch.dtype) -> None:
    """Refuse a kind whose update would be rounded to the grid of half-precision weights.

    Raises:
        ModelError: the weights are not float32, and the kind is none of LoRA.
    """
    if kind not in LOW_RANK and dtype != torch.float32:
        raise ModelError(
            f"lora.kind {kind}: its update is merged into the weights, and {str(dtype).removeprefix('torch.')} would "
            "round small updates away; set model.dtype: float32 (train.precision: bfloat16 keeps training fast)"
        )


def find_kind(config: PeftConfig) -> str:
    """Return the kind of a saved adapter; the kinds of LoRA are all `lora`."""
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    is_full = kind == "lora" and getattr(config, "target_modules", None) == DUMMY_TARGET_MODULES
    return "full" if is_full else kind


_ADAPTED: tuple[type[nn.Module], ...] = (BaseTunerLayer, ModulesToSaveWrapper)  # pyright: ignore[reportAssignmentType]


def find_adapted(network: nn.Module) -> dict[str, nn.Module]:
    """Return PEFT's layers of a network by the name of the module that they adapt or copy."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _ADAPTED)}


def list_own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters in one of PEFT's layers, without those of the base model."""
    base = ("base_layer.", "original_module.")
    return {name: value for name, value in module.named_parameters() if not name.startswith(base)}


def hash_seed(seed: int, name: str) -> int:
    """Return the seed of one module's initial values."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@torch.no_grad()
def seed_kind(adapted: dict[str, nn.Module], seed: int) -> None:
    """Give the modules of a kind that draws numbers, and is none of LoRA, initial values of their own."""
    for name, module in adapted.items():
        reset = getattr(module, "reset_adapter_parameters", None) or getattr(
            module, "reset_delora_parameters", None
        )
        if reset is None:
            continue  # constants
        bound = getattr(module, "delora_lambda", {ADAPTER: None})[ADAPTER]
        fresh: Any = copy.deepcopy(module).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash_seed(seed, name))
            if bound is None:
                fresh.reset_adapter_parameters(ADAPTER)
            else:
                fresh.reset_delora_parameters(ADAPTER, True, float(bound))
        drawn = list_own_parameters(fresh)
        for part, parameter in list_own_parameters(module).items():
            parameter.copy_(drawn[part])


def has_merged_update(module: nn.Module) -> bool:
    """Return whether a module's update can only be read by merging it into a copy of the weights."""
    return isinstance(module, BaseTunerLayer) and not isinstance(module, LoraLayer)


def merge_copy(module: nn.Module) -> nn.Linear:
    """Return a linear layer with the adapter of `module` merged by PEFT; the module does not change."""
    merged: Any = copy.deepcopy(module)
    merged.merge()
    return merged.get_base_layer()


def unwrap(module: nn.Module) -> nn.Module:
    """Return the trained copy of a module that full fine-tuning trains; another module as it is."""
    return module.modules_to_save[ADAPTER] if isinstance(module, ModulesToSaveWrapper) else module


def find_base(module: nn.Module) -> Any:
    """Return the base model's own module under one of PEFT's layers; another module as it is."""
    if isinstance(module, ModulesToSaveWrapper):
        return module.original_module
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def restore_originals(network: nn.Module) -> None:
    """Put the base model's own modules back in the place of the copies that were trained."""
    for name, module in find_adapted(network).items():
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, module.original_module)
