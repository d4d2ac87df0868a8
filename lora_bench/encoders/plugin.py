"""Encoders from other packages, and small ones of this package, behind one contract.

A plug-in is a class that a package names in its `pyproject.toml`:

    [project.entry-points."lora_bench.encoders"]
    my-encoder = "my_package:MyEncoder"

`Plugin` is the contract.  Checks, resampling, batches, the cache, intervals, paired comparisons and provenance are done
here and where every encoder is used.  An error inside a plug-in leaves its metrics unscored, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import JsonSchemaValue

from lora_bench.audio import RESAMPLER
from lora_bench.encoders.assembly import embed_pieces, prepare_clip
from lora_bench.errors import LoraBenchError, Problem, SpecError, UnscoredError
from lora_bench.metrics.names import EncoderSource, list_plugins
from lora_bench.models.device import choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.artifacts import AudioClip, Embeddings
    from lora_bench.encoders.protocol import Provenance

BATCH_S = 64.0
"""Seconds of audio in one call of a plug-in that does not say."""


class Plugin(Protocol):
    """What a plug-in's class offers.

    Called as `Class(settings, device)`: `settings` is an instance of its `Settings`, a Pydantic model whose fields all
    have defaults (None without one), and `device` is `cpu` or `cuda`.

    Attributes:
        sample_rate_hz: rate that audio arrives with.
        dim: D.
        provenance: what vectors depend on besides the package's version and the settings, such as `weights_hash`.
            Absent counts as empty.
        batch_s: seconds of audio in one call; absent is `BATCH_S`.
    """

    sample_rate_hz: int
    dim: int

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map mono clips of equal length [B, S] to vectors [B, D], or to M vectors each, [B, M, D]."""
        ...


class NoSettings(BaseModel):
    """Settings of a plug-in that has none."""

    model_config = ConfigDict(extra="forbid")


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
        self, name: str, source: EncoderSource, settings: Mapping[str, Any], *, device: str = "auto"
    ) -> None:
        self.name = name
        self._source = source
        with self._blame("cannot be loaded"):
            kind = source.load()
        self.settings = check_settings(name, kind, settings)
        with self._blame("cannot be loaded"):
            self.plugin: Plugin = kind(self.settings, str(choose_device(device)))
            self.sample_rate_hz = int(self.plugin.sample_rate_hz)
            self.dim = int(self.plugin.dim)
            self._batch_s = float(getattr(self.plugin, "batch_s", BATCH_S))

    @property
    def provenance(self) -> Provenance:
        """The package and its version, settings, rate, and what the plug-in adds."""
        given: Mapping[str, Any] = getattr(self.plugin, "provenance", {})
        return {
            "weights": "of the package",
            **{
                str(key): value if isinstance(value, (int, float)) else str(value)
                for key, value in given.items()
            },
            "encoder": self.name,
            "package": self._source.package,
            "settings": self.settings.model_dump_json(),
            "sample_rate_hz": self.sample_rate_hz,
            "resampler": RESAMPLER,
        }

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Embed all clips, in order; see `Encoder.embed`.

        Raises:
            UnscoredError: the plug-in fails, or returns something else than the contract says.
        """
        max_samples = int(self._batch_s * self.sample_rate_hz)
        return embed_pieces(clips, self._cut, self._run, self.provenance, max_samples=max_samples)

    def _cut(self, clip: AudioClip) -> list[NDArray[np.float32]]:
        return [prepare_clip(clip, sample_rate_hz=self.sample_rate_hz, channels=1, min_samples=1)[0]]

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._blame("failed"):
            found = np.asarray(self.plugin.embed(batch), dtype=np.float32)
        rows = found[:, None] if found.ndim == 2 else found
        if rows.ndim != 3 or rows.shape[0] != len(batch) or rows.shape[2] != self.dim:
            raise UnscoredError(
                f"{self.name}: the plug-in of {self._source.package} returned an array of shape {found.shape} for "
                f"{len(batch)} clips; expected [{len(batch)}, {self.dim}] or [{len(batch)}, vectors, {self.dim}]"
            )
        return rows

    @contextmanager
    def _blame(self, what: str) -> Iterator[None]:
        """Name the plug-in in any error of its own."""
        try:
            yield
        except (SpecError, UnscoredError):
            raise
        except Exception as error:
            words = " ".join(str(error).split()) or "no message"
            told = words if isinstance(error, LoraBenchError) else f"{type(error).__name__}: {words}"
            raise UnscoredError(
                f"{self.name}: the plug-in of {self._source.package} {what} ({told})"
            ) from error


def check_settings(name: str, kind: Callable[..., Plugin], settings: Mapping[str, Any]) -> BaseModel:
    """Return the settings of a plug-in, checked.

    Raises:
        SpecError: names every field that is wrong.
    """
    model: type[BaseModel] = getattr(kind, "Settings", NoSettings)
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        problems = [
            Problem(
                f"encoders.{'.'.join(map(str, (name, *item['loc'])))}",
                f"encoders.{name}",
                f"{item['msg'][:1].lower()}{item['msg'][1:]}; expected the settings of the plug-in: "
                f"{', '.join(model.model_fields) or 'none'}",
            )
            for item in error.errors()
        ]
        raise SpecError(problems) from error


def describe_settings() -> dict[str, JsonSchemaValue]:
    """Return the JSON Schema of the settings of every installed plug-in; one that cannot be loaded takes anything."""
    schemas: dict[str, JsonSchemaValue] = {}
    for name, source in list_plugins().items():
        try:
            schemas[name] = getattr(source.load(), "Settings", NoSettings).model_json_schema()
        except Exception:  # noqa: BLE001 (of the plug-in; `doctor` says what is wrong)
            schemas[name] = {"type": "object"}
    return schemas
