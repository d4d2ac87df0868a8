"""Power of the planned verdicts, from the variances of an earlier run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from lora_bench.errors import UnscoredError, UsageError
from lora_bench.forecast.detectable import POWER, Design, Need, Spread, find_need
from lora_bench.metrics.contrast import Cause
from lora_bench.metrics.prompt_tags import choose_prompts
from lora_bench.metrics.verdicts import ALPHA
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.records import Contrast
from lora_bench.results.run_records import RunResults
from lora_bench.store import JsonObject


@dataclass(frozen=True)
class PowerForecast:
    """What a spec can detect on its primary metric."""

    metric: str
    origin: str
    """Name of the earlier run."""
    design: Design
    n_prompts: int
    alpha: float
    """Level of the single intervals at which all of the family hold together."""
    detectable: float
    shares: Mapping[Cause, float]
    """Parts of the variance; they add up to 1."""
    zero_shot: float | None
    """Score of the zero-shot model in the earlier run."""
    need: Need | None
    notes: tuple[str, ...]

    def list_fields(self) -> JsonObject:
        """Return the forecast for JSON; a difference that no design detects is null."""
        fields = asdict(self)
        if not math.isfinite(self.detectable):
            fields["detectable"] = None
        return fields

    def describe(self) -> list[str]:
        """Return the forecast in lines of text."""
        share = (
            f" ({self.detectable / abs(self.zero_shot):.0%} of zero-shot's score)" if self.zero_shot else ""
        )
        head = (
            f"by the variances of {self.origin}, a difference of {self.detectable:.3g}{share} is found with a "
            f"probability of {POWER:.0%}"
            if math.isfinite(self.detectable)
            else f"no verdict can be reached with {_describe(self.design)}"
        )
        parts = ", ".join(f"{_name(cause, self.design)} {part:.0%}" for cause, part in self.shares.items())
        lines = [f"power on `{self.metric}`: {head}", f"  parts of the variance: {parts}"]
        lines += [] if self.need is None else _describe_need(self, self.need)
        return [*lines, *(f"  note: {note}" for note in self.notes)]


def forecast_power(plan: ExperimentPlan, earlier: RunResults, detect: str | None = None) -> PowerForecast:
    """Return what a spec can detect.

    Args:
        plan: of the spec.
        earlier: results that the variances are taken from.
        detect: difference to look for, a number or a share of zero-shot's score such as `20%`.

    Raises:
        UsageError: the earlier run has no differences on the spec's primary metric with an interval, or `detect` is
            not a difference.
    """
    metric = plan.spec.primary_metric
    found = [
        item
        for item in earlier.contrasts
        if item.metric == metric
        and item.prompt is None
        and item.se
        and item.kind == "zero-shot"
        and item.paired
    ]
    if not found:
        raise UsageError(
            f"--power: {earlier.name} has no difference from zero-shot on `{metric}` with an interval; expected a "
            "finished run of this version that scores the spec's primary metric"
        )
    trained = [trial for trial in plan.trials if trial.kind == "fine-tuned"]
    if not trained:
        raise UsageError("--power: the spec trains nothing; add trials")
    design = Design(
        clips=min(trial.generation.n_clips for trial in trained),
        tracks=round(median([item.n_tracks or 0 for item in found])),
        seeds=len(plan.spec.repeats.train_seeds),
    )
    try:
        n_prompts = len(choose_prompts(metric, trained[0].own_prompts)[0])
    except UnscoredError as error:
        raise UsageError(f"--power: {error}") from error
    spread = _measure_spread(found, n_prompts, _count_own_prompts(earlier))
    n_configurations = len({trial.configuration for trial in trained})
    alpha = _scale_alpha(found, n_configurations * (n_prompts + 1 if n_prompts > 1 else 1))
    parts = spread.parts(design)
    base = _find_zero_shot(earlier, metric)
    return PowerForecast(
        metric=metric,
        origin=earlier.name,
        design=design,
        n_prompts=n_prompts,
        alpha=alpha,
        detectable=spread.detectable(design, alpha),
        shares={cause: part / sum(parts.values()) for cause, part in parts.items()},
        zero_shot=base,
        need=None if detect is None else find_need(spread, design, alpha, _read_difference(detect, base)),
        notes=tuple(_list_notes(design, found)),
    )


def _measure_spread(found: Sequence[Contrast], n_prompts: int, n_earlier_prompts: int) -> Spread:
    """Return the mean variances of units over the configurations of the earlier run."""
    of_unit: dict[Cause, float] = {
        "clips": fmean([(item.variance.clips or 0.0) * (item.n_pairs or 0) for item in found])
    }
    if any(item.n_tracks for item in found):  # a rating has no references
        of_unit["tracks"] = fmean([(item.variance.tracks or 0.0) * (item.n_tracks or 0) for item in found])
    seeds = [item.variance.seeds * item.n_seeds for item in found if item.variance.seeds is not None]
    if seeds:
        of_unit["seeds"] = fmean(seeds)
    pooling = [ratio for item in found if (ratio := _find_pooling(item, n_earlier_prompts))]
    return Spread(of_unit, n_prompts, max(1.0, median(pooling)) if pooling else 1.0)


def _find_pooling(item: Contrast, n_prompts: int) -> float | None:
    """Return the degrees of freedom of the seeds' part per seed less one: what Welch's formula leaves for them."""
    parts = item.variance
    if not (parts.seeds and item.se and item.df and item.n_pairs and item.n_tracks):
        return None
    others = (parts.clips or 0.0) ** 2 / (item.n_pairs - n_prompts)
    others += (parts.tracks or 0.0) ** 2 / (item.n_tracks - 1)
    left = item.se**4 / item.df - others
    return parts.seeds**2 / left / (item.n_seeds - 1) if left > 0.0 else None


def _scale_alpha(found: Sequence[Contrast], size: int) -> float:
    """Return the level of single intervals in a family of another size than the earlier run's.

    The earlier level tells how correlated the members are; without a family the level is Bonferroni's.
    """
    power = 1.0
    levels = [(item.provenance.get("family_size"), item.provenance.get("family_alpha")) for item in found]
    for n, alpha in levels:
        if isinstance(n, int) and isinstance(alpha, float) and n > 1:
            power = math.log(ALPHA / alpha) / math.log(n)
            break
    return ALPHA / size**power


def _count_own_prompts(earlier: RunResults) -> int:
    return max(1, len(set(earlier.planned.prompts) - set(earlier.planned.off_genre)))


def _find_zero_shot(earlier: RunResults, metric: str) -> float | None:
    scores = [
        score.best_value
        for trial in earlier.trials
        if trial.is_zero_shot
        for score in trial.scores
        if score.metric == metric and score.prompt is None
    ]
    return scores[0] if scores else None


def _read_difference(text: str, zero_shot: float | None) -> float:
    is_share = text.endswith("%")
    try:
        value = abs(float(text.removesuffix("%")))
    except ValueError:
        value = 0.0
    if not (0.0 < value < math.inf) or (is_share and not zero_shot):
        known = " (the earlier run has no zero-shot score for a share)" if is_share and not zero_shot else ""
        raise UsageError(
            f"--detect is `{text}`; expected a difference above 0, such as 0.5, or a share of zero-shot's score, such "
            f"as 20%{known}"
        )
    return value / 100.0 * abs(zero_shot) if is_share and zero_shot else value


def _list_notes(design: Design, found: Sequence[Contrast]) -> Iterator[str]:
    n_seeds = median([item.n_seeds for item in found])
    if design.tracks:
        yield f"the references are those of the earlier run: {design.tracks} tracks"
    if design.seeds > 1 and all(item.variance.seeds is None for item in found):
        yield (
            "the earlier run trained one seed, so the spread over training seeds is unknown; it makes what can be "
            "found larger"
        )
    if design.seeds == 1:
        yield "one training seed: the figures are about this adapter"
    if design.seeds < n_seeds:
        yield (
            f"the clips' part is that of a mean over {n_seeds:g} training seeds, and larger for {design.seeds}"
        )


def _describe_need(found: PowerForecast, need: Need) -> Iterator[str]:
    yield f"to detect {need.difference:.3g} with the same probability:"
    units = {"clips": "clips per prompt", "tracks": "reference tracks", "seeds": "training seeds"}
    planned = asdict(found.design)
    for cause, number in need.alone.items():
        if number is not None:
            yield f"  {cause} alone: {number:,} {units[cause]} (now {planned[cause]})"
            continue
        others = {name: part for name, part in found.shares.items() if name != cause}
        limit = need.limits[cause]
        largest = max(others, key=lambda name: others[name]) if others else None
        if largest and limit >= found.detectable:  # few degrees of freedom then decide the interval
            yield f"  {cause} alone cannot: more of them lower nothing next to so few {units[largest]}"
            continue
        why = f"the part of the {largest} leaves" if largest else "there is"
        yield f"  {cause} alone cannot: however many, {why} {limit:.3g} as the smallest difference"
    if need.cheapest is None:
        yield f"  no combination of clips{', tracks' * bool(found.design.tracks)} and seeds is enough"
        return
    ratio = need.cheapest.clips * need.cheapest.seeds / (found.design.clips * found.design.seeds)
    yield f"  cheapest combination: {_describe(need.cheapest)}; {ratio:.2g} times the generated clips"


def _describe(design: Design) -> str:
    plural = "s" if design.seeds != 1 else ""
    tracks = f" {design.tracks:,} tracks," if design.tracks else ""
    return f"{design.clips:,} clips per prompt,{tracks} {design.seeds} training seed{plural}"


def _name(cause: Cause, design: Design) -> str:
    return f"{asdict(design)[cause]} {cause if cause != 'seeds' else 'training seeds'}"
