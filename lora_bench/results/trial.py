"""The state and scores of one trial from its files, with the reason for each planned cell without a score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import JsonValue

from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.external import ExternalRecord, label_external
from lora_bench.results.reading import read_part
from lora_bench.results.records import ScoreRecord, Settings, UnscoredCell
from lora_bench.results.run_files import (
    CurvePoint,
    ExistingAdapterFile,
    PlannedTrial,
    ScoresFile,
    StateFile,
    TrainFile,
    UnusableScore,
)
from lora_bench.results.run_records import Losses, TrialResult, TrialState
from lora_bench.results.settings import read_text
from lora_bench.spec.kinds import has_setting
from lora_bench.store import hash_json

Cell = tuple[str, str | None]
Cause = Literal["stated", "missing"]
Cells = tuple[list[ScoreRecord], list[UnscoredCell]]


def gather_trial(
    folder: TrialFolder, planned: PlannedTrial, spec: Settings, zero_shot: str | None
) -> TrialResult:
    """Gather one trial: what was planned, what its files say, and every planned cell scored or unscored.

    Args:
        folder: the trial's folder.
        planned: the trial as `plan.json` has it.
        spec: the run's spec, for what an earlier version did not write per trial.
        zero_shot: id of the base model's trial that it is compared with.
    """
    problems: list[str] = []
    state_file = read_part(folder.state, StateFile, problems) or StateFile()
    train = read_part(folder.train, TrainFile, problems)
    is_existing = read_text(planned.lora, "path") is not None
    existing = read_part(folder.existing_adapter, ExistingAdapterFile, problems) if is_existing else None
    written = read_part(folder.scores, ScoresFile, problems) or ScoresFile()
    cells = list(_list_planned_cells(planned, spec))
    state, reason = _settle_state(state_file, problems)
    scores, unscored = _split_cells(written, set(cells))
    _add_missing_cells(scores, unscored, cells, state, reason)
    is_tuned, is_external = planned.kind == "fine-tuned", planned.kind == "external"
    trained = train or TrainFile()
    name = planned.name or planned.id
    optional: dict[str, Any] = {"zero_shot": zero_shot} if is_tuned or is_external else {}
    if planned.budget is not None:
        optional["budget"] = planned.budget
    if is_tuned and trained.step is not None:
        optional["step"] = trained.step
    if existing is not None:
        optional["n_params"] = existing.n_params
    if is_external:
        optional["external"] = _read_external(folder, planned, state_file, problems)
    if written.selection is not None:
        planned_cells = set(cells)
        optional["selection"] = tuple(
            score for score in written.selection.usable if (score.metric, score.prompt) in planned_cells
        )
    return TrialResult(
        id=planned.id,
        name=name,
        configuration=planned.configuration or name,
        changes=planned.changes,
        aliases=planned.aliases,
        kind=planned.kind,
        train_seed=planned.train_seed,
        state=state,
        reason=reason,
        stage=state_file.stage,
        lora=_describe_adapter(planned.lora, existing) if is_tuned else None,
        train=planned.train if is_tuned else None,
        trainable_params=None
        if is_external
        else 0
        if not is_tuned or is_existing
        else trained.trainable_params,
        matched_modules=existing.matched_modules if existing is not None else trained.matched_modules,
        adapter=folder.adapter.relative_to(folder.run.path).as_posix()
        if (train or existing) and folder.adapter.is_dir()
        else None,
        losses=_summarize_losses(trained.curve),
        wall_s=_list_stage_times(state_file, trained, is_shared=planned.training is not None),
        peak_memory_gib=state_file.peak_memory_gib or trained.peak_memory_gib,
        scores=tuple(scores),
        unscored=tuple(unscored),
        **optional,
    )


def _read_external(
    folder: TrialFolder, planned: PlannedTrial, state: StateFile, problems: list[str]
) -> ExternalRecord:
    """Return what is known of another system's clips; its name alone before they are scored."""
    written = read_part(folder.external, ExternalRecord, problems) if state.state == "done" else None
    return written or ExternalRecord(label=label_external(planned.external or {}))


def find_bases(planned: Sequence[PlannedTrial]) -> dict[str, str | None]:
    """Return the base model's trial by trial id, as planned.

    Plans of earlier versions do not say it; there it is the one of the same model, data and sampling.
    """
    bases = {_key_base(plan): plan.id for plan in reversed(planned) if plan.kind == "zero-shot"}
    return {
        plan.id: plan.zero_shot if "zero_shot" in plan.model_fields_set else bases.get(_key_base(plan))
        for plan in planned
    }


def _key_base(planned: PlannedTrial) -> str:
    """Return a key of what the base model's clips depend on; their number is not part of it."""
    generation = planned.generation or {}
    sampling = {key: value for key, value in generation.items() if key not in {"n_clips", "batch_size"}}
    return hash_json([planned.model, planned.dataset, sampling])


