"""What an encoder is: audio clips in, embedding vectors out, with the provenance of every vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_bench.artifacts import AudioClip, Embeddings

Provenance = dict[str, str | int | float]


class Encoder(Protocol):
    """Turns clips into vectors; the same clip gives the same vectors whatever stands beside it."""

    @property
    def name(self) -> str:
        """The name by which metrics ask for it (`mfcc20`, `musicnn`, ...)."""
        ...

    @property
    def dim(self) -> int:
        """D, the length of one vector."""
        ...

    @property
    def sample_rate_hz(self) -> int | None:
        """Rate to which clips are brought (once, by the one resampler); None is the clip's own."""
        ...

    @property
    def provenance(self) -> Mapping[str, str | int | float]:
        """Encoder, weights hash, rate, window, hop, resampler, versions: all that a vector depends on."""
        ...

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Vectors of all clips, in the order of the clips.

        Args:
            clips: excerpts of any rate and channel count; read one batch at a time.

        Returns:
            `values` float32 [M, D], at least one vector per clip.

        Raises:
            ScoreError: a clip is empty, too short, or holds values that are not finite; names it.
        """
        ...
