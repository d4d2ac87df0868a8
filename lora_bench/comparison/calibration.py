"""Calibration of a run's own design: how often its intervals and verdicts are right on its own features.

The tracks and clips that the run embedded stand for the whole genre and for all clips that the models make.  Tracks and
clips are drawn from them with replacement, as many as the run has, so that the true differences are known: those of
the run's own sets.  Each draw is compared as the run was.  Two questions are asked:

coverage        are the true differences within the intervals?
false verdicts  with every configuration's clips drawn from zero-shot's, does the report call any better or worse?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.contrasts import Group, Trained, contrast_groups
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.comparison.pairs import find_pairs
from lora_bench.comparison.run_contrasts import label_prompts, make_groups, primary_labels
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.prompt_tags import choose_prompts
from lora_bench.metrics.t_distribution import t_reach
from lora_bench.metrics.verdicts import Verdict
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.progress import Progress
from lora_bench.results.reading import read_if_valid, read_part
from lora_bench.results.records import Contrast
from lora_bench.results.run_files import CalibrationFile, ContrastsFile, ScoresFile

N_COPIES = 8
"""Copies of every clip and track in the set whose differences count as true: a clip's pair is never itself."""
FALSE = (Verdict.BETTER, Verdict.WORSE)

Row = tuple[str, str | None]
"""Configuration and prompt of a contrast."""


@dataclass(frozen=True, eq=False)
class DrawnTrial(EmbeddedTrial):
    """A trial with drawn clips and references in place of its own."""

    clips: Mapping[str, Embeddings]
    references: Embeddings

    def load_clips(self, encoder: str, prompt: str) -> Embeddings:  # noqa: ARG002
        """Return the drawn clips of one prompt."""
        return self.clips[prompt]

    def load_references(self, metric: Metric) -> Embeddings:  # noqa: ARG002
        """Return the drawn references."""
        return self.references


@dataclass(frozen=True)
class Sets:
    """What was embedded of one group: one adapter of a configuration, and zero-shot.

    Attributes:
        tuned: clips by prompt; those of `base` have the same names in the same order.
    """

    group: Group
    tuned: Mapping[str, Embeddings]
    base: Mapping[str, Embeddings]
    references: Embeddings


def calibrate_run(
    plan: ExperimentPlan, run_folder: Path, n_draws: int, seed: int, progress: Progress
) -> CalibrationFile:
    """Measure how often the run's intervals and verdicts on its primary metric are right.

    Args:
        plan: of the run.
        run_folder: holds the embeddings.
        n_draws: simulated reports.
        seed: of the draws.
        progress: is advanced by one per draw.

    Raises:
        UnscoredError: nothing was compared with zero-shot, or the embeddings are not there.
    """
    metric = parse_metric(plan.spec.primary_metric, plan.spec.distances)
    run = RunFolder(run_folder)
    pairs = (pair for pair in find_pairs(plan)[0] if pair[0].external is None)  # draws leave out whole pairs
    done = [pair for pair in pairs if all(_is_scored(run.trial(trial.id), metric) for trial in pair)]
    if not done:
        raise UnscoredError(
            f"{run_folder}: no fine-tuned trial is scored on {metric.name}, so there is nothing to calibrate"
        )
    prompts, _ = choose_prompts(metric.name, done[0][0].own_prompts)
    populations = [_load_sets(group, metric, prompts) for group in make_groups(done, plan, run_folder)]
    truth = {
        _name(item): item.delta_plugin or 0.0
        for item in _compare([_copy_sets(sets) for sets in populations], metric, prompts)
    }
    progress.start("calibrate", n_draws)
    tally = Tally(truth)
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        tally.add_intervals(_compare(_draw_sets(populations, rng, metric), metric, prompts))
        nulls = _draw_sets(populations, rng, metric, is_null=True)
        tally.add_verdicts(_compare(nulls, metric, prompts))
        progress.advance()
    contrasts = read_part(run.contrasts, ContrastsFile, [])
    return CalibrationFile(
        key=None if contrasts is None else contrasts.key,
        metric=metric.name,
        n_draws=n_draws,
        seed=seed,
        n_clips=min(len(clips.clip_names) for sets in populations for clips in sets.tuned.values()),
        n_tracks=len(set(populations[0].references.groups)) if metric.has_references else None,
        n_differences=len(truth),
        covered=tally.covered / tally.given if tally.given else None,
        jointly_covered=tally.jointly_covered / tally.complete if tally.complete else None,
        false_verdicts=tally.false_verdicts / n_draws,
        refused=1.0 - tally.given / (n_draws * len(truth)),
    )


def _is_scored(folder: TrialFolder, metric: Metric) -> bool:
    """Return whether a trial is scored, and on a metric; one whose clips follow no melodies has no agreement."""
    scores = read_if_valid(folder.scores, ScoresFile)
    gaps = () if scores is None else scores.unscored
    return folder.is_scored and not any(gap.metric == metric.name and gap.prompt is None for gap in gaps)


