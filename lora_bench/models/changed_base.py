"""Adapters whose initialisation takes their first update out of the base weights: PiSSA and OLoRA.

The base weights are kept, and put back when the adapter is removed.  A saved adapter is a plain LoRA of twice the rank
that holds the difference from the initial one, by PEFT's own conversion: it fits the unchanged base model, and does not
depend on computing the same decomposition again.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_bench.artifacts import ADAPTER_WEIGHTS


class ChangedBase:
    """The base weights of a model before such an adapter, and the adapter's initial values.

    Args:
        network: without an adapter.
        names: of the layers that will be adapted.
    """

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        self._weights: dict[str, Tensor] = {
            name: network.get_submodule(name).get_parameter("weight").detach().clone() for name in names
        }
        self._initial: dict[str, Tensor] = {}

    def keep_initial(self, peft_model: PeftModel) -> None:
        """Keep the adapter's values before training."""
        self._initial = {
            name: value.detach().cpu().clone()
            for name, value in get_peft_model_state_dict(peft_model, save_embedding_layers=False).items()
        }

    @torch.no_grad()
    def restore(self, network: nn.Module) -> None:
        """Put the base weights back, bit for bit, after the adapter was removed."""
        for name, weight in self._weights.items():
            network.get_submodule(name).get_parameter("weight").copy_(weight)

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """Write PEFT's two files, as plain LoRA for the unchanged base model."""
        # PEFT warns of a second such adapter, which it makes itself to convert the first
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(action="ignore"):
            save_file(self._initial, Path(place) / ADAPTER_WEIGHTS, metadata={"format": "pt"})
            peft_model.save_pretrained(
                str(folder), save_embedding_layers=False, path_initial_model_for_weight_conversion=place
            )
