"""Every finished fine-tuned trial against its zero-shot partner, from what both left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_bench.artifacts import Embeddings
from lora_bench.comparisons import Comparison, adjust_holm, compare_paired, compare_pooled
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.names import prompt_slugs
from lora_bench.plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.stages.embed import load_embeddings
from lora_bench.store import hash_file, hash_json, read_json, write_json

VERSION = 1  # raise it when the same embeddings give another comparison


def find_partner(trial: TrialPlan, trials: Sequence[TrialPlan]) -> TrialPlan | None:
    """The zero-shot trial of the same model, data and sampling; None if it was not planned."""
    return next(
        (
            other
            for other in trials
            if other.kind == "zero-shot"
            and (other.model, other.dataset, other.generation, other.prompts)
            == (trial.model, trial.dataset, trial.generation, trial.prompts)
        ),
        None,
    )


def compare_trials(plan: ExperimentPlan, run_folder: Path, progress: Progress) -> None:
    """Write `comparisons.json`: every done trial, metric and prompt, and all prompts together.

    What was compared before under the same scores is not compared again.
    """
    pairs = [
        (trial, partner)
        for trial in plan.trials
        if trial.kind == "fine-tuned" and (partner := find_partner(trial, plan.trials)) is not None
    ]
    pairs = [pair for pair in pairs if all(_has_scores(run_folder, trial) for trial in pair)]
    place = run_folder / "comparisons.json"
    key = hash_json(
        [
            VERSION,
            *([hash_file(_folder(run_folder, trial) / "scores.json") for trial in pair] for pair in pairs),
        ]
    )
    if place.is_file() and read_json(place).get("key") == key:
        return
    progress.start("compare", len(pairs))
    found: list[Comparison] = []
    for trial, partner in pairs:
        for name in trial.metrics:
            found += _compare_metric(parse_metric(name), trial, partner, run_folder)
        progress.advance(note=trial.name)
    write_json(place, {"key": key, "comparisons": adjust_holm(found)})


def _folder(run_folder: Path, trial: TrialPlan) -> Path:
    return run_folder / "trials" / trial.id


def _has_scores(run_folder: Path, trial: TrialPlan) -> bool:
    folder = _folder(run_folder, trial)
    state = folder / "state.json"
    return (folder / "scores.json").is_file() and state.is_file() and read_json(state).get("state") == "done"


def _compare_metric(
    metric: Metric, trial: TrialPlan, partner: TrialPlan, run_folder: Path
) -> list[Comparison]:
    """All prompts of one metric; empty where the metric could not be scored (the scores say why)."""
    reference_file = run_folder / "reference_embeddings" / f"{metric.encoder}.npz"
    if not reference_file.is_file():
        return []
    slugs = prompt_slugs(trial.prompts)
    files = [
        [
            _folder(run_folder, one) / "embeddings" / metric.encoder / f"{slugs[prompt]}.npz"
            for one in (partner, trial)
        ]
        for prompt in trial.prompts
    ]
    if not all(file.is_file() for pair in files for file in pair):
        return []
    reference = load_embeddings(reference_file)
    sets: list[tuple[Embeddings, Embeddings]] = [(load_embeddings(a), load_embeddings(b)) for a, b in files]
    names = (trial.id, partner.id)
    found: list[Comparison] = []
    for prompt, (base, tuned) in zip(trial.prompts, sets, strict=True):
        try:
            found.append(compare_paired(metric, base, tuned, reference, prompt=prompt, names=names))
        except UnscoredError:
            continue  # too few pairs: the scores carry the same note
    if found:
        bases, tuneds = zip(*sets, strict=True)
        found.append(compare_pooled(metric, bases, tuneds, reference, prompt=None, names=names))
    return found