@dataclass
class Tally:
    """Counts over the draws.

    Attributes:
        given: intervals; `covered` of them hold the truth.
        complete: draws with an interval of every difference; in `jointly_covered` of them all hold it.
    """

    truth: Mapping[Row, float]
    given: int = 0
    covered: int = 0
    complete: int = 0
    jointly_covered: int = 0
    false_verdicts: int = 0

    def add_intervals(self, found: Sequence[Contrast]) -> None:
        """Count the single intervals that hold the truth, and whether all simultaneous ones do."""
        together: list[bool] = []
        for item in found:
            if item.se is None or item.ci_low is None or item.ci_high is None:
                continue
            off = abs(item.delta - self.truth[_name(item)])
            self.given += 1
            self.covered += off <= (t_reach(item.df) * item.se if item.df else 0.0)
            together.append(off <= item.ci_high - item.delta)
        if len(together) == len(self.truth):
            self.complete += 1
            self.jointly_covered += all(together)

    def add_verdicts(self, found: Sequence[Contrast]) -> None:
        """Count whether any difference is called one although there is none."""
        self.false_verdicts += any(item.verdict in FALSE for item in found)


def _name(item: Contrast) -> Row:
    return item.configuration, item.prompt


def _load_sets(group: Group, metric: Metric, prompts: Sequence[str]) -> Sets:
    """Load one adapter of a group and its zero-shot trial, the clips that both have."""
    one = group.trainings[0]
    tuned: dict[str, Embeddings] = {}
    base: dict[str, Embeddings] = {}
    for prompt in prompts:
        ours, theirs = (side.load_clips(metric.encoder, prompt) for side in (one.trial, one.against))
        shared = [name for name in ours.clip_names if name in set(theirs.clip_names)]
        tuned[prompt] = take_clips(ours, [ours.clip_names.index(name) for name in shared])
        base[prompt] = take_clips(theirs, [theirs.clip_names.index(name) for name in shared])
    return Sets(group, tuned, base, one.trial.load_references(metric))


def _copy_sets(sets: Sets) -> Sets:
    def copy(clips: Mapping[str, Embeddings]) -> dict[str, Embeddings]:
        return {
            prompt: draw_clips(item, np.tile(np.arange(len(item.clip_names)), N_COPIES))
            for prompt, item in clips.items()
        }

    n_tracks = len(_list_tracks(sets.references))
    references = draw_tracks(sets.references, np.tile(np.arange(n_tracks), N_COPIES))
    return replace(sets, tuned=copy(sets.tuned), base=copy(sets.base), references=references)


def _draw_sets(
    populations: Sequence[Sets], rng: np.random.Generator, metric: Metric, *, is_null: bool = False
) -> Iterator[Sets]:
    """Yield as many clips and tracks as there are; groups that share zero-shot clips and tracks share the draws.

    With `is_null` a configuration's clips are zero-shot's, drawn for it alone.
    """
    tracks: dict[str, np.ndarray] = {}
    clips: dict[tuple[str, str, int], np.ndarray] = {}
    for sets in populations:
        source = sets.group.source
        if source not in tracks:
            n_tracks = len(_list_tracks(sets.references))
            tracks[source] = rng.integers(n_tracks, size=n_tracks)
        tuned: dict[str, Embeddings] = {}
        base: dict[str, Embeddings] = {}
        for prompt, population in sets.base.items():
            n = len(population.clip_names)
            chosen = clips.setdefault((source, prompt, n), rng.integers(n, size=n))
            base[prompt] = draw_clips(population, chosen)
            tuned[prompt] = (
                draw_clips(population, rng.integers(n, size=n))
                if is_null
                else draw_clips(sets.tuned[prompt], chosen)
            )
        references = sets.references
        if metric.has_references:
            references = draw_tracks(references, tracks[source])
        yield replace(sets, tuned=tuned, base=base, references=references)


def draw_clips(population: Embeddings, chosen: np.ndarray) -> Embeddings:
    """Return the chosen clips; each is a clip of its own, also where one is chosen twice."""
    names = tuple(f"{place:05d}" for place in range(len(chosen)))
    return replace(take_clips(population, chosen.tolist()), clip_names=names, groups=names)


def draw_tracks(population: Embeddings, chosen: np.ndarray) -> Embeddings:
    """Return the chosen tracks with all their clips; of a single track, the chosen clips."""
    tracks = _list_tracks(population)
    members = [tracks[place] for place in chosen]
    drawn = draw_clips(population, np.concatenate(members))
    if len(set(population.groups)) == 1:
        return replace(drawn, groups=(population.groups[0],) * len(drawn.clip_names))
    groups = np.repeat([f"{place:05d}" for place in range(len(chosen))], [len(clips) for clips in members])
    return replace(drawn, groups=tuple(groups.tolist()))


def _list_tracks(references: Embeddings) -> list[list[int]]:
    """Return the clips of each track; of a single track, each clip."""
    found: dict[str, list[int]] = {}
    for clip, track in enumerate(references.groups):
        found.setdefault(track, []).append(clip)
    return list(found.values()) if len(found) > 1 else [[clip] for clip in range(len(references.groups))]


def _compare(
    drawn: Sequence[Sets] | Iterator[Sets], metric: Metric, prompts: Sequence[str]
) -> list[Contrast]:
    """Compare drawn sets as the run's are compared, one adapter per configuration."""
    groups: list[Group] = []
    for sets in drawn:
        one = sets.group.trainings[0]
        sides = (one.trial, sets.tuned), (one.against, sets.base)
        trial, against = (
            DrawnTrial(side.folder, side.prompts, clips, sets.references) for side, clips in sides
        )
        groups.append(replace(sets.group, trainings=(Trained(trial, against, one.train_seed),)))
    labels = primary_labels(prompts)
    rows = {label: over for label, over in label_prompts(prompts, prompts).items() if label in labels}
    return contrast_groups(groups, [metric], rows, (metric.name, labels))
