"""The musicnn tagger as a torch module, filled from the TensorFlow checkpoints of the PyPI package.

Architecture: J. Pons and X. Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging", ISMIR
2019 late-breaking demo.  The layers follow the package's `models.py` one by one.  A layer is convolution, ReLU, *then*
batch normalisation.  TensorFlow's [time, mel] images become torch's [B, 1, T, mel].

    x [B, T, 96] -> batch norm
      timbral   7 x 38 and 7 x 67 over (time, mel), maximum over mel         -> 2 x 204 channels
      temporal  128, 64 and 32 x 1, maximum over mel                          -> 3 x 51 channels
      mid-end   three convolutions of 7 frames, the last two residual         -> 3 x 64 channels
      back-end  maximum and mean over time of all 753 channels, interleaved   -> 1506
                batch norm, dense 200, ReLU, batch norm = penultimate; dense  -> logits of 50 tags
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_bench.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

N_MELS = 96
N_TAGS = 50
N_PENULTIMATE = 200
N_TIMBRAL = 204  # int(1.6 * 128)
N_TEMPORAL = 51  # int(1.6 * 32)
N_MIDEND = 64
EPSILON = 1e-3  # default of tf.layers.batch_normalization
OPTIMIZER_SUFFIXES = ("/Adam", "/Adam_1")
OPTIMIZER_SCALARS = frozenset({"beta1_power", "beta2_power"})


@dataclass(frozen=True)
class MusicnnOutput:
    """Output of the network for a batch of windows.

    Attributes:
        logits: [B, 50], before the sigmoid.
        penultimate: [B, 200].
        layers: the package's names of intermediate features: `timbral` [B, T, 408], `temporal`
            [B, T, 153], `cnn1` to `cnn3` [B, T, 64], `mean_pool` and `max_pool` [B, 753].
    """

    logits: Tensor
    penultimate: Tensor
    layers: dict[str, Tensor]


class ConvBlock(nn.Module):
    """Convolution, ReLU, batch norm; `padding` is the number of frames before and after."""

    def __init__(
        self, in_width: int, channels: int, kernel: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        super().__init__()
        assert kernel[1] <= in_width
        self.padding = padding
        self.conv = nn.Conv2d(1, channels, kernel)
        self.norm = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 1, T, W] to [B, channels, T, W - kernel + 1]."""
        before, after = self.padding
        return self.norm(F.relu(self.conv(F.pad(x, (0, 0, before, after)))))


def same_padding(frames: int) -> tuple[int, int]:
    """Return TensorFlow's `same` padding of a kernel: an even one gets one frame more after than before."""
    return (frames - 1) // 2, frames // 2


