"""Remove vocals with torchaudio's Hybrid Demucs, whose published weights lie in the folder of checkpoints.

The separator gets 10 s at a time, and neighbouring parts are faded into one another, as in torchaudio's tutorial.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lora_bench.audio import resample, to_channels
from lora_bench.errors import DatasetError, UnscoredError
from lora_bench.store import hash_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

VOCALS_VERSION = 1
"""Part of the cache key; raise it when the same weights would give another sound."""
WEIGHTS = "torchaudio/models/hdemucs_high_trained.pt"
"""Place below torch's hub folder, where torchaudio's own pipeline keeps them."""
URL = "https://download.pytorch.org/torchaudio/models/hdemucs_high_trained.pt"
SOURCES = ("drums", "bass", "other", "vocals")
RATE_HZ, CHANNELS = 44_100, 2
PART_S, FADE_S = 10.0, 0.5
_one_at_a_time = threading.Lock()


class Separator(Protocol):
    """What Hybrid Demucs does: mixtures [B, 2, S] at 44.1 kHz become sources [B, 4, 2, S], as in `SOURCES`."""

    def __call__(self, mixture: Tensor, /) -> Tensor:
        """Separate."""
        ...


def find_weights() -> Path:
    """Return the file of the weights.

    Raises:
        DatasetError: it is not there; says where to get it. Nothing is downloaded by itself.
    """
    from lora_bench.encoders.checkpoints import need_checkpoint

    try:
        return need_checkpoint("Hybrid Demucs", WEIGHTS, URL)
    except UnscoredError as error:
        raise DatasetError(
            f"dataset.prepare.vocals is `remove`, but {error}, or leave `vocals` out"
        ) from error


def identify_separator() -> str:
    """Return a hash of the weights and of what is done with them.

    Raises:
        DatasetError: the weights are missing.
    """
    from lora_bench.models.model_files import hash_once

    return hash_json([VOCALS_VERSION, hash_once(find_weights())])


@cache
def load_separator() -> Separator:
    """Return the separator with its weights, on the GPU if there is one.

    Raises:
        DatasetError: the weights are missing or damaged, or torchaudio no longer has the network.
    """
    import pickle

    import torch

    from lora_bench.models.device import choose_device

    weights = find_weights()
    try:
        from torchaudio.models import hdemucs_high

        network = hdemucs_high(list(SOURCES))
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (ImportError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise DatasetError(
            f"dataset.prepare.vocals: {weights}: cannot be loaded as Hybrid Demucs ({str(error).splitlines()[0]}); get "
            f"it again from {URL}"
        ) from error
    network.to(choose_device("auto")).eval()

    def separate(mixture: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(mixture.to(next(network.parameters()).device)).cpu()

    return separate


def remove_vocals(audio: NDArray[np.float32], rate_hz: int) -> tuple[NDArray[np.float32], int]:
    """Return samples [2, S] at 44.1 kHz without vocals, and that rate; one sound at a time, whoever asks.

    Args:
        audio: samples [C, S].
        rate_hz: their rate.

    Raises:
        DatasetError: see `load_separator`.
    """
    mixture = resample(to_channels(audio, CHANNELS), rate_hz, RATE_HZ)
    mean, scale = float(mixture.mean()), float(mixture.std())
    if not scale > 0:
        return mixture, RATE_HZ
    with _one_at_a_time:
        rest = _separate_parts((mixture - np.float32(mean)) / np.float32(scale), load_separator())
    return rest * np.float32(scale) + np.float32(mean), RATE_HZ


def _separate_parts(mixture: NDArray[np.float32], separate: Separator) -> NDArray[np.float32]:
    """Return the sum of everything but vocals of [2, S], part by part."""
    import torch

    n_part, n_fade = round(PART_S * RATE_HZ), round(FADE_S * RATE_HZ)
    kept = [index for index, name in enumerate(SOURCES) if name != "vocals"]
    total = np.zeros_like(mixture)
    weights = np.zeros(mixture.shape[1], np.float32)
    ramp = np.linspace(0, 1, n_fade + 2, dtype=np.float32)[1:-1]
    for start in range(0, mixture.shape[1], n_part):
        begin, end = max(0, start - n_fade), min(mixture.shape[1], start + n_part)
        part = np.pad(mixture[:, begin:end], ((0, 0), (0, max(0, n_fade - (end - begin)))))
        rest = separate(torch.from_numpy(np.ascontiguousarray(part))[None])[0, kept].sum(dim=0).numpy()
        fade = np.ones(end - begin, np.float32)
        if begin:
            fade[: min(n_fade, end - begin)] = ramp[: end - begin]
        if end < mixture.shape[1]:
            fade[-n_fade:] = np.minimum(fade[-n_fade:], ramp[::-1])
        total[:, begin:end] += rest[:, : end - begin] * fade
        weights[begin:end] += fade
    return total / weights
