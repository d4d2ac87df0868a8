"""Paired tests of two generators on the same prompts and noise: differences, intervals and verdicts.

A verdict other than *no detectable difference* needs both: a p-value of the label-swap test of at most
0.05 after Holm's correction for the number of prompts, and a 95 % interval of the bias-corrected
difference that lies on one side of zero.  The second keeps a generator from winning by losing diversity,
which lowers the bias of its distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, TypeVar, Unpack

import numpy as np
from pydantic import JsonValue

from lora_bench.artifacts import Embeddings
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics.clusters import Clusters, cluster_embeddings, stack_strata, take_clips
from lora_bench.metrics.estimate import describe_limits
from lora_bench.metrics.frechet import check_same_dim
from lora_bench.metrics.jackknife import Jackknife, interval_p_value, make_interval
from lora_bench.metrics.names import Metric
from lora_bench.metrics.paired import (
    PairedDifference,
    PairedSets,
    estimate_difference,
    pair_frechet,
    pair_kernel,
    pair_texts,
)
from lora_bench.metrics.provenance import merge_provenance
from lora_bench.metrics.seeds_and_holm import holm, summarize_seeds
from lora_bench.metrics.verdicts import ALPHA, N_PERMUTATIONS, Verdict
from lora_bench.results.records import Comparison, SeedComparison

INTERVAL = "95 % paired delete-one-cluster jackknife, both sides"


class SwapOptions(TypedDict, total=False):
    """Options of a paired test; see `compare_pooled`."""

    prompt: str | None
    names: tuple[str, str]
    n_permutations: int
    seed: int


def compare_paired(
    metric: Metric, base: Embeddings, tuned: Embeddings, reference: Embeddings, **options: Unpack[SwapOptions]
) -> Comparison:
    """Compare two generators on one prompt: `compare_pooled` of a single stratum.

    Args:
        metric: what is compared.
        base: clips of the generator that is compared with.
        tuned: clips of the generator that is judged; paired with `base` by clip name.
        reference: tracks, or the prompt's text for `clap_score`.
        options: as in `compare_pooled`.

    Raises:
        UnscoredError: fewer than two clips are in both sets.
        ScoreError: values that are not finite, different dimensions, encoders or weights.
    """
    return compare_pooled(metric, [base], [tuned], reference, **options)


def compare_pooled(
    metric: Metric,
    base: Sequence[Embeddings],
    tuned: Sequence[Embeddings],
    reference: Embeddings,
    *,
    prompt: str | None = None,
    names: tuple[str, str] = ("fine-tuned", "zero-shot"),
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare two generators over several prompts together, each prompt a stratum.

    Args:
        metric: what is compared.
        base: one set per prompt.
        tuned: one set per prompt, in the same order.
        reference: common to all.
        prompt: label; None stands for all prompts.
        names: trial, and what it is compared with.
        n_permutations: label swaps.
        seed: of the swaps.

    Returns:
        The comparison; its `p_holm` is the p-value until `adjust_holm` sees the family.

    Raises:
        UnscoredError, ScoreError: as `compare_paired`.
    """
    if not base or len(base) != len(tuned):
        raise ScoreError(f"{len(base)} and {len(tuned)} sets to compare; expected one of each per prompt")
    provenance = merge_provenance([item.provenance for item in (*base, *tuned)], reference.provenance)
    pairs = [_pair_clips(one, other) for one, other in zip(base, tuned, strict=True)]
    ours = stack_strata([cluster_embeddings(one, "base") for one, _ in pairs])
    theirs = stack_strata([cluster_embeddings(other, "tuned") for _, other in pairs])
    n_lost = sum(len(item.clip_names) for item in (*base, *tuned)) - 2 * ours.n_clips
    notes = [f"{n_lost} clip(s) without a partner were left out"] if n_lost else []
    sets, n_reference, limits = _prepare(metric, ours, theirs, reference)
    difference = estimate_difference(sets, n_permutations, seed)
    notes += limits
    if difference.se is None:
        notes.append("no interval: too few clips to leave one out")
    provenance["dim"] = ours.vectors.shape[1]
    return _make_comparison(metric, prompt, names, difference, (ours.n_clips, n_reference), notes, provenance)


def _make_comparison(
    metric: Metric,
    prompt: str | None,
    names: tuple[str, str],
    difference: PairedDifference,
    counts: tuple[int, int],
    notes: Sequence[str],
    provenance: Mapping[str, str | int | float],
) -> Comparison:
    return Comparison(
        metric=metric.name,
        prompt=prompt,
        trial=names[0],
        against=names[1],
        delta=difference.delta,
        delta_plugin=difference.plugin,
        se=difference.se,
        ci_low=difference.ci_low,
        ci_high=difference.ci_high,
        p_value=difference.p_value,
        p_holm=difference.p_value,
        verdict=judge(difference.p_value, difference.ci_low, difference.ci_high, metric.distance),
        n_pairs=counts[0],
        n_reference=counts[1],
        note="; ".join(notes) or None,
        provenance={
            **provenance,
            "distance": metric.distance,
            "estimator": "difference of the bias-corrected statistics of paired clips, float64",
            "interval": INTERVAL if difference.se is not None else "none: too few clips to leave one out",
            "test": f"paired label swaps, {difference.n_swaps} assignments, two-sided",
        },
    )


