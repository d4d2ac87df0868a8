"""Encoders from other packages, and small ones of this package, behind one contract; see `lora_bench.plugins`.

`docs/plugins.md` states the contract.  Checks, resampling, batches, the cache, intervals, paired comparisons and
provenance are done here and where every encoder is used.  An error inside a plug-in leaves its metrics unscored, with
the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import embed_pieces, prepare_clip
from lora_bench.errors import OutOfMemoryError, UnscoredError
from lora_bench.models.device import choose_device
from lora_bench.models.memory import is_out_of_memory
from lora_bench.plugins import PluginSource, blame, load_class
from lora_bench.plugins.settings import check_settings, describe_plugin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

BATCH_S = 64.0
"""Seconds of audio in one call of a plug-in that does not say."""


class Plugin(Protocol):
    """A plug-in as `docs/plugins.md#an-encoder` asks for it; `batch_s` and `provenance` may be absent."""

    sample_rate_hz: int
    dim: int

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map mono clips of equal length [B, S] to vectors [B, D], or to M vectors each, [B, M, D]."""
        ...


class PluginEncoder:
    """A plug-in as an encoder.

    Args:
        name: in metrics.
        source: who offers it, and how to load it.
        settings: of the spec's `encoders` section.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        SpecError: the settings are not those of the plug-in.
        UnscoredError: it cannot be loaded, or does not keep the contract.
    """

    def __init__(
        self, name: str, source: PluginSource, settings: Mapping[str, Any], *, device: str = "auto"
    ) -> None:
        self.name = name
        self._source = source
        kind = load_class(name, source, "embed")
        self.settings = check_settings(f"encoders.{name}", kind, settings)
        with blame(name, source, "cannot be loaded"):
            self._device = choose_device(device)
            self.plugin: Plugin = kind(self.settings, str(self._device))
            self.sample_rate_hz = int(self.plugin.sample_rate_hz)
            self.dim = int(self.plugin.dim)
            self._batch_s = float(getattr(self.plugin, "batch_s", BATCH_S))

    @property
    def provenance(self) -> Provenance:
        """The package and its version, settings, rate, and what the plug-in adds."""
        return {
            "weights": "of the package",
            **describe_plugin(self._source, self.settings, self.plugin),
            "encoder": self.name,
            "sample_rate_hz": self.sample_rate_hz,
            "resampler": RESAMPLER,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Embed all clips, in order; see `Encoder.embed`.

        Raises:
            UnscoredError: the plug-in fails, returns something else than the contract says, or runs out of memory with
                a single clip.
        """
        max_samples = int(self._batch_s * self.sample_rate_hz)
        try:
            return embed_pieces(
                clips, self._cut, self._run, self.provenance, max_samples=max_samples, device=self._device
            )
        except OutOfMemoryError as error:
            raise UnscoredError(f"{self.name}: {error}") from error

    def _cut(self, clip: AudioClip) -> list[NDArray[np.float32]]:
        return [prepare_clip(clip, sample_rate_hz=self.sample_rate_hz, channels=1, min_samples=1)[0]]

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            found = np.asarray(self.plugin.embed(batch), dtype=np.float32)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # the batch is halved
            with blame(self.name, self._source, "failed"):
                raise
        rows = found[:, None] if found.ndim == 2 else found
        if rows.ndim != 3 or rows.shape[0] != len(batch) or rows.shape[2] != self.dim:
            raise UnscoredError(
                f"{self.name}: the plug-in of {self._source.package} returned an array of shape {found.shape} for "
                f"{len(batch)} clips; expected [{len(batch)}, {self.dim}] or [{len(batch)}, vectors, {self.dim}]"
            )
        return rows
