"""`vggish`, `pann`, `encodec-24k`: the networks of frechet-audio-distance, in batches.

Networks, settings, checkpoint names and folder are those of the package.  Its own loop is not used: it takes one
file at a time, and skips a file that it cannot read.  The same clips give the same vectors as its `get_embeddings`.
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import cut_windows, embed_pieces, prepare_clip
from lora_bench.encoders.checkpoints import import_fad_networks, need_checkpoint, need_package
from lora_bench.errors import UnscoredError
from lora_bench.models.device import choose_device
from lora_bench.models.model_files import hash_once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

BATCH_S = 64  # seconds of audio per forward pass on a GPU

ZENODO = "https://zenodo.org/record/3987831/files/"
PANN_RATES = {
    # name: rate, class, checkpoint, window, hop, highest frequency; as in frechet_audio_distance/fad.py
    "pann": (16_000, "Cnn14_16k", "Cnn14_16k_mAP%3D0.438.pth", 512, 160, 8_000),
    "pann-32k": (32_000, "Cnn14", "Cnn14_mAP%3D0.431.pth", 1024, 320, 16_000),
}
VGGISH_REPOSITORY = "harritaylor_torchvggish_master"
VGGISH_WEIGHTS = "checkpoints/vggish-10086976.pth"
VGGISH_URL = "https://github.com/harritaylor/torchvggish"
ENCODEC_WEIGHTS = "checkpoints/encodec_24khz-d7cc33bc.th"
ENCODEC_URL = "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th"


class NetworkEncoder:
    """Base of encoders with a network: prepares clips, stacks them by length, and calls `forward_batch`.

    Attributes:
        window_s: longer files are cut into windows of this length; None takes them whole.
        min_samples: shortest clip that the network accepts, at its rate.
        cpu_batch_s: seconds of audio per forward pass on a CPU; more is not faster there.
    """

    name: str
    dim: int
    sample_rate_hz: int
    min_samples: int
    window_s: float | None = None
    cpu_batch_s: float = 16.0

    def __init__(self, name: str, checkpoint: Path, device: str) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.device = choose_device(device)

    @property
    def provenance(self) -> Provenance:
        """Checkpoint and its hash, rate, resampler and the network's own settings."""
        return {
            "encoder": self.name,
            "weights": self.checkpoint.name,
            "weights_hash": hash_once(self.checkpoint),
            "sample_rate_hz": self.sample_rate_hz,
            "resampler": RESAMPLER,
            **self.describe(),
        }

    def describe(self) -> Provenance:
        """Return the settings of this network that the vectors depend on."""
        raise NotImplementedError

    def forward_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map samples [B, S], or the pieces that `split` makes of them, to vectors [B, M, D]."""
        raise NotImplementedError

    def split(self, audio: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Cut one clip [S] into the pieces that go through the network."""
        if self.window_s is None:
            return [audio]
        window = int(self.window_s * self.sample_rate_hz)
        return cut_windows(audio, window=window, min_samples=self.min_samples)

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """See `Encoder.embed`."""
        seconds = self.cpu_batch_s if self.device.type == "cpu" else BATCH_S
        budget = int(seconds * self.sample_rate_hz)
        run = torch.inference_mode()(self.forward_batch)
        return embed_pieces(clips, self._cut, run, self.provenance, max_samples=budget, device=self.device)

    def _cut(self, clip: AudioClip) -> list[NDArray[np.float32]]:
        audio = prepare_clip(
            clip, sample_rate_hz=self.sample_rate_hz, channels=1, min_samples=self.min_samples
        )
        return self.split(audio[0])


