"""Gather the files of a run's folder into one record: the content of `results.json` and `results.csv`.

Files alone are read, so a finished, a failing and an interrupted run all give results.  A cell that was
planned and has no score is listed in `unscored` with a reason; nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.sources import Source, list_sources
from lora_bench.results.csv_table import render_csv
from lora_bench.results.reading import expect_form, read_part, read_results_file, read_run_plan, write_record
from lora_bench.results.records import Floor, Settings, UnscoredFloor
from lora_bench.results.run_files import (
    ChoiceFile,
    ContrastsFile,
    DatasetFile,
    FloorsFile,
    GuardsFile,
    ManifestEntry,
    RunPlan,
    StateFile,
)
from lora_bench.results.run_records import (
    RESULTS_SCHEMA,
    DatasetSummary,
    Environment,
    ModelSummary,
    Planned,
    RunResults,
    SourceSummary,
    SplitSummary,
    Tuning,
)
from lora_bench.results.search_tally import describe_rest, settle_search
from lora_bench.results.settings import read_section, read_text
from lora_bench.results.trial import find_bases, gather_trial, is_complete, list_names
from lora_bench.store import to_jsonable, write_text


def gather_results(run_folder: Path) -> RunResults:
    """Gather everything that a run has to tell; parts that the run did not write are empty.

    Args:
        run_folder: folder with `plan.json`; or, for results that travelled alone, with `results.json`.

    Raises:
        StoreError: neither file is there, or the plan is damaged.
    """
    run = RunFolder(run_folder)
    if not run.plan.is_file() and run.results.is_file():
        return read_results_file(run.results)
    with expect_form(run.plan):
        return _gather(run, read_run_plan(run_folder))


def _gather(run: RunFolder, plan: RunPlan) -> RunResults:
    spec = plan.spec or {}
    problems: list[str] = []
    environment = read_part(run.environment, Environment, problems)
    sources = list_sources(to_jsonable(plan.trials))
    described = [read_part(run.source(source.folder).dataset, DatasetFile, problems) for source in sources]
    datasets = [_summarize_dataset(part) for part in described]
    floors, unscored_floors = _gather_floors(run, sources, problems)
    bases = find_bases(plan.trials)
    trials = [gather_trial(run.trial(trial.id), trial, spec, bases[trial.id]) for trial in plan.trials]
    trials, search = settle_search(trials, plan, run.path)
    ids = {trial.id for trial in trials}
    compared = read_part(run.contrasts, ContrastsFile, problems) or ContrastsFile()
    choice = read_part(run.choice, ChoiceFile, problems)
    optional: dict[str, Any] = {  # absent rather than null in runs that have none
        "decided": None if compared.decisions is None else compared.decisions.configurations,
        "repeated_choice": None if choice is None else choice.choice,
        "tuning": None if read_section(spec, "tune") == {} else read_part(run.tuning, Tuning, problems),
    }
    guarded = read_part(run.guards, GuardsFile, problems) or GuardsFile()
    return RunResults(
        schema=RESULTS_SCHEMA,
        name=plan.name or read_text(plan.spec, "name") or run.path.name,
        complete=bool(trials)
        and all(is_complete(trial) for trial in trials)
        and not plan.n_later
        and not describe_rest(search)
        and not list_unsettled(optional["tuning"]),
        planned=Planned(
            trials=len(trials),
            metrics=list_names(spec.get("metrics"), "name"),
            primary_metric=_name_primary(spec),
            prompts=list_names(spec.get("prompts"), "text"),
            off_genre=next((trial.off_genre for trial in plan.trials), ()),
            cells=sum(len(trial.scores) + len(trial.unscored) for trial in trials),
        ),
        trials=tuple(trials),
        search=search,
        floors=tuple(floors),
        unscored_floors=tuple(unscored_floors),
        contrasts=compared.contrasts,
        missing_contrasts=compared.missing,
        **{name: value for name, value in optional.items() if value is not None},
        guards=tuple(item for item in guarded.guards if item.trial in {*ids, None}),
        control=tuple(item for item in guarded.control if item.trial in ids),
        dataset=datasets[0] if datasets else DatasetSummary(),
        sources=tuple(
            SourceSummary.model_validate({**to_jsonable(source), "dataset": part})
            for source, part in zip(sources, datasets, strict=True)
        ),
        model=_find_model(run, plan, described[0] if described else None),
        environment=environment or Environment(),
        spec=spec,
        source=plan.source,
        overrides=plan.overrides,
        problems=tuple(problems),
    )


def list_unsettled(tuning: Tuning | None) -> list[str]:
    """Return configurations without chosen values, which are not compared."""
    return (
        []
        if tuning is None
        else [item.configuration for item in tuning.configurations if item.chosen is None]
    )


def _name_primary(spec: Settings) -> str | None:
    """Return the metric that verdicts are given on: as stated, else the first."""
    stated = read_text(read_section(spec, "verdict"), "metric")
    return stated or next(iter(list_names(spec.get("metrics"), "name")), None)


def write_results(run_folder: Path) -> RunResults:
    """Write `results.json` and `results.csv` of a run, atomically, and return what was written.

    Raises:
        StoreError: there is nothing to gather, or the disk is full.
    """
    results = gather_results(run_folder)
    run = RunFolder(run_folder)
    write_record(run.results, results)
    write_text(run.results_csv, render_csv(results))
    return results


def _summarize_dataset(described: DatasetFile | None) -> DatasetSummary:
    """Return counts and lengths per split; single tracks stay in `dataset.json`."""
    if described is None:
        return DatasetSummary()
    manifest = described.manifest
    optional: dict[str, Any] = {} if described.source is None else {"source": described.source}
    if any(track.split == "selection" for track in manifest.tracks):
        optional["selection"] = _summarize_split(manifest, "selection")
    return DatasetSummary(
        name=manifest.name,
        key=manifest.key,
        clip_s=manifest.clip_s,
        format=manifest.format,
        resampler=manifest.resampler,
        train=_summarize_split(manifest, "train"),
        eval=_summarize_split(manifest, "eval"),
        n_tracks=len(manifest.tracks),
        n_reference_clips=described.n_reference_clips,
        excluded=manifest.excluded,
        **optional,
    )


def _summarize_split(manifest: ManifestEntry, split: str) -> SplitSummary:
    tracks = [track for track in manifest.tracks if track.split == split]
    return SplitSummary(
        n_tracks=len(tracks),
        duration_s=math.fsum(track.duration_s or 0.0 for track in tracks),
        n_slices=sum(item.split == split for item in manifest.slices),
    )


def _gather_floors(
    run: RunFolder, sources: Sequence[Source], problems: list[str]
) -> tuple[list[Floor], list[UnscoredFloor]]:
    """Return reference levels, and metrics without them; each names its source where there are several."""
    found: list[Floor] = []
    unscored: list[UnscoredFloor] = []
    for source in sources:
        part = read_part(run.source(source.folder).floors, FloorsFile, problems) or FloorsFile()
        label = source.label if len(sources) > 1 else None
        found += [floor.flatten(label) for floor in part.floors]
        named = {} if label is None else {"source": label}
        unscored += [gap.model_copy(update=named) for gap in part.unscored]
    return found, unscored


def _find_model(run: RunFolder, plan: RunPlan, dataset: DatasetFile | None) -> ModelSummary:
    """Return what the run recorded of its model, at its preparation or when a trial loaded it."""

    def list_notes() -> Iterator[ModelSummary | None]:
        yield dataset.model if dataset is not None else None
        for trial in plan.trials:
            state = read_part(run.trial(trial.id).state, StateFile, [])
            yield state.model if state is not None else None

    return next((model for model in list_notes() if model is not None), ModelSummary())
