"""Contrasts of configurations, from the embeddings of their trials: the one inference that all tables read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.contrast import (
    Cause,
    Difference,
    Family,
    Place,
    add_seed_errors,
    join_family,
    subtract,
    subtract_independent,
)
from lora_bench.metrics.names import Metric
from lora_bench.metrics.prompt_tags import choose_prompts
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.metrics.replicates import Replicates
from lora_bench.metrics.verdicts import ALPHA, judge
from lora_bench.results.records import Contrast, ErrorParts, SeedDifference
from lora_bench.stages.score import replicate_score

METHOD = {
    "estimator": "difference of bias-corrected statistics of clips with the same prompts and noise, mean over seeds",
    "interval": "delete-one-cluster jackknife of clips and tracks, and spread over training seeds, Welch",
}
METHOD_UNPAIRED = {
    "estimator": "difference of bias-corrected statistics of clips with the same prompts, without pairs (the other "
    "system's clips have noise of their own), mean over seeds",
    "interval": "delete-one-cluster jackknife of either side's clips and of tracks, and spread over training seeds, "
    "Welch",
}
SINGLE, SIMULTANEOUS = "95 %, of this difference alone", "95 %, simultaneous over the primary family"
N_LOADED = 64


@dataclass(frozen=True)
class Trained:
    """One training: the trial, and what it is compared with."""

    trial: EmbeddedTrial
    against: EmbeddedTrial
    train_seed: int | None


@dataclass(frozen=True)
class Group:
    """A configuration and what it is compared with, over its training seeds.

    Attributes:
        configuration: the seeds' common name.
        against: name of the other configuration.
        source: key of the model, data and sampling that groups share; only within one are they comparable.
        trainings: one per seed.
        margins: by metric, the largest difference that counts as none.
        is_paired: whether clips of one index share their noise; not those of another system.
    """

    configuration: str
    against: str
    source: str
    trainings: tuple[Trained, ...]
    margins: Mapping[str, float]
    is_paired: bool = True

    @property
    def sides(self) -> list[EmbeddedTrial]:
        """All trials, each once."""
        return list(dict.fromkeys(side for one in self.trainings for side in (one.trial, one.against)))


@dataclass(frozen=True)
class Cell:
    """What was measured of one group on one metric and prompt."""

    group: Group
    metric: Metric
    prompt: str | None
    difference: Difference
    prompts: tuple[str, ...]
    n_clips: tuple[int, int]
    n_tracks: int | None
    notes: tuple[str, ...]
    provenance: Mapping[str, str | int | float]

    @property
    def places(self) -> dict[Cause, list[Place]]:
        """Names of the strata of its errors: equal ones are the same clips, tracks and seeds."""
        source = self.group.source
        own: list[Place] = []
        if not self.group.is_paired:
            own = [(source, prompt, self.group.configuration) for prompt in self.prompts]
        return {
            "clips": [*((source, prompt) for prompt in self.prompts), *own],
            "tracks": [(source,)],
            "seeds": [(source, self.group.configuration, self.group.against)],
        }


class ContrastReader:
    """Measure the differences of groups; the statistic of a trial is computed once for all that share it."""

    def __init__(self) -> None:
        self._replicates: dict[object, tuple[Replicates, tuple[str, ...]]] = {}
        self._load: Callable[[EmbeddedTrial, str, str], Embeddings] = lru_cache(N_LOADED)(
            lambda trial, encoder, prompt: trial.load_clips(encoder, prompt)
        )
        self._share = lru_cache(1)(_share_references)  # a group's rows come one after the other

    def measure(self, group: Group, metric: Metric, prompt: str | None, prompts: tuple[str, ...]) -> Cell:
        """Measure the difference of a group over some prompts.

        Args:
            group: the trials.
            metric: what is compared.
            prompt: label of the result.
            prompts: what it is computed over, without those that the metric cannot rate.

        Raises:
            UnscoredError: clips are absent, fewer than two are common to all trials, or no prompt can be rated.
            ScoreError: values that are not finite, different dimensions, encoders or weights.
        """
        sides = group.sides
        prompts, unrated = choose_prompts(metric.name, prompts)
        references = self._share(metric, tuple(sides))
        kept, n_lost = self._keep_clips(group, metric, prompts)
        found = {side: self._replicate(side, metric, prompts, kept[side], references) for side in sides}
        pairs = [(found[one.trial][0], found[one.against][0]) for one in group.trainings]
        difference = subtract(pairs) if group.is_paired else subtract_independent(pairs)
        sets = [self._load(side, side.name_clips(metric), name) for side in sides for name in prompts]
        provenance = merge_provenance([item.provenance for item in sets], references.provenance)
        notes = [f"{n_lost} clip(s) without a partner were left out"] if n_lost else []
        notes += unrated
        notes += [note for side in sides[:1] for note in found[side][1]]
        if difference.lacking:
            notes.append(f"no interval: {difference.lacking}")
        n_tracks = len(set(references.groups)) if metric.has_references else None
        return Cell(
            group=group,
            metric=metric,
            prompt=prompt,
            difference=difference,
            prompts=prompts,
            n_clips=(
                sum(map(len, kept[group.trainings[0].trial])),
                sum(map(len, kept[group.trainings[0].against])),
            ),
            n_tracks=len(references.groups) if n_tracks == 1 else n_tracks,
            notes=tuple(notes),
            provenance=provenance | {"dim": sets[0].values.shape[1]},
        )

    def _keep_clips(
        self, group: Group, metric: Metric, prompts: Sequence[str]
    ) -> tuple[dict[EmbeddedTrial, tuple[tuple[str, ...], ...]], int]:
        """Return by trial the clips that are compared, and how many are left out because they have no pair."""
        trials, others = (
            list(dict.fromkeys(side))
            for side in zip(*((t.trial, t.against) for t in group.trainings), strict=True)
        )
        kept: dict[EmbeddedTrial, tuple[tuple[str, ...], ...]] = {}
        n_lost = 0
        for sides in [group.sides] if group.is_paired else [trials, others]:
            names, n = self._find_common(sides, metric, prompts)
            kept |= dict.fromkeys(sides, names)
            n_lost += n
        return kept, n_lost

    def _find_common(
        self, sides: Sequence[EmbeddedTrial], metric: Metric, prompts: Iterable[str]
    ) -> tuple[tuple[tuple[str, ...], ...], int]:
        """Return by prompt the names of the clips that all trials have, and how many others there are."""
        kept: list[tuple[str, ...]] = []
        n_lost = 0
        for prompt in prompts:
            names = [self._load(side, side.name_clips(metric), prompt).clip_names for side in sides]
            if any(len(set(item)) < len(item) for item in names):
                raise ScoreError(
                    "clip names repeat, so clips cannot be paired; every clip of a prompt needs its own name"
                )
            shared = set(names[0]).intersection(*names[1:])
            if len(shared) < 2 and len(sides) == 1:
                raise UnscoredError(
                    f"a comparison needs at least 2 clips per prompt, and `{prompt}` has {len(shared)}"
                )
            if len(shared) < 2:
                counts = " and ".join(str(len(item)) for item in names)
                raise UnscoredError(
                    f"{len(shared)} clip(s) are in all sets ({counts} clips); a paired comparison needs at least 2 of "
                    "the same name; generate them from the same prompt and indices"
                )
            kept.append(tuple(name for name in names[0] if name in shared))
            n_lost += sum(len(item) - len(shared) for item in names)
        return tuple(kept), n_lost

    def _replicate(
        self,
        side: EmbeddedTrial,
        metric: Metric,
        prompts: tuple[str, ...],
        kept: tuple[tuple[str, ...], ...],
        references: Embeddings,
    ) -> tuple[Replicates, tuple[str, ...]]:
        key = (side, metric.name, prompts, kept)
        if key not in self._replicates:
            sets: list[Embeddings] = []
            for prompt, names in zip(prompts, kept, strict=True):
                loaded = self._load(side, side.name_clips(metric), prompt)
                place = {name: index for index, name in enumerate(loaded.clip_names)}
                sets.append(take_clips(loaded, [place[name] for name in names]))
            other = references
            if metric.distance == "text":
                other = take_clips(references, [side.prompts.index(prompt) for prompt in prompts])
            found, _, limits = replicate_score(metric, sets, other)
            self._replicates[key] = found, limits
        return self._replicates[key]


def _share_references(metric: Metric, sides: tuple[EmbeddedTrial, ...]) -> Embeddings:
    """Return the references that all trials were scored against.

    Raises:
        UnscoredError: they are absent, or not the same.
    """
    import numpy as np

    found = [side.load_references(metric) for side in sides]
    first = found[0]
    is_same = all(
        item.clip_names == first.clip_names and np.array_equal(item.values, first.values)
        for item in found[1:]
    )
    if not is_same:
        raise UnscoredError(
            "the trials were scored against different references, so there is no paired comparison"
        )
    return first


def contrast_groups(
    groups: Sequence[Group],
    metrics: Sequence[Metric],
    prompts: Mapping[str | None, tuple[str, ...]],
    primary: tuple[str, frozenset[str | None]],
    *,
    alpha: float = ALPHA,
    told: Callable[[Metric, Group, str | None, UnscoredError], None] = lambda *_: None,
    done: Callable[[], None] = lambda: None,
) -> list[Contrast]:
    """Compare all groups on all metrics and prompts; those of the primary family get verdicts.

    Args:
        groups: configurations that are compared with the same kind of partner.
        metrics: what is compared.
        prompts: by the prompt that labels a row (None: the genre's own prompts together), what it is computed over.
        primary: name of the primary metric, and the labels whose rows form the family with it.
        alpha: share of reports with any false verdict; less than 5 % where there are other looks at the same trials.
        told: told about a row that cannot be compared.
        done: called after every metric and group.

    Raises:
        ScoreError: values that are not finite, different dimensions, encoders or weights.
    """
    reader = ContrastReader()
    cells: list[Cell] = []
    for metric in metrics:
        rows: dict[object, list[Cell]] = {}
        for group in groups:
            for label, over in prompts.items():
                try:
                    cell = reader.measure(group, metric, label, over)
                except UnscoredError as reason:
                    told(metric, group, label, reason)
                    continue
                seeds = tuple(
                    one.train_seed for one in group.trainings
                )  # only equal ones have shifts in common, and an external system has none of its own
                rows.setdefault((group.source, label, seeds, group.is_paired), []).append(cell)
            done()
        for row in rows.values():
            differences = add_seed_errors([cell.difference for cell in row])
            cells += [replace(cell, difference=item) for cell, item in zip(row, differences, strict=True)]
    name, labels = primary
    members = {
        id(cell): (cell.difference, cell.places)
        for cell in cells
        if cell.metric.name == name and cell.prompt in labels and not cell.difference.lacking
    }
    family = join_family(list(members.values()), alpha) if members else None
    return [
        _record(cell, family if id(cell) in members else None).model_copy(
            update={"primary": cell.metric.name == name and cell.prompt in labels}
        )
        for cell in cells
    ]


def _count_clips(cell: Cell) -> dict[str, Any]:
    """Return the fields of a contrast that say whether clips are pairs, and how many there are."""
    if cell.group.is_paired:
        return {"n_pairs": cell.n_clips[0]}
    return {"paired": False, "n_clips": cell.n_clips}


def _record(cell: Cell, family: Family | None) -> Contrast:
    found, group = cell.difference, cell.group
    margin = group.margins.get(cell.metric.name)
    contrast = Contrast(
        metric=cell.metric.name,
        prompt=cell.prompt,
        configuration=group.configuration,
        against=group.against,
        delta=found.plugin if found.lacking else found.delta,
        delta_plugin=found.plugin,
        margin=margin,
        variance=ErrorParts(**{cause: part.variance for cause, part in found.errors.items()}),
        **_count_clips(cell),
        n_tracks=cell.n_tracks,
        seeds=tuple(
            SeedDifference(trial=one.trial.id, train_seed=one.train_seed, delta=delta)
            for one, delta in zip(group.trainings, found.by_seed, strict=True)
        ),
        note="; ".join(cell.notes) or None,
        provenance={
            **cell.provenance,
            "distance": cell.metric.distance,
            **(METHOD if group.is_paired else METHOD_UNPAIRED),
            "confidence": SINGLE if family is None else SIMULTANEOUS,
            **({} if family is None else {"family_size": family.n, "family_alpha": family.alpha}),
            **({} if family is None or family.level == ALPHA else {"look_alpha": family.level}),
        },
    )
    if found.lacking:
        return contrast
    alpha = ALPHA if family is None else family.alpha
    interval = found.interval(alpha)
    error: dict[str, float | str | None] = {
        "se": found.se,
        "df": found.freedom if found.se > 0.0 else None,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p_value": found.p_value if family is None else family.adjust(found.p_value),
        "detectable": found.detectable(alpha),
    }
    if family is not None:
        error["verdict"] = judge(
            interval.low, interval.high, margin, lower_is_better=cell.metric.lower_is_better
        )
    return contrast.model_copy(update=error)
