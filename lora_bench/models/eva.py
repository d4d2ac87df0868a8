"""Initial values of kind `eva`: A begins with the main directions of each layer's inputs, by PEFT's EVA.

PEFT fits its incremental decomposition pass after pass until it stops changing. With slices as they come this takes
many passes, and inputs with fewer directions than the rank need not settle: a dataset with one caption gives
cross-attention only its tokens. So inputs are sampled once, PEFT decomposes that same sample until it has settled (in
3 to 7 passes with the pocket model), and a layer is asked for no more directions than its sample has. The other rows
of A stay as in plain LoRA. `rho` is 1: PEFT redistributes no ranks, so adapters have the size that was planned.

The sample takes 4 bytes (2 in half precision) times `N_ROWS` times the inputs of all adapted layers, where q, k and v
count once: 1 GB for all targets of musicgen-small.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import get_eva_state_dict
from torch import Tensor, nn

from lora_bench.errors import TrainingError
from lora_bench.models.adapter_kinds import ADAPTER

N_SLICES = 64
N_ROWS = 1024
N_PASSES = 50
_RELATIVE_NOISE = 1e-4
"""Directions below this part of the largest are rounding."""


@torch.no_grad()
def initialize_eva(peft_model: PeftModel, passes: Iterable[Callable[[], object]]) -> None:
    """Give the matrices A of a fresh adapter their initial values.

    Args:
        peft_model: with an adapter of kind `eva`; it ends in eval mode.
        passes: each runs the model on one slice.

    Raises:
        TrainingError: the decomposition does not settle.
    """
    peft_model.eval()
    config = cast("LoraConfig", peft_model.peft_config[ADAPTER])
    layers = {
        name: cast("nn.Module", each)
        for name, each in peft_model.named_modules()
        if isinstance(each, LoraLayer)
    }
    rows = _sample_inputs(layers, list(passes), max(N_ROWS, 4 * config.r))
    n_directions = {name: _count_directions(sample, config.r) for name, sample in rows.items()}
    limited = copy.copy(config)
    limited.rank_pattern = {name: max(n, 1) for name, n in n_directions.items() if n < config.r}
    try:
        # PEFT advises another way to load models, which adapters of float32 do not need
        with warnings.catch_warnings(action="ignore"):
            found = get_eva_state_dict(
                peft_model,
                [{name: _repeat(sample, 2 * config.r) for name, sample in rows.items()}],
                limited,
                forward_fn=_Pass(),
                prepare_model_inputs_fn=None,
                prepare_layer_inputs_fn=lambda inputs, _, __: inputs[0],
                show_progress_bar=False,
            )
    finally:
        for layer in layers.values():  # an interrupted PEFT leaves its hooks
            vars(layer)["_forward_hooks"].clear()
    for name, layer in layers.items():
        start = cast("nn.Linear", cast("LoraLayer", layer).lora_A[ADAPTER]).weight.detach().clone()
        n = n_directions[name]
        start[:n] = found[name][:n]
        found[name] = start
    initialize_lora_eva_weights(peft_model, eva_state_dict=found)


class _Pass:
    """PEFT's forward pass over the sampled inputs: every layer is called with its own."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        self.n += 1
        if self.n > N_PASSES:
            raise TrainingError(
                f"lora.kind eva: the main directions of the layers' inputs did not settle in {N_PASSES} passes; lower "
                "lora.rank, or choose another kind"
            )
        for name, rows in inputs.items():
            model.get_submodule(name)(rows)


def _sample_inputs(
    layers: dict[str, nn.Module], passes: list[Callable[[], object]], n_rows: int
) -> dict[str, Tensor]:
    """Return up to `n_rows` inputs [n, n_in] of each layer, evenly spread over the slices and their positions."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    per_slice = -(-n_rows // len(passes))
    last: list[Tensor] = []  # q, k and v read the same tensor: they share its sample

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not last or last[0] is not inputs[0]:
                flat = inputs[0].flatten(0, -2)
                places = torch.linspace(0, len(flat) - 1, min(per_slice, len(flat))).round().long()
                last[:] = [inputs[0], flat[places.to(flat.device)]]
            found[name].append(last[1])

        return keep

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for run in passes:
            last.clear()
            run()
    finally:
        for handle in handles:
            handle.remove()
    joined: dict[tuple[int, ...], Tensor] = {}
    for parts in found.values():
        key = tuple(id(each) for each in parts)
        if key not in joined:
            joined[key] = torch.cat(parts)
    return {name: joined[tuple(id(each) for each in parts)] for name, parts in found.items()}


def _count_directions(rows: Tensor, limit: int) -> int:
    """Return in how many directions inputs [n, n_in] vary around their mean, `limit` at most."""
    centred = rows.double() - rows.double().mean(dim=0)
    mix = torch.randn(rows.shape[1], limit, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sizes = torch.linalg.svdvals(centred @ mix.to(rows.device))
    # of equal inputs, only the rounding of their mean is left
    floor = _RELATIVE_NOISE * max(float(sizes[0]), float(rows.double().norm()) * _RELATIVE_NOISE)
    return int((sizes > floor).sum())


def _repeat(rows: Tensor, n: int) -> Tensor:
    """Return inputs [n_rows, n_in] repeated to at least `n` rows, as many as PEFT's decomposition needs."""
    return rows.repeat(-(-n // len(rows)), 1)