class PannEncoder(NetworkEncoder):
    """PANNs Cnn14, the 2048-d embedding before the classifier; one vector per clip of any length.

    `pann` is the 16 kHz network, frechet-audio-distance's default rate; `pann-32k` the 32 kHz one.
    """

    dim = 2048

    def __init__(self, name: str = "pann", *, device: str = "auto") -> None:
        rate_hz, class_name, file_name, window, hop, fmax = PANN_RATES[name]
        networks = import_fad_networks(name)
        super().__init__(name, need_checkpoint(name, file_name, ZENODO + file_name), device)
        self.sample_rate_hz = rate_hz
        self.min_samples = 32 * hop  # five poolings by two
        self._window, self._hop = window, hop
        network = getattr(networks, class_name)(
            sample_rate=rate_hz,
            window_size=window,
            hop_size=hop,
            mel_bins=64,
            fmin=50,
            fmax=fmax,
            classes_num=527,
        )
        state = load_state(name, self.checkpoint)
        network.load_state_dict(state.get("model", state))
        self.network = network.to(self.device).eval()

    def describe(self) -> Provenance:
        """Network and frames."""
        return {
            "network": PANN_RATES[self.name][1],
            "layer": "embedding (2048)",
            "window": "whole clip",
            "frame_window_samples": self._window,
            "frame_hop_samples": self._hop,
        }

    def forward_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, S] -> [B, 1, 2048]."""
        output = self.network(torch.from_numpy(batch).to(self.device), None)["embedding"]
        return output.float().cpu().numpy()[:, None]


class Encodec24Encoder(NetworkEncoder):
    """EnCodec's public 24 kHz model before its quantiser, 128-d, 75 frames a second."""

    dim = 128
    sample_rate_hz = 24_000
    min_samples = 2400
    window_s = 30.0
    cpu_batch_s = (
        8.0  # with two clips of 8 s at once a CPU is a quarter slower (measured): they leave its caches
    )

    def __init__(self, name: str = "encodec-24k", *, device: str = "auto") -> None:
        need_package(name, "encodec")
        super().__init__(name, need_checkpoint(name, ENCODEC_WEIGHTS, ENCODEC_URL), device)
        from encodec import EncodecModel

        try:
            model = EncodecModel.encodec_model_24khz(repository=self.checkpoint.parent)
        except RuntimeError as error:
            raise UnscoredError(
                f"{name}: {self.checkpoint} cannot be loaded ({error}); get it again from {ENCODEC_URL}"
            ) from error
        self.network = model.encoder.to(self.device).eval()

    def describe(self) -> Provenance:
        """Frames and windows."""
        return {"frame_rate_hz": 75, "window_s": self.window_s or 0.0}

    def forward_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, S] -> [B, F, 128]."""
        latents = self.network(torch.from_numpy(batch).to(self.device)[:, None])
        return latents.transpose(1, 2).float().cpu().numpy()


class VggishEncoder(NetworkEncoder):
    """VGGish, the torchvggish variant: no PCA, the last ReLU dropped, 0.96 s windows without overlap.

    Google's own network (PCA and quantised) and other ports give other numbers.
    """

    dim = 128
    sample_rate_hz = 16_000
    min_samples = 15_600  # 96 frames of 25 ms every 10 ms
    variant: ClassVar[str] = "torchvggish, no PCA, last ReLU dropped"

    def __init__(self, name: str = "vggish", *, device: str = "auto") -> None:
        repository = need_checkpoint(
            name,
            VGGISH_REPOSITORY,
            f"{VGGISH_URL}/archive/refs/heads/master.zip, unpacked and renamed to {VGGISH_REPOSITORY}",
        )
        weights = need_checkpoint(
            name, VGGISH_WEIGHTS, f"{VGGISH_URL}/releases/download/v0.1/vggish-10086976.pth"
        )
        super().__init__(name, weights, device)
        self.network = self._load(repository)

    def _load(self, repository: Path) -> Any:
        """The repository's own loader, on weights that lie where it looks for them."""
        hub_folder = torch.hub.get_dir()
        torch.hub.set_dir(str(repository.parent))
        try:
            network: Any = torch.hub.load(
                str(repository), "vggish", source="local", postprocess=False, device=torch.device("cpu")
            )
        except (ImportError, RuntimeError) as error:
            raise UnscoredError(f"{self.name}: {repository} cannot be loaded ({error})") from error
        finally:
            torch.hub.set_dir(hub_folder)
        network.embeddings = torch.nn.Sequential(*list(network.embeddings.children())[:-1])
        network.device = self.device
        return network.to(self.device).eval()

    def describe(self) -> Provenance:
        """Variant and windows."""
        return {"variant": self.variant, "window_s": 0.96, "window_hop_s": 0.96}

    def split(self, audio: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The network's own log-mel windows of a clip, each [1, 96, 64]; a rest below 0.96 s is left out."""
        examples = self.network._preprocess(audio, self.sample_rate_hz)
        return list(examples.detach().cpu().numpy().astype(np.float32))

    def forward_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, 1, 96, 64] -> [B, 1, 128]."""
        self.network.preprocess = False
        try:
            vectors = self.network(torch.from_numpy(batch).to(self.device))
        finally:
            self.network.preprocess = True
        return vectors.float().cpu().numpy()[:, None]


def load_state(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors, read without running code from it.

    Raises:
        UnscoredError: the file is damaged or holds more than tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise UnscoredError(f"{name}: {path} cannot be loaded ({error}); get it again") from error
