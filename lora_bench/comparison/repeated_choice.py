"""The choice of the best configuration, repeated on random halves of the held-out tracks.

Where no tracks were set aside to select by, the best configuration is chosen by the tracks that score it, and its score
is too good.  Here each repeat chooses on one half of these tracks and scores on the other.  That needs embeddings and
no training, so it tells how far a choice from a few tracks can be trusted.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.results.reading import read_part, write_record
from lora_bench.results.run_files import ChoiceFile
from lora_bench.results.run_records import ChoiceShare, RepeatedChoice
from lora_bench.results.trial_files import read_state
from lora_bench.store import hash_file, hash_json

if TYPE_CHECKING:
    from lora_bench.artifacts import Embeddings
    from lora_bench.comparison.embedded_trial import EmbeddedTrial
    from lora_bench.metrics.clusters import Clusters

VERSION = 1  # raise it when the same embeddings give another result
N_REPEATS = 20
MIN_TRACKS = 4  # two on either side
SEED = 0


def write_repeated_choice(plan: ExperimentPlan, run_folder: Path) -> None:
    """Write `choice.json` for the first metric that compares with tracks; nothing where there is no choice.

    What was written under the same scores is kept.
    """
    run = RunFolder(run_folder)
    metric = next((m for m in plan.spec.parse_metrics() if m.has_references), None)
    groups = _list_candidates(plan, run)
    if metric is None or len(groups) < 2:
        run.choice.unlink(missing_ok=True)
        return
    trials = [trial for group in groups.values() for trial in group]
    key = hash_json([VERSION, metric.name, *(hash_file(run.trial(trial.id).scores) for trial in trials)])
    written = read_part(run.choice, ChoiceFile, [])
    if written is not None and written.key == key:
        return
    bases = [trial for trial in plan.trials if trial.id == trials[0].zero_shot]
    try:
        reference = _open(run, trials[0]).load_references(metric)
        sets = {name: [_load(run, trial, metric) for trial in group] for name, group in groups.items()}
        base = [_load(run, trial, metric) for trial in bases if _is_done(run.trial(trial.id))]
        choice = repeat_choice(metric, sets, base, reference)
    except UnscoredError:  # the scores say why
        run.choice.unlink(missing_ok=True)
        return
    write_record(run.choice, ChoiceFile(key=key, choice=choice))


def _list_candidates(plan: ExperimentPlan, run: RunFolder) -> dict[str, list[TrialPlan]]:
    """Return finished configurations, if all have the same references and none was selected by other tracks."""
    tuned = [trial for trial in plan.trials if trial.kind == "fine-tuned"]
    if len({trial.zero_shot for trial in tuned}) != 1 or any(t.dataset.split.selection_frac for t in tuned):
        return {}
    groups: dict[str, list[TrialPlan]] = {}
    for trial in tuned:
        groups.setdefault(trial.configuration, []).append(trial)
    return {
        name: group for name, group in groups.items() if all(_is_done(run.trial(trial.id)) for trial in group)
    }


def _is_done(folder: TrialFolder) -> bool:
    return folder.is_scored and read_state(folder.path).get("state") == "done"


def _open(run: RunFolder, trial: TrialPlan) -> EmbeddedTrial:
    from lora_bench.comparison.embedded_trial import EmbeddedTrial

    return EmbeddedTrial(run.trial(trial.id), trial.prompts)


def _load(run: RunFolder, trial: TrialPlan, metric: Metric) -> Clusters:
    """Return the clips of the genre's own prompts; a prompt is a stratum."""
    from lora_bench.metrics.clusters import cluster_embeddings, stack_strata

    embedded = _open(run, trial)
    clips = [embedded.load_clips(metric.encoder, prompt) for prompt in trial.own_prompts]
    return stack_strata([cluster_embeddings(part, "generated") for part in clips])


def repeat_choice(
    metric: Metric,
    candidates: Mapping[str, Sequence[Clusters]],
    base: Sequence[Clusters],
    reference: Embeddings,
    *,
    n_repeats: int = N_REPEATS,
    seed: int = SEED,
) -> RepeatedChoice | None:
    """Choose on one half of the tracks and score on the other, many times.

    Args:
        metric: a distance.
        candidates: by configuration, the clips of each training seed; a configuration counts by its mean over seeds.
        base: the clips of the base model; empty if there are none.
        reference: excerpts of the held-out tracks.
        n_repeats: number of random halves.
        seed: of the halves.

    Returns:
        None with fewer than `MIN_TRACKS` tracks.  Values are plug-in distances to half of the tracks, so they are not
        those of the tables.
    """
    import numpy as np

    from lora_bench.metrics.clusters import cluster_embeddings, take_clips

    tracks = sorted(set(reference.groups))
    if len(tracks) < MIN_TRACKS:
        return None
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    seen: list[float] = []
    sealed: list[float] = []
    zero_shot: list[float] = []
    for _ in range(n_repeats):
        first = {tracks[index] for index in rng.permutation(len(tracks))[: len(tracks) // 2]}
        rows = [
            [i for i, track in enumerate(reference.groups) if (track in first) == is_first]
            for is_first in (True, False)
        ]
        one, other = (cluster_embeddings(take_clips(reference, half), "reference") for half in rows)
        values = {name: _average(metric, sets, one) for name, sets in candidates.items()}
        best = min(values, key=lambda name: values[name])
        chosen.append(best)
        seen.append(values[best])
        sealed.append(_average(metric, candidates[best], other))
        if base:
            zero_shot.append(_average(metric, base, other))
    counts = Counter(chosen)
    return RepeatedChoice(
        metric=metric.name,
        n_repeats=n_repeats,
        n_tracks=len(tracks),
        seed=seed,
        seen=statistics.fmean(seen),
        sealed=statistics.fmean(sealed),
        sealed_sd=statistics.stdev(sealed),
        zero_shot=statistics.fmean(zero_shot) if zero_shot else None,
        configurations=tuple(
            _share(name, n, [value for winner, value in zip(chosen, sealed, strict=True) if winner == name])
            for name, n in counts.most_common()
        ),
    )


def _share(name: str, n_chosen: int, sealed: Sequence[float]) -> ChoiceShare:
    spread = statistics.stdev(sealed) if n_chosen > 1 else None
    return ChoiceShare(
        configuration=name, n_chosen=n_chosen, sealed=statistics.fmean(sealed), sealed_sd=spread
    )


def _average(metric: Metric, sets: Sequence[Clusters], reference: Clusters) -> float:
    """Return the mean distance of several sets of clips."""
    from lora_bench.metrics.distance_plugin import PluginDistance
    from lora_bench.metrics.estimate import estimate_distance
    from lora_bench.metrics.frechet import frechet_distance
    from lora_bench.stages.score import find_distance

    distance = find_distance(metric)
    if isinstance(distance, PluginDistance):
        return statistics.fmean(distance.measure(one.vectors, reference.vectors) for one in sets)
    if distance == "frechet":
        return statistics.fmean(frechet_distance(one.vectors, reference.vectors) for one in sets)
    return statistics.fmean(estimate_distance("mmd", one, reference).value for one in sets)
