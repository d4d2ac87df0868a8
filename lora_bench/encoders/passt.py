"""`passt`: probabilities of AudioSet's 527 labels by PaSST (Koutini et al., 2022), from the package `hear21passt`."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lora_bench.encoders.assembly import cut_windows
from lora_bench.encoders.checkpoints import import_network, need_checkpoint
from lora_bench.models.model_files import hash_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "checkpoints/passt-s-f128-p16-s10-ap.476-swa.pt"
URL = "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt"
ARCH = "passt_s_swa_p16_128_ap476"
N_LABELS = 527
WINDOW_S = 10.0
"""The network's longest input."""


class Passt:
    """Softmax of the logits, one vector per 10 s; the rest of a longer clip is a window of its own."""

    sample_rate_hz = 32_000
    dim = N_LABELS
    batch_s = 64.0

    def __init__(self, _settings: Any, device: str) -> None:
        base = import_network("passt", "hear21passt.base", "hear21passt")
        models = import_network("passt", "hear21passt.models.passt", "hear21passt")
        path = need_checkpoint("passt", FILE, URL)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its shapes
            mel = base.AugmentMelSTFT(
                n_mels=128, sr=32_000, win_length=800, hopsize=320, n_fft=1024, freqm=0, timem=0, htk=False, fmin=0.0,
                fmax=None, norm=1, fmin_aug_range=10, fmax_aug_range=2000,
            )  # fmt: skip
            net = models.get_model(arch=ARCH, pretrained=False)
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            self._network: Any = base.PasstBasicWrapper(mel=mel, net=net, mode="logits").to(device).eval()
        self._device = device
        self.provenance = {"weights": FILE, "weights_hash": hash_once(path), "window_s": WINDOW_S}

    @torch.inference_mode()
    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map clips [B, S] to probabilities [B, M, 527]."""
        window = int(WINDOW_S * self.sample_rate_hz)
        shortest = self.sample_rate_hz // 10  # a rest that gives one patch of the spectrogram
        pieces = cut_windows(audio, window=window, min_samples=shortest)
        found: list[torch.Tensor] = []
        with contextlib.redirect_stdout(io.StringIO()):
            for piece in pieces:
                logits = self._network(torch.from_numpy(np.ascontiguousarray(piece)).to(self._device))
                found.append(torch.softmax(logits.float(), dim=-1).cpu())
        return torch.stack(found, dim=1).numpy()
