"""The interface of an encoder: audio clips in, embedding vectors with provenance out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_bench.artifacts import AudioClip, Embeddings

Provenance = dict[str, str | int | float]


class Encoder(Protocol):
    """Turns clips into vectors; a clip's vectors do not depend on the other clips."""

    @property
    def name(self) -> str:
        """The name in metrics (`mfcc20`, `musicnn`, ...)."""
        ...

    @property
    def dim(self) -> int:
        """D, the length of one vector."""
        ...

    @property
    def sample_rate_hz(self) -> int | None:
        """Rate to which clips are resampled; None keeps the clip's own."""
        ...

    @property
    def provenance(self) -> Mapping[str, str | int | float]:
        """Everything that a vector depends on: encoder, weights hash, rate, window, hop, resampler, versions."""
        ...

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Embed all clips, in order.

        Args:
            clips: excerpts of any rate and channel count; read one batch at a time.

        Returns:
            `values` float32 [M, D], at least one vector per clip.

        Raises:
            ScoreError: a clip is empty, too short, or holds values that are not finite; names it.
        """
        ...