def _prepare(
    metric: Metric, base: Clusters, tuned: Clusters, reference: Embeddings
) -> tuple[PairedSets, int, tuple[str, ...]]:
    """Return the statistic in the form of weights, the number of references, and caveats."""
    if metric.distance == "text":
        texts = np.asarray(reference.values, dtype=np.float64)
        return pair_texts(base, tuned, texts), len(texts), ()
    clusters = cluster_embeddings(reference, "reference")
    for side in (base, tuned):
        check_same_dim(side.vectors, clusters.vectors)
    pair = pair_frechet if metric.distance == "frechet" else pair_kernel
    return pair(base, tuned, clusters), clusters.n_clips, describe_limits(metric.distance, base, clusters)


def _pair_clips(base: Embeddings, tuned: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Return the clips that are in both sets, in the order of the first.

    Raises:
        UnscoredError: fewer than two.
        ScoreError: a name occurs twice.
    """
    for embeddings in (base, tuned):
        if len(set(embeddings.clip_names)) != len(embeddings.clip_names):
            raise ScoreError(
                "clip names repeat, so clips cannot be paired; every clip of a prompt needs its own name"
            )
    theirs = {name: place for place, name in enumerate(tuned.clip_names)}
    common = [place for place, name in enumerate(base.clip_names) if name in theirs]
    if len(common) < 2:
        raise UnscoredError(
            f"{len(common)} clip(s) are in both sets ({len(base.clip_names)} and {len(theirs)} clips), a "
            "paired comparison needs at least 2 of the same name; generate both from the same prompt and indices"
        )
    partners = [theirs[base.clip_names[place]] for place in common]
    return take_clips(base, common), take_clips(tuned, partners)


def judge(p_value: float, low: float | None, high: float | None, distance: JsonValue) -> Verdict:
    """Return the verdict that follows from a p-value and an interval.

    Args:
        p_value: after Holm's correction.
        low: lower end of the interval; None without one.
        high: upper end.
        distance: the metric's; of `text` a larger value is better, of others a smaller one.
    """
    if low is None or high is None or p_value > ALPHA or low <= 0.0 <= high:
        return Verdict.NO_DIFFERENCE
    return Verdict.BETTER if (high < 0.0) == (distance != "text") else Verdict.WORSE


Judged = TypeVar("Judged", Comparison, SeedComparison)


def _adjust_families(items: Sequence[Judged], name: Callable[[Judged], tuple[str, str]]) -> list[Judged]:
    """Return Holm's p-values within the families that `name` distinguishes, and the verdicts that follow."""
    adjusted = list(items)
    families: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for place, item in enumerate(items):
        if item.prompt is not None and item.p_value is not None:
            families.setdefault((*name(item), item.metric), []).append((place, item.p_value))
    for family in families.values():
        for (place, _), p_holm in zip(family, holm([p_value for _, p_value in family]), strict=True):
            item = items[place]
            verdict = judge(p_holm, item.ci_low, item.ci_high, item.provenance.get("distance"))
            adjusted[place] = item.model_copy(update={"p_holm": p_holm, "verdict": verdict})
    return adjusted


def adjust_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Apply Holm's correction within every (trial, metric) across its prompts, and judge again.

    Comparisons over all prompts together (`prompt` None) are no part of a family and keep their p-value.
    """
    return _adjust_families(comparisons, lambda item: (item.trial, item.against))


def aggregate_seeds(
    comparisons: Sequence[Comparison], configurations: Mapping[str, str]
) -> list[SeedComparison]:
    """Aggregate comparisons of the same configurations over training seeds; one seed alone gives none.

    Args:
        comparisons: of single trials.
        configurations: each trial's configuration, the name that seeds have in common.
    """
    groups: dict[tuple[str, str, str, str | None], list[Comparison]] = {}
    for item in comparisons:
        names = configurations[item.trial], configurations[item.against]
        groups.setdefault((*names, item.metric, item.prompt), []).append(item)
    found = [
        made
        for (configuration, against, _, _), items in groups.items()
        if len({item.trial for item in items}) > 1
        and (made := _aggregate(items, configuration, against)) is not None
    ]
    return _adjust_families(found, lambda item: (item.configuration, item.against))


def _aggregate(items: Sequence[Comparison], configuration: str, against: str) -> SeedComparison | None:
    """Return the mean over seeds; None if a single comparison has no standard error."""
    errors = [item.se for item in items if item.se is not None]
    if len(errors) < len(items):
        return None
    summary = summarize_seeds([item.delta for item in items])
    se_seeds = summary.se or 0.0
    within = float(np.mean(np.square(errors)))
    sizes = [n for item in items for n in (item.n_pairs, item.n_reference) if n is not None]
    freedom = max(min(sizes) - 1, 1)
    sides = [Jackknife(0.0, se_seeds**2, len(items) - 1), Jackknife(0.0, within, freedom)]
    interval = make_interval(summary.mean, sides)
    p_value = interval_p_value(summary.mean, sides)
    provenance = items[0].provenance
    return SeedComparison(
        metric=items[0].metric,
        prompt=items[0].prompt,
        configuration=configuration,
        against=against,
        delta=summary.mean,
        se=interval.se,
        se_seeds=se_seeds,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=p_value,
        p_holm=p_value,
        verdict=judge(p_value, interval.low, interval.high, provenance.get("distance")),
        n_seeds=len(items),
        provenance={
            **{key: value for key, value in provenance.items() if key not in {"interval", "test"}},
            "interval": "95 %, spread over training seeds and mean error within a comparison, Welch",
            "test": "Student's t of the mean difference over training seeds, two-sided",
        },
    )
