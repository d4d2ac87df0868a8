"""`muq`: MuQ (Zhu et al., 2025), self-supervised vectors of music, by the package `muq` from a checkpoint on the hub.

The package takes the states of its conformer's layers from transformers, which returns them up to version 4 alone.
Hooks collect them here, so that the package runs with every version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lora_bench.encoders.checkpoints import import_network, need_hub_folder
from lora_bench.encoders.mert import MertSettings, pool_layer
from lora_bench.errors import UnscoredError
from lora_bench.models.model_files import hash_weights

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

USED = ("model.conv.", "model.conformer.layers.", "model.conformer.layer_norm.")
"""Beginnings of the names of weights that the states depend on."""


class MuqSettings(MertSettings):
    """Settings of `muq`."""

    weights: str = "OpenMuQ/MuQ-large-msd-iter"
    """Hub id, or a folder."""


class Muq:
    """One vector per clip: the mean or maximum over frames of a layer's states, in float32 as the authors ask."""

    Settings = MuqSettings
    sample_rate_hz = 24_000
    batch_s = 64.0

    def __init__(self, settings: MuqSettings, device: str) -> None:
        package = import_network("muq", "muq", "muq")
        folder = need_hub_folder("muq", settings.weights)
        self._network = load_network(package.MuQ, folder).to(device)
        self.dim = int(self._network.config.encoder_dim)
        n_layers = int(self._network.config.encoder_depth)
        if settings.layer > n_layers:
            raise UnscoredError(
                f"muq: layer {settings.layer} does not exist; expected 0 to {n_layers}, or -1"
            )
        self._layer, self._pool, self._device = settings.layer, settings.pool, device
        self.provenance = {"weights": settings.weights, "weights_hash": hash_weights(folder)}

    @torch.inference_mode()
    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map clips [B, S] to vectors [B, D]."""
        found = self._network(torch.from_numpy(audio).to(self._device), output_hidden_states=True)
        return pool_layer(found.hidden_states[self._layer], self._pool)


def load_network(kind: Any, folder: Path) -> Any:
    """Return the checkpoint as the package's class `MuQ`, in float32, for inference.

    Raises:
        UnscoredError: there is no checkpoint, or it lacks weights that the states depend on.
    """
    try:
        network = kind.from_pretrained(str(folder)).float().eval()
        names = _list_weights(folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UnscoredError(f"muq: {folder} holds no checkpoint of MuQ ({error}); fetch it again") from error
    # the package leaves what a checkpoint lacks at random
    lacking = [name for name in network.state_dict() if name.startswith(USED) and name not in names]
    if lacking:
        raise UnscoredError(
            f"muq: {folder} lacks {len(lacking)} weights of MuQ, such as {lacking[0]}; expected "
            "OpenMuQ/MuQ-large-msd-iter or one of the same form"
        )
    return return_states(network)


def _list_weights(folder: Path) -> frozenset[str]:
    from safetensors import safe_open

    path = folder / "model.safetensors"
    if path.is_file():
        with safe_open(path, framework="pt") as stream:
            return frozenset(stream.keys())
    return frozenset(torch.load(folder / "pytorch_model.bin", map_location="meta", weights_only=True))


def return_states(network: Any) -> Any:
    """Return the network, whose conformer now returns the input of each layer and its own output as `hidden_states`."""
    conformer = network.model.conformer
    if getattr(conformer.config, "_attn_implementation", None) is None:  # which transformers 5 reads
        conformer.config._attn_implementation = "eager"
    states: list[torch.Tensor] = []

    def begin(_module: Any, _args: Any) -> None:
        states.clear()  # of a call that failed midway, for lack of memory

    def note(_module: Any, args: tuple[Any, ...]) -> None:
        states.append(args[0])

    def add(_module: Any, _args: Any, output: Any) -> Any:
        output["hidden_states"] = (*states, output["last_hidden_state"])
        states.clear()
        return output

    conformer.register_forward_pre_hook(begin)
    for layer in conformer.layers:
        layer.register_forward_pre_hook(note)
    conformer.register_forward_hook(add)
    return network
