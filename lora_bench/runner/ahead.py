"""Features on the CPU, computed by worker processes before scoring asks for them.

While a GPU generates the next prompt, workers embed the clips of the last one with the encoders that compute on the
CPU, and measure silence, repetition and copies in their sound.  The results go into the cache, where scoring finds
them: by the same functions with the same number of threads, so scores are those of a run without workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_bench.artifacts import AudioClip, GeneratedClips, Manifest, Split
from lora_bench.errors import UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.runner.jobs.workers import Workers
from lora_bench.store import Store

if TYPE_CHECKING:
    from lora_bench.encoders import Encoder

Tell = Callable[[str], None]


class FeaturesAhead:
    """Hands features of one trial to workers.

    Args:
        workers: if there are none, nothing is computed ahead.
        trial: says which encoders.
        manifest: the data.
        training: the same with the part of the training side that is searched for copies.
        store: the trial's.
    """

    def __init__(
        self, workers: Workers, trial: TrialPlan, manifest: Manifest, training: Manifest, store: Store
    ) -> None:
        from lora_bench.encoders import CPU_ENCODERS

        names = dict.fromkeys(parse_metric(name).encoder for name in trial.metrics)
        self._encoders = [name for name in names if name in CPU_ENCODERS]
        self._workers = workers
        self._data = _Data(manifest, training, trial.generation.clip_s, store)

    def add_references(self) -> None:
        """Embed the held-out recordings."""
        for side in ("eval", "selection") if self._data.manifest.has_selection else ("eval",):
            for name in self._encoders:
                self._add(f"{name} of the references", self._count(side), _embed_references, name, side)

    def add_controls(self) -> None:
        """Measure the sound of the held-out recordings as that of clips."""
        self._add("guards of the references", self._count("eval"), _measure_references)

    def add_clips(self, clips: GeneratedClips) -> None:
        """Embed and measure the clips of a prompt."""
        for name in self._encoders:
            self._add(f"{name} of {clips.prompt!r}", len(clips.files), _embed, name, clips)
        self._add(f"guards of {clips.prompt!r}", len(clips.files), _measure, clips)

    def _count(self, side: Split) -> int:
        from lora_bench.stages.dataset import n_reference_clips

        return n_reference_clips(self._data.manifest, side, self._data.clip_s)

    def _add(self, what: str, n_clips: int, function: Callable[..., None], *arguments: object) -> None:
        if self._workers.n:
            self._workers.submit(what, n_clips, function, self._data, *arguments)


@dataclass(frozen=True)
class _Data:
    """What all tasks of a trial need."""

    manifest: Manifest
    training: Manifest
    clip_s: float
    store: Store

    def prepare_encoder(self, name: str) -> Encoder:
        from lora_bench.evaluation.encoding import prepare_encoder

        return prepare_encoder(name, None, self.manifest, self.clip_s, self.store)


def _tell_each(clips: Iterable[AudioClip], tell: Tell) -> Iterator[AudioClip]:
    for clip in clips:
        tell(clip.name)
        yield clip


# A feature that is unscored is left to scoring, which gives the reason.


def _embed(tell: Tell, data: _Data, name: str, clips: GeneratedClips) -> None:
    from lora_bench.evaluation.encoding import load_clips
    from lora_bench.stages.embed import embed_clips, hash_clips

    encoder, key = data.prepare_encoder(name), hash_clips(load_clips(clips))
    with suppress(UnscoredError):
        embed_clips(encoder, _tell_each(load_clips(clips), tell), data.store, key)


def _measure(tell: Tell, data: _Data, clips: GeneratedClips) -> None:
    from lora_bench.evaluation.clip_sound import measure_sound
    from lora_bench.evaluation.encoding import load_clips
    from lora_bench.stages.embed import hash_clips

    key = hash_clips(load_clips(clips))
    with suppress(UnscoredError):
        measure_sound(_tell_each(load_clips(clips), tell), data.training, data.store, key)


def _embed_references(_: Tell, data: _Data, name: str, side: Split) -> None:
    from lora_bench.evaluation.encoding import embed_reference

    with suppress(UnscoredError):
        embed_reference(data.prepare_encoder(name), data.manifest, data.clip_s, data.store, side=side)


def _measure_references(tell: Tell, data: _Data) -> None:
    from lora_bench.evaluation.trial_guards import measure_held_out

    with suppress(UnscoredError):
        measure_held_out(data.training, data.clip_s, data.store, lambda clips: _tell_each(clips, tell))
