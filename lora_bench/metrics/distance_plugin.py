"""Distances that are plug-ins: a function of two sets of vectors, clips and tracks left out by calling it again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lora_bench.errors import UnscoredError
from lora_bench.metrics.clusters import Clusters
from lora_bench.metrics.jackknife import is_rounding
from lora_bench.metrics.names import Metric, list_distances
from lora_bench.metrics.replicates import PARTS, LeftOut, Part, Replicates, can_leave_one_out
from lora_bench.plugins import PluginSource, blame, load_class
from lora_bench.plugins.settings import check_settings, describe_plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_LEFT_OUT = 100
"""Clips per prompt, and tracks, that are left out one by one; more are merged at random into as many groups."""


class DistancePlugin(Protocol):
    """A plug-in as `docs/plugins.md#a-distance` asks for it.

    `prepare`, `is_biased`, `max_left_out` and `provenance` may be absent.
    """

    def measure(self, generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
        """Return the distance of the vectors [M, D] of clips from those [N, D] of recordings."""
        ...


class PluginDistance:
    """A plug-in as a distance.

    Args:
        name: before the `/` of a metric.
        source: who offers it, and how to load it.
        settings: of the spec's `distances` section.

    Raises:
        SpecError: the settings are not those of the plug-in.
        UnscoredError: it cannot be loaded.
    """

    def __init__(self, name: str, source: PluginSource, settings: Mapping[str, Any]) -> None:
        self.name, self._source = name, source
        kind = load_class(name, source, "measure")
        self.settings = check_settings(f"distances.{name}", kind, settings)
        with blame(name, source, "cannot be loaded"):
            self._plugin: DistancePlugin = kind(self.settings)
            self._is_biased = bool(getattr(self._plugin, "is_biased", True))
            self._max_left_out = int(getattr(self._plugin, "max_left_out", MAX_LEFT_OUT))

    @property
    def provenance(self) -> dict[str, str | int | float]:
        """The package and its version, settings, and what the plug-in adds."""
        found = describe_plugin(self._source, self.settings, self._plugin)
        return {f"distance_{name}": value for name, value in found.items()}

    def measure(self, generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
        """Return the distance of two sets of vectors, [M, D] and [N, D].

        Raises:
            UnscoredError: the plug-in fails, or returns something else than the contract says.
        """
        return self._measure(*self._prepare(generated, reference))

    def _prepare(
        self, generated: NDArray[np.float64], reference: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        prepare = getattr(self._plugin, "prepare", None)
        if prepare is None:
            return generated, reference
        with blame(self.name, self._source, "failed"):
            ours, theirs = (np.asarray(side, dtype=np.float64) for side in prepare(generated, reference))
            if (len(ours), len(theirs)) != (len(generated), len(reference)):
                raise ValueError(
                    f"`prepare` returned {len(ours)} and {len(theirs)} vectors for {len(generated)} and "
                    f"{len(reference)}; expected as many"
                )
        return ours, theirs

    def _measure(self, generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
        with blame(self.name, self._source, "failed"):
            found = float(self._plugin.measure(generated, reference))
        if not math.isfinite(found):
            raise UnscoredError(
                f"{self.name}: the plug-in of {self._source.package} returned {found}; expected a finite number"
            )
        return found

    def replicate(self, generated: Clusters, reference: Clusters) -> Replicates:
        """Return the distance with each clip and each track left out in turn.

        Raises:
            UnscoredError: as `measure`.
        """
        ours, theirs = self._prepare(generated.vectors, reference.vectors)
        generated, reference = replace(generated, vectors=ours), replace(reference, vectors=theirs)
        value = self._measure(ours, theirs)
        parts: dict[Part, LeftOut] = {}
        for name, clusters in zip(PARTS, (generated, reference), strict=True):
            merged = clusters.merge_to(self._max_left_out)
            if not can_leave_one_out(merged):
                side = "generated" if name == "clips" else "reference"
                few = f"too few {side} clips to leave one out"
                return Replicates(value, {}, is_biased=self._is_biased, lacking=few)
            values = np.empty(merged.n_clusters)
            for cluster in range(merged.n_clusters):
                left = np.delete(merged.vectors, slice(*merged.starts[cluster : cluster + 2]), axis=0)
                sides = (left, theirs) if name == "clips" else (ours, left)
                values[cluster] = self._measure(*sides)
            sizes = merged.sizes.astype(np.float64)
            parts[name] = LeftOut(value, values, sizes, merged.strata)
        # as for sets that share no bin; `measure` may round otherwise for another number of vectors
        if all(is_rounding(part.values - value, abs(value)) for part in parts.values()):
            same = "leaving out any clip or track gives the same number, so its error is not known"
            return Replicates(value, {}, is_biased=self._is_biased, lacking=same)
        return Replicates(value, parts, is_biased=self._is_biased)


@lru_cache(maxsize=16)
def load_distance(metric: Metric) -> PluginDistance:
    """Return the plug-in of a metric's distance, with the metric's settings.

    Raises:
        SpecError, UnscoredError: as `PluginDistance`.
    """
    source = list_distances()[metric.distance]
    return PluginDistance(metric.distance, source, json.loads(metric.settings))
