"""Several adapters as one whose update is the sum of theirs: `W0 + (W1 - W0) + (W2 - W0) + ...`.

The sum of plain LoRA adapters is a LoRA adapter again, with their matrices side by side; PEFT calls that the
combination `cat`.  With any other kind the sum is a change of whole weights, as full fine-tuning makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor, nn

from lora_bench.errors import ModelError
from lora_bench.models import MusicModel
from lora_bench.models.adapter_kinds import ADAPTER, find_base, unwrap
from lora_bench.models.linears import PackedLinear
from lora_bench.models.lora import adapted_modules, read_linear, save_adapter

Changes = dict[str, dict[str, Tensor]]
"""Changes of weight and bias by module."""


def stack_adapters(model: MusicModel, folders: Sequence[Path], target: Path) -> None:
    """Write an adapter whose update is the sum of those of `folders`, as PEFT loads it.

    Args:
        model: the adapters are loaded into it; it ends without one.
        folders: of the adapters.
        target: a new folder.

    Raises:
        ModelError: one is no adapter, or another model's; or a sum of merged updates on half-precision weights.
    """
    factors: dict[str, list[PackedLinear]] = {}
    changes: Changes = {}
    is_low_rank = True
    for folder in folders:
        model.load_adapter(folder)
        for name, module in adapted_modules(model.peft_model).items():
            linear = read_linear(module) if isinstance(find_base(module), nn.Linear) else None
            if linear is None or linear.down is None or linear.scale is not None:
                is_low_rank = False
            else:
                factors.setdefault(name, []).append(linear)
            _add_change(changes.setdefault(name, {}), module, linear)
    model.remove_adapter()
    notes = {"model": model.info.name, "weights_hash": model.info.weights_hash, "n_stacked": len(folders)}
    if not is_low_rank and model.dtype != torch.float32:
        dtype = str(model.dtype).removeprefix("torch.")
        raise ModelError(
            "--adapter: the sum of adapters that are not all plain LoRA is merged into the weights, and "
            f"{dtype} would round small updates away; set the model's dtype to float32"
        )
    ranks = {
        name: sum(part.down.shape[0] for part in parts if part.down is not None)
        for name, parts in factors.items()
    }
    if is_low_rank:
        top = max(ranks.values())
        config = LoraConfig(
            r=top, lora_alpha=top, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=dict(ranks)
        )
    else:
        config = LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=list(changes))
    stacked = cast("PeftModel", get_peft_model(model.network, config))
    model.adopt_adapter(stacked)
    with torch.no_grad():
        for name, module in adapted_modules(stacked).items():
            if is_low_rank:
                _fill_factors(module, factors[name])
            else:
                for part, change in changes[name].items():
                    unwrap(module).get_parameter(part).add_(change)
    save_adapter(stacked, target, notes, None)
    model.remove_adapter()


def _add_change(found: dict[str, Tensor], module: nn.Module, linear: PackedLinear | None) -> None:
    """Add what an adapter changes in a module to what others change."""
    base = find_base(module)
    if linear is None:
        adapted = {part: value.detach() for part, value in unwrap(module).named_parameters()}
    else:
        folded = linear.folded()
        adapted = {"weight": folded.weight} | ({} if folded.bias is None else {"bias": folded.bias})
    for part, value in adapted.items():
        change = value - base.get_parameter(part).detach()
        found[part] = found[part] + change if part in found else change


def _fill_factors(module: nn.Module, parts: Sequence[PackedLinear]) -> None:
    """Write the matrices of several adapters side by side; their scaling is in B."""
    downs = [part.down for part in parts if part.down is not None]
    ups = [part.up for part in parts if part.up is not None]
    layer = cast("LoraLayer", module)
    cast("nn.Linear", layer.lora_A[ADAPTER]).weight.copy_(torch.cat(downs))
    cast("nn.Linear", layer.lora_B[ADAPTER]).weight.copy_(torch.cat(ups, dim=1))
