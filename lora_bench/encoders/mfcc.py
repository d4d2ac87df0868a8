"""MFCC vectors: `mfcc20-seed`, the metric of the published zero-shot table, and `mfcc20`, its corrected form.

`mfcc20-seed` reads every file at its own rate and standardises each frame across its own twenty coefficients, so that
loudness changes the shape of a frame, and its covariance has rank 19.  It is kept for comparability.  `mfcc20`
resamples everything to one rate and divides each coefficient by one fixed scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.encoders.assembly import embed_each, prepare_clip
from lora_bench.errors import ScoreError
from lora_bench.store import hash_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

N_MFCC = 20
WINDOW_SAMPLES = 2048  # librosa's n_fft
HOP_SAMPLES = 512  # librosa's hop_length
CONSTANT_FRAC = 1e-6  # a coefficient that varies by less than this share of its size counts as constant


def compute_mfcc(clip: AudioClip, sample_rate_hz: int | None) -> NDArray[np.float32]:
    """Compute the MFCC of one clip with librosa's defaults, channels averaged.

    Args:
        clip: any rate and channel count.
        sample_rate_hz: rate to resample to; None is the clip's own.

    Returns:
        float32 [20, frames].
    """
    librosa = load_librosa()

    audio = prepare_clip(clip, sample_rate_hz=sample_rate_hz, channels=1, min_samples=WINDOW_SAMPLES)
    return librosa.feature.mfcc(y=audio[0], sr=sample_rate_hz or clip.sample_rate_hz, n_mfcc=N_MFCC)


def mfcc_provenance(encoder: str, rate: str | int) -> Provenance:
    """Return the provenance that both encoders share."""
    return {
        "encoder": encoder,
        "weights": "none",
        "sample_rate_hz": rate,
        "resampler": RESAMPLER if isinstance(rate, int) else "none",
        "window_samples": WINDOW_SAMPLES,
        "hop_samples": HOP_SAMPLES,
        "librosa": metadata.version("librosa"),
    }


class SeedMfccEncoder:
    """`mfcc20-seed`: each frame's twenty coefficients standardised among themselves."""

    name = "mfcc20-seed"
    dim = N_MFCC
    sample_rate_hz = None

    @property
    def provenance(self) -> Provenance:
        """Librosa's and scikit-learn's versions; the rate is each file's own."""
        import sklearn

        return {
            **mfcc_provenance(self.name, "each file's own"),
            "scaling": "each frame standardised across its coefficients",
            "scikit_learn": sklearn.__version__,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """One vector per frame; see `Encoder.embed`."""
        from sklearn.preprocessing import StandardScaler

        rates: set[int] = set()

        def measure(clip: AudioClip) -> NDArray[np.float32]:
            rates.add(clip.sample_rate_hz)
            # [20, frames] goes in as it is, so the scaler's "features" are the frames
            return np.asarray(StandardScaler().fit_transform(compute_mfcc(clip, self.sample_rate_hz))).T

        embeddings = embed_each(clips, measure, self.provenance)
        found = ", ".join(str(rate) for rate in sorted(rates))
        return replace(embeddings, provenance={**embeddings.provenance, "file_rates_hz": found})


@dataclass(frozen=True)
class MfccScale:
    """The divisor of each coefficient, fitted once and then fixed.

    Attributes:
        values: 20 standard deviations over all frames of the clips it was fitted on; 1 where constant.
        sample_rate_hz: rate at which the coefficients were computed.
        n_clips: how many clips it was fitted on.
    """

    values: tuple[float, ...]
    sample_rate_hz: int
    n_clips: int

    @property
    def key(self) -> str:
        """Hash of rate and values, for provenance."""
        return hash_json([self.sample_rate_hz, [float(np.float32(value)) for value in self.values]])


def measure_scale(clips: Iterable[AudioClip], sample_rate_hz: int) -> MfccScale:
    """Measure the standard deviation of each coefficient over all frames of `clips`.

    Raises:
        ScoreError: there are no clips, or one of them cannot be embedded.
    """
    frames = [compute_mfcc(clip, sample_rate_hz) for clip in clips]
    if not frames:
        raise ScoreError("mfcc20: no clips to fit the coefficients' scale on; expected at least one")
    stacked = np.concatenate(frames, axis=1).astype(np.float64)
    spread = stacked.std(axis=1)
    size = np.maximum(np.abs(stacked).max(axis=1), 1.0)
    values = np.where(spread > CONSTANT_FRAC * size, spread, 1.0)
    return MfccScale(tuple(float(value) for value in values), sample_rate_hz, len(frames))


class MfccEncoder:
    """`mfcc20`: MFCC at one rate, each coefficient divided by a fixed scale.

    Fit the scale before embedding, on recordings of the genre that are not scored (the training split), or on
    the whole reference folder if there are no others; never on generated clips.
    """

    name = "mfcc20"
    dim = N_MFCC

    def __init__(self, sample_rate_hz: int, scale: MfccScale | None = None) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.scale = scale

    def fit_scale(self, clips: Iterable[AudioClip]) -> MfccScale:
        """Fit the scale on `clips` and keep it; see `measure_scale`."""
        self.scale = measure_scale(clips, self.sample_rate_hz)
        return self.scale

    @property
    def fitted_scale(self) -> MfccScale:
        """The scale; `ScoreError` if there is none yet."""
        if self.scale is None:
            raise ScoreError("mfcc20: its scale is not fitted; call `fit_scale` with recordings of the genre")
        return self.scale

    @property
    def provenance(self) -> Provenance:
        """Rate, resampler and the hash of the fitted scale."""
        scale = self.fitted_scale
        return {
            **mfcc_provenance(self.name, self.sample_rate_hz),
            "scaling": f"fixed per coefficient, fitted on {scale.n_clips} clips",
            "scale": scale.key,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """One vector per frame; see `Encoder.embed`."""
        divisor = np.asarray(self.fitted_scale.values, dtype=np.float32)

        def measure(clip: AudioClip) -> NDArray[np.float32]:
            return compute_mfcc(clip, self.sample_rate_hz).T / divisor

        return embed_each(clips, measure, self.provenance)
