"""Contrasts, guards and text control of a whole run, from the files of its trials.

`pairs.py` decides which trials are partners, and whether there is anything to compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_bench.comparison.contrasts import Group, Trained, contrast_groups
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.comparison.text_control import compare_control
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS
from lora_bench.metrics.verdicts import ALPHA
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.sources import list_sources
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan
from lora_bench.progress import Progress
from lora_bench.results.reading import read_part, read_record
from lora_bench.results.records import SUPPORT, Contrast, ControlRecord, GuardRecord, MissingContrast
from lora_bench.results.run_files import FloorsFile, TrialGuardsFile
from lora_bench.store import JsonObject, hash_json, to_jsonable

TEXT_METRIC = "clap_score"
MARGIN_SHARE = 0.5
"""The margin of equivalence where the spec states none, as a share of the real-vs-real level."""

Pair = tuple[TrialPlan, TrialPlan]


def contrast_pairs(
    pairs: Sequence[Pair],
    kind: str,
    plan: ExperimentPlan,
    run_folder: Path,
    progress: Progress,
    alpha: float = ALPHA,
) -> tuple[list[Contrast], list[MissingContrast]]:
    """Compare configurations with their partners on all metrics and prompts; also return what cannot be compared.

    Args:
        pairs: trials with their partners.
        kind: of the partners.
        plan: the experiment.
        run_folder: holds the files of the trials.
        progress: told about every metric of every configuration.
        alpha: share of reports with any false verdict.
    """
    if not pairs:
        return [], []
    missing: list[MissingContrast] = []

    def tell(metric: Metric, group: Group, prompt: str | None, reason: UnscoredError) -> None:
        sides = {"configuration": group.configuration, "against": group.against}
        missing.append(MissingContrast(metric=metric.name, prompt=prompt, **sides, reason=str(reason)))

    groups = make_groups(pairs, plan, run_folder)
    metrics = list(plan.spec.metrics)
    if TEXT_METRIC not in metrics and all(_knows_texts(side) for group in groups for side in group.sides):
        metrics.append(TEXT_METRIC)
    found = contrast_groups(
        groups,
        [parse_metric(name, plan.spec.distances) for name in metrics],
        label_prompts(pairs[0][0].prompts, pairs[0][0].own_prompts),
        (plan.spec.primary_metric, primary_labels(pairs[0][0].own_prompts)),
        alpha=alpha,
        told=tell,
        done=progress.advance,
    )
    return [item.model_copy(update={"kind": kind}) for item in found], missing


def label_prompts(prompts: Sequence[str], own_prompts: Sequence[str]) -> dict[str | None, tuple[str, ...]]:
    """Return the rows of a comparison: every prompt, and the genre's own together."""
    return {**{prompt: (prompt,) for prompt in prompts}, None: tuple(own_prompts)}


def primary_labels(own_prompts: Sequence[str]) -> frozenset[str | None]:
    """Return the rows that verdicts are given on: the genre's own prompts, and these together."""
    return frozenset({None, *(own_prompts if len(own_prompts) > 1 else ())})


def make_groups(pairs: Sequence[Pair], plan: ExperimentPlan, run_folder: Path) -> list[Group]:
    """Return the configurations with what they are compared with, over their training seeds."""
    run = RunFolder(run_folder)
    sources = list_sources([to_jsonable(trial) for trial in plan.trials])
    source_of = {trial_id: source for source in sources for trial_id in source.trial_ids}
    margins = {source.key: _read_margins(run, source.folder, plan) for source in sources}
    grouped: dict[tuple[str, str, str], list[Pair]] = {}
    for trial, partner in pairs:
        names = trial.configuration, partner.configuration, source_of[trial.id].key
        grouped.setdefault(names, []).append((trial, partner))
    return [
        Group(
            configuration=configuration,
            against=against,
            source=source,
            trainings=tuple(
                Trained(
                    EmbeddedTrial(run.trial(trial.id), trial.prompts, is_external=trial.external is not None),
                    EmbeddedTrial(run.trial(partner.id), partner.prompts),
                    partner.train_seed if trial.train_seed is None else trial.train_seed,
                )
                for trial, partner in members
            ),
            margins=margins[source],
            is_paired=members[0][0].external is None,
        )
        for (configuration, against, source), members in grouped.items()
    ]


def _read_margins(run: RunFolder, folder: Path, plan: ExperimentPlan) -> dict[str, float]:
    """Return the largest difference that counts as none, by metric: as stated, else a share of real-vs-real."""
    floors = read_part(run.source(folder).floors, FloorsFile, []) or FloorsFile()
    real = [item.score for item in floors.floors if item.floor == "real-vs-real"]
    levels = {score.metric: score.best_value if score.best_value > 0.0 else score.value for score in real}
    margins = {name: MARGIN_SHARE * level for name, level in levels.items() if level > 0.0}
    stated = plan.spec.verdict.margin
    return margins if stated is None else {**margins, plan.spec.primary_metric: stated}


def _knows_texts(trial: EmbeddedTrial) -> bool:
    return trial.folder.embeddings(parse_metric(TEXT_METRIC).encoder).texts.is_file()


def join_guards(done: Mapping[str, TrialPlan], run_folder: Path) -> list[GuardRecord]:
    """Return the guards of all trials, held-out recordings first; equal records of these once.

    Records that differ only in recall and coverage, which earlier versions did not measure, are equal; one that has
    them stands for all.
    """
    run = RunFolder(run_folder)
    files = [read_record(run.trial(trial_id).guards, TrialGuardsFile) for trial_id in done]
    records = [record for file in files for record in file.guards]
    held_out: dict[str, GuardRecord] = {}
    for record in records:
        if record.trial is None:
            key = hash_json(_leave_out_support(record))
            if key not in held_out or not held_out[key].coverage:
                held_out[key] = record
    return [*held_out.values(), *(record for record in records if record.trial is not None)]


def _leave_out_support(record: GuardRecord) -> JsonObject:
    facts = record.model_dump(mode="json", by_alias=True, exclude={"recall", "coverage"})
    facts["unscored"] = {name: why for name, why in record.unscored.items() if not name.startswith(SUPPORT)}
    return facts


def check_control(pair: Pair, run_folder: Path) -> list[ControlRecord]:
    """Measure separation, shift toward the genre and retention of one trial against zero-shot."""
    trial, partner = pair
    run = RunFolder(run_folder)
    tuned, base = (EmbeddedTrial(run.trial(one.id), trial.prompts) for one in pair)
    records: list[ControlRecord] = []
    for encoder in dict.fromkeys(parse_metric(name).encoder for name in trial.metrics):
        if encoder in PROMPT_RATINGS:  # which have no recordings to move toward
            continue
        try:
            sets = {p: (base.load_clips(encoder, p), tuned.load_clips(encoder, p)) for p in trial.prompts}
            reference = tuned.load_references(parse_metric(encoder))
        except UnscoredError:
            continue
        records += compare_control((trial.id, partner.id), encoder, sets, reference, trial.off_genre)
    return records