class MusicnnNetwork(nn.Module):
    """musicnn for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=EPSILON)
        self.timbral = nn.ModuleList(
            [ConvBlock(N_MELS, N_TIMBRAL, (7, int(share * N_MELS)), (3, 3)) for share in (0.4, 0.7)]
        )
        self.temporal = nn.ModuleList(
            [ConvBlock(N_MELS, N_TEMPORAL, (n, 1), same_padding(n)) for n in (128, 64, 32)]
        )
        n_frontend = 2 * N_TIMBRAL + 3 * N_TEMPORAL
        self.midend = nn.ModuleList(
            [ConvBlock(width, N_MIDEND, (7, width), (3, 3)) for width in (n_frontend, N_MIDEND, N_MIDEND)]
        )
        n_pooled = 2 * (n_frontend + 3 * N_MIDEND)
        self.pool_norm = nn.BatchNorm1d(n_pooled, eps=EPSILON)
        self.dense = nn.Linear(n_pooled, N_PENULTIMATE)
        self.dense_norm = nn.BatchNorm1d(N_PENULTIMATE, eps=EPSILON)
        self.output = nn.Linear(N_PENULTIMATE, N_TAGS)

    def run(self, x: Tensor) -> MusicnnOutput:
        """Compute tags and features of windows.

        Args:
            x: [B, T, 96] log-mel frames.
        """
        image = self.input_norm(x.unsqueeze(1))  # [B, 1, T, 96]
        frontend = [block(image).amax(dim=3).transpose(1, 2) for block in (*self.timbral, *self.temporal)]
        features = [torch.cat(frontend, dim=2)]  # [B, T, 561]
        for index, block in enumerate(self.midend):
            mid = block(features[-1].unsqueeze(1)).squeeze(3).transpose(1, 2)  # [B, T, 64]
            features.append(mid if index == 0 else mid + features[-1])
        dense_features = torch.cat(features, dim=2)  # [B, T, 753]
        max_pool, mean_pool = dense_features.amax(dim=1), dense_features.mean(dim=1)
        # the package stacks the two pools along a last axis and flattens: max, mean, max, mean, ...
        pooled = torch.stack([max_pool, mean_pool], dim=2).flatten(1)
        penultimate = self.dense_norm(F.relu(self.dense(self.pool_norm(pooled))))
        layers = {
            "timbral": torch.cat(frontend[:2], dim=2),
            "temporal": torch.cat(frontend[2:], dim=2),
            "cnn1": features[1],
            "cnn2": features[2],
            "cnn3": features[3],
            "mean_pool": mean_pool,
            "max_pool": max_pool,
        }
        return MusicnnOutput(self.output(penultimate), penultimate, layers)


def build_network(variables: Mapping[str, NDArray[np.float32]]) -> MusicnnNetwork:
    """Build the network with a checkpoint's weights.

    Args:
        variables: all float32 variables of the checkpoint by their TensorFlow names; only the optimiser's may remain
            unused.

    Raises:
        ModelError: a variable is missing, left over or of another shape.
    """
    weights = {
        name: value
        for name, value in variables.items()
        if not name.endswith(OPTIMIZER_SUFFIXES) and name not in OPTIMIZER_SCALARS
    }
    network = MusicnnNetwork()
    state: dict[str, Tensor] = {}
    names = tensorflow_names()
    for target, source in names.items():
        if source not in weights:
            raise ModelError(f"musicnn: the checkpoint has no variable {source!r} ({target})")
        state[target] = _to_torch(weights[source], target)
    left_over = sorted(set(weights) - set(names.values()))
    if left_over:
        raise ModelError(f"musicnn: the checkpoint has variables that no layer takes: {', '.join(left_over)}")
    expected = network.state_dict()
    for target, value in state.items():
        if value.shape != expected[target].shape:
            raise ModelError(
                f"musicnn: variable {names[target]!r} has shape {tuple(value.shape)}, expected "
                f"{tuple(expected[target].shape)}"
            )
    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # unused in inference
    assert set(expected) - counters == set(state)
    network.load_state_dict(state, strict=False)
    return network.eval()


def tensorflow_names() -> dict[str, str]:
    """Map torch parameter names to TensorFlow variable names, in the order of the layers in `models.py`."""
    convolutions = [
        *(f"timbral.{index}" for index in range(2)),
        *(f"temporal.{index}" for index in range(3)),
        *(f"midend.{index}" for index in range(3)),
    ]
    norms = ["input_norm", *(f"{block}.norm" for block in convolutions), "pool_norm", "dense_norm"]
    names: dict[str, str] = {}
    for index, block in enumerate(convolutions):
        source = f"conv2d_{index}" if index else "conv2d"
        names |= {f"{block}.conv.weight": f"{source}/kernel", f"{block}.conv.bias": f"{source}/bias"}
    for index, norm in enumerate(norms):
        source = f"batch_normalization_{index}" if index else "batch_normalization"
        names |= {
            f"{norm}.weight": f"{source}/gamma",
            f"{norm}.bias": f"{source}/beta",
            f"{norm}.running_mean": f"{source}/moving_mean",
            f"{norm}.running_var": f"{source}/moving_variance",
        }
    for target, source in (("dense", "dense"), ("output", "dense_1")):
        names |= {f"{target}.weight": f"{source}/kernel", f"{target}.bias": f"{source}/bias"}
    return names


def _to_torch(value: NDArray[np.float32], target: str) -> Tensor:
    """Bring TensorFlow's [H, W, in, out] and [in, out] kernels into torch's order."""
    tensor = torch.from_numpy(value.copy())
    if value.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    if value.ndim == 2 and target.endswith("weight"):
        return tensor.T.contiguous()
    return tensor