def _settle_state(state_file: StateFile, problems: Sequence[str]) -> tuple[TrialState, str | None]:
    """Return the state and why it is not `done`.

    No process works on an interrupted trial, and the same command resumes it.  A trial that a
    search did not try becomes `untried` in `search_tally.py`.
    """
    if problems:
        return "failed", "; ".join(problems)
    where = f" in stage {state_file.stage}" if state_file.stage else ""
    why = state_file.reason or ""
    match state_file.state or "":
        case "done":
            return "done", None
        case "stopped":
            return "stopped", why or "stopped early"
        case "failed":
            return "failed", f"failed{where}: {why or 'no reason was written'}"
        case "running":
            return "running", f"still running{where}, or stopped without a message"
        case "interrupted":
            return "interrupted", f"interrupted{where}" + (f": {why}" if why else "")
        case "":
            return "unstarted", "not started"
        case other:
            return "missing", f"unknown state `{other}`{where}"


def _split_cells(written: ScoresFile, planned: set[Cell]) -> Cells:
    """Return scores that are numbers, and the cells that are not, each with its reason.

    Cells that an earlier version of the spec asked for and the present one does not are left out.
    """
    unscored = [
        _make_gap((gap.metric, gap.prompt), gap.reason or "no reason was written", "stated")
        for gap in written.unscored
        if (gap.metric, gap.prompt) in planned
    ]
    scores: list[ScoreRecord] = []
    for score in written.scores:
        if (score.metric, score.prompt) not in planned:
            continue
        if isinstance(score, ScoreRecord):
            scores.append(score)
        else:
            unscored.append(_explain_unusable(score))
    return scores, unscored


def _explain_unusable(score: UnusableScore) -> UnscoredCell:
    cell = (score.metric, score.prompt)
    if isinstance(score.value, int | float) and math.isfinite(score.value):
        return _make_gap(cell, "the record of the score is damaged; run again", "missing")
    return _make_gap(cell, f"the score came out as {score.value}, which is not a finite number", "stated")


def _add_missing_cells(
    scores: Sequence[ScoreRecord],
    unscored: list[UnscoredCell],
    planned: Sequence[Cell],
    state: TrialState,
    reason: str | None,
) -> None:
    """List planned cells that no file mentions."""
    present = {(item.metric, item.prompt) for item in (*scores, *unscored)}
    why = f"trial {reason}" if state != "done" else "the trial is done, but it was not scored on this"
    cause: Cause = "stated" if state == "stopped" else "missing"
    unscored += [_make_gap(cell, why, cause) for cell in planned if cell not in present]


def _make_gap(cell: Cell, reason: str, cause: Cause) -> UnscoredCell:
    return UnscoredCell(metric=cell[0], prompt=cell[1], reason=reason, cause=cause)


def _list_planned_cells(planned: PlannedTrial, spec: Settings) -> Iterator[Cell]:
    """Yield metric x prompt, and each metric over all prompts."""
    if planned.tuning is not None:
        return
    prompts = planned.prompts or list_names(spec.get("prompts"), "text")
    for metric in planned.metrics or list_names(spec.get("metrics"), "name"):
        for prompt in (*prompts, None):
            yield metric, prompt


def is_complete(trial: TrialResult) -> bool:
    """Return whether a trial is done, stopped or left out as planned, and no cell lacks both score and reason."""
    return trial.state in {"done", "stopped", "untried"} and all(
        cell.cause == "stated" for cell in trial.unscored
    )


def _describe_adapter(lora: Settings | None, existing: ExistingAdapterFile | None) -> Settings | None:
    """Return the settings of an adapter; of one that exists already, those of its files next to its path."""
    if existing is None:
        return _fill_in_alpha(lora)
    read = existing.model_dump(include={"kind", "rank", "alpha", "targets"}, exclude_none=True)
    return {**(lora or {}), **read}


def _fill_in_alpha(lora: Settings | None) -> Settings | None:
    """Return the settings with alpha's default, so that a reader need not know it."""
    if (
        lora is None
        or lora.get("path") is not None
        or lora.get("alpha") is not None
        or not has_setting(str(lora.get("kind", "lora")), "alpha")
    ):
        return lora
    rank = lora.get("rank")
    return {**lora, "alpha": 2.0 * rank if isinstance(rank, int | float) else None}


def _summarize_losses(curve: Sequence[CurvePoint]) -> Losses:
    """Return first, last and best losses of a training curve; without those that were not measured."""
    train = [point.train_loss for point in curve if point.train_loss is not None]
    held_out = [(point.eval_loss, point.step) for point in curve if point.eval_loss is not None]
    found: dict[str, float] = {}
    if train:
        found |= {"first_train": train[0], "last_train": train[-1]}
    if held_out:
        best, step = min(held_out, key=lambda pair: pair[0])
        found |= {"first_eval": held_out[0][0], "last_eval": held_out[-1][0], "best_eval": best}
        found["best_eval_step"] = step
    if curve:
        found["steps"] = curve[-1].step
    return Losses.model_validate(found)


def _list_stage_times(state_file: StateFile, train: TrainFile, *, is_shared: bool) -> Mapping[str, float]:
    """Return seconds per stage as the trial wrote them; a shared training counts whole for each of its trials."""
    if state_file.wall_s is not None:
        if is_shared and train.wall_s is not None:
            return {**state_file.wall_s, "train": train.wall_s}
        return state_file.wall_s
    return {} if train.wall_s is None else {"train": train.wall_s}


def list_names(items: JsonValue, key: str) -> tuple[str, ...]:
    """Return the names in a list whose items are strings, or mappings with the name under `key`."""
    if not isinstance(items, list):
        return ()
    return tuple(str(item[key] if isinstance(item, dict) else item) for item in items)
