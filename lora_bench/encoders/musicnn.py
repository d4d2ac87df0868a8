"""`musicnn` and `musicnn-tags`: the 200-d penultimate layer and the tags of a music tagger that works offline.

The weights come with the PyPI package musicnn 0.1.0 (ISC licence) as TensorFlow 1 checkpoints; TensorFlow
is not needed.  `musicnn` is the checkpoint trained on the Million Song Dataset, `musicnn-mtt` the one of
MagnaTagATune.  `musicnn-tags` is a distribution over the 50 tags of the first, for `label-kl/musicnn-tags`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lora_bench.audio import RESAMPLER
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.encoders.assembly import embed_pieces, prepare_clip
from lora_bench.encoders.musicnn_network import (
    N_MELS,
    N_PENULTIMATE,
    N_TAGS,
    MusicnnOutput,
    build_network,
)
from lora_bench.encoders.tensor_bundle import read_bundle
from lora_bench.errors import ModelError, UnscoredError
from lora_bench.models.device import choose_device
from lora_bench.store import hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

CHECKPOINTS = {"musicnn": "MSD_musicnn", "musicnn-mtt": "MTT_musicnn"}
PACKAGE = "musicnn==0.1.0"

# The package's `configuration.py`
SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 256
FFT_SAMPLES = 512
WINDOW_FRAMES = 187  # 3 s, what the networks were trained on; the package's default has no overlap
BATCH_WINDOWS = 16


def compute_log_mel(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the package's input features, in float32.

    The package rounds the mel power to float16 before it multiplies by 10000, which overflows to infinity
    for loud tones (above 6.55); nothing is rounded here.

    Args:
        audio: [S] at 16 kHz.

    Returns:
        [frames, 96]: log10(10000 * mel power + 1).
    """
    librosa = load_librosa()

    mel = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES, n_fft=FFT_SAMPLES, n_mels=N_MELS
    )
    return np.log10(10_000.0 * mel.T + 1.0).astype(np.float32)


def cut_frames(frames: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cut windows of 187 frames, end to end; the rest is left out, as in the package.

    Frames that do not fill one window are repeated until they do, as in the networks' training
    (`"pad_short": "repeat-pad"` in the checkpoint's `config.json`).
    """
    if len(frames) < WINDOW_FRAMES:
        return [np.tile(frames, (-(-WINDOW_FRAMES // len(frames)), 1))[:WINDOW_FRAMES]]
    starts = range(0, len(frames) - WINDOW_FRAMES + 1, WINDOW_FRAMES)
    return [frames[start : start + WINDOW_FRAMES] for start in starts]


def find_checkpoint(checkpoint: str) -> Path:
    """Return the folder of a checkpoint inside the installed package, which is not imported.

    Raises:
        UnscoredError: the package is not installed or lacks the checkpoint.
    """
    spec = find_spec("musicnn")
    if spec is None or spec.origin is None:
        raise UnscoredError(
            f"musicnn: the package that carries its weights is not installed; "
            f"`pip install --no-deps {PACKAGE}` (TensorFlow is not needed)"
        )
    folder = Path(spec.origin).parent / checkpoint
    if not (folder / ".index").is_file():
        raise UnscoredError(f"musicnn: {folder} holds no checkpoint; reinstall with `pip install {PACKAGE}`")
    return folder


def read_tags(checkpoint: str) -> tuple[str, ...]:
    """Read the names of the 50 tags from the package's `configuration.py`, which imports nothing."""
    from musicnn import configuration

    return tuple(configuration.MSD_LABELS if checkpoint.startswith("MSD") else configuration.MTT_LABELS)


class MusicnnEncoder:
    """One vector (and 50 tag probabilities) per window of about 3 s."""

    dim = N_PENULTIMATE
    layer = "penultimate (200)"
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, name: str = "musicnn", *, device: str = "auto") -> None:
        self.name = name
        self.checkpoint = CHECKPOINTS[name.removesuffix("-tags")]
        folder = find_checkpoint(self.checkpoint)
        self.device = choose_device(device)
        # the files of this checkpoint are called `.index` and `.data-...`: their prefix is empty
        try:
            self.network = build_network(read_bundle(folder, "")).to(self.device)
        except ModelError as error:
            raise UnscoredError(f"{name}: {error}") from error
        self.tags = read_tags(self.checkpoint)
        self._weights_hash = hash_file(folder / ".data-00000-of-00001")

    @property
    def provenance(self) -> Provenance:
        """Checkpoint and its hash, front end and windows."""
        return {
            "encoder": self.name,
            "weights": f"{self.checkpoint} of {PACKAGE}",
            "weights_hash": self._weights_hash,
            "layer": self.layer,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "resampler": RESAMPLER,
            "n_mels": N_MELS,
            "window_frames": WINDOW_FRAMES,
            "window_hop_frames": WINDOW_FRAMES,
            "frame_hop_samples": HOP_SAMPLES,
            "short_clips": "repeated to one window",
            "librosa": metadata.version("librosa"),
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """One vector per window; see `Encoder.embed`."""
        return self._embed(clips, lambda output: output.penultimate)

    def embed_and_tag(self, clips: Iterable[AudioClip]) -> tuple[Embeddings, NDArray[np.float32]]:
        """Return vectors, and each clip's mean probability of each of `tags` over its windows, [N, 50]."""
        both = self._embed(
            clips, lambda output: torch.cat([output.penultimate, torch.sigmoid(output.logits)], dim=1)
        )
        vectors, tags = both.values[:, :N_PENULTIMATE], both.values[:, N_PENULTIMATE:]
        n_clips = len(both.clip_names)
        means = [tags[both.clip_index == clip].mean(axis=0) for clip in range(n_clips)]
        return replace(both, values=np.ascontiguousarray(vectors)), np.stack(means)

    def _embed(self, clips: Iterable[AudioClip], read: Callable[[MusicnnOutput], torch.Tensor]) -> Embeddings:
        """Embed clips by what `read` takes, [B, D], from the output for a batch of windows."""

        def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            """[B, frames, 96] -> [B, 1, D]."""
            with torch.inference_mode():
                found = read(self.network.run(torch.from_numpy(batch).to(self.device)))
            return found.float().cpu().numpy()[:, None]

        return embed_pieces(
            clips,
            self._cut,
            run,
            self.provenance,
            max_samples=BATCH_WINDOWS * WINDOW_FRAMES * N_MELS,
            device=self.device,
        )

    def _cut(self, clip: AudioClip) -> list[NDArray[np.float32]]:
        audio = prepare_clip(clip, sample_rate_hz=SAMPLE_RATE_HZ, channels=1, min_samples=FFT_SAMPLES)
        return cut_frames(compute_log_mel(audio[0]))


class MusicnnTagsEncoder(MusicnnEncoder):
    """A distribution over the 50 tags per window of about 3 s: the softmax of their logits.

    The tags are not exclusive, so their probabilities have no fixed sum.  The softmax, as for `passt`, gives each tag
    its share of the sum of exp(logit); how sure the tagger is that any tag fits is lost.
    """

    dim = N_TAGS
    layer = "softmax of the logits of 50 tags"

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """One distribution per window; see `Encoder.embed`."""
        return self._embed(clips, lambda output: torch.softmax(output.logits, dim=1))
