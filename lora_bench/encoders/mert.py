"""`mert`: MERT (Li et al., 2023), self-supervised vectors of music, from a checkpoint on the hub.

MERT's own code on the hub is not run.  Without its optional CQT features and deepnorm, MERT is HuBERT at 24 kHz with
weights of the same names, so the checkpoint is read into transformers' `HubertModel`, and refused if any weight is left
over or missing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from lora_bench.encoders.checkpoints import need_hub_folder
from lora_bench.errors import ModelError, UnscoredError
from lora_bench.models.model_files import find_weight_files, hash_weights
from lora_bench.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FOREIGN = ("feature_extractor_cqt", "deepnorm")
"""Options of MERT that HuBERT does not have."""


class MertSettings(BaseModel):
    """Settings of `mert`."""

    model_config = ConfigDict(extra="forbid")

    weights: str = "m-a-p/MERT-v1-95M"
    """Hub id, or a folder."""
    layer: int = Field(default=-1, ge=-1)
    """Layer whose states are taken: 0 is the transformer's input, -1 the last."""
    pool: Literal["mean", "max"] = "mean"
    """How frames become one vector per clip; the MAD of Huang et al. (2025) takes the maximum."""


class Mert:
    """One vector per clip: the mean or maximum over frames of a layer's states."""

    Settings = MertSettings
    batch_s = 64.0

    def __init__(self, settings: MertSettings, device: str) -> None:
        from transformers import AutoFeatureExtractor

        folder = need_hub_folder("mert", settings.weights)
        self._network = load_network(folder).to(device).eval()
        with quiet_transformers():
            self._prepare: Any = AutoFeatureExtractor.from_pretrained(folder)
        self.sample_rate_hz = int(self._prepare.sampling_rate)
        self.dim = int(self._network.config.hidden_size)
        n_layers = int(self._network.config.num_hidden_layers)
        if settings.layer > n_layers:
            raise UnscoredError(
                f"mert: layer {settings.layer} does not exist; expected 0 to {n_layers}, or -1"
            )
        self._layer, self._pool, self._device = settings.layer, settings.pool, device
        self.provenance = {"weights": settings.weights, "weights_hash": hash_weights(folder)}

    @torch.inference_mode()
    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map clips [B, S] to vectors [B, D]."""
        inputs = self._prepare(
            list(audio), sampling_rate=self.sample_rate_hz, return_tensors="pt", return_attention_mask=False
        )  # of equal length, so nothing is padded
        found = self._network(inputs["input_values"].to(self._device), output_hidden_states=True)
        return pool_layer(found.hidden_states[self._layer], self._pool)


def pool_layer(states: torch.Tensor, pool: str) -> NDArray[np.float32]:
    """Return the mean or maximum over frames of states [B, T, D]: [B, D]."""
    pooled = states.mean(dim=1) if pool == "mean" else states.amax(dim=1)
    return pooled.float().cpu().numpy()


def load_network(folder: Path) -> Any:
    """Return the checkpoint as a `HubertModel`.

    Raises:
        UnscoredError: it uses what HuBERT does not have, or has other weights.
    """
    from transformers import HubertConfig, HubertModel

    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        options = find_weight_files(folder).options
    except (OSError, ValueError, ModelError) as error:
        raise UnscoredError(f"mert: {folder} holds no checkpoint ({error}); fetch it again") from error
    foreign = [name for name in FOREIGN if stated.get(name)]
    if foreign:
        raise UnscoredError(
            f"mert: {folder} sets {' and '.join(foreign)}, which need MERT's own code, and lora_bench runs no code "
            "from a checkpoint; name another checkpoint, or call MERT as a command"
        )
    names = ("model_type", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype")
    config = HubertConfig(**{key: value for key, value in stated.items() if key not in names})
    with quiet_transformers():
        loaded: Any = HubertModel.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            local_files_only=True,
            dtype=torch.float32,
            **options,
        )
    network, report = loaded
    # the mask of pretraining is not used
    unlike = [*sorted(report["missing_keys"]), *map(str, report["mismatched_keys"])]
    unlike = [name for name in unlike if "masked_spec_embed" not in name]
    if unlike:
        raise UnscoredError(
            f"mert: {folder} lacks {len(unlike)} weights of HuBERT, such as {unlike[0]}, so it is no MERT that can be "
            "read; expected m-a-p/MERT-v1-95M or one of the same form"
        )
    return network
