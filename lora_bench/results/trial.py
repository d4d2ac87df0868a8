"""What one trial's files tell: its state, its scores, and why each other planned cell has none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_bench.errors import StoreError
from lora_bench.store import hash_json, read_json

# `stated`: a stage said why it gave no score; `missing`: the work that would have scored it is not done.
STATED, MISSING = "stated", "missing"

Json = dict[str, Any]
Cell = tuple[str, str | None]


def gather_trial(run_folder: Path, planned: Json, spec: Json) -> Json:
    """One trial: what was planned, what its files say, and every planned cell scored or unscored."""
    folder = run_folder / "trials" / str(planned["id"])
    problems: list[str] = []
    state_file = read_object(folder / "state.json", problems) or {}
    train = read_object(folder / "train.json", problems)
    written = read_object(folder / "scores.json", problems) or {}
    kind = str(planned.get("kind") or "fine-tuned")
    state, reason = _settle_state(state_file, problems)
    cells = list(_planned_cells(planned, spec))
    scores, unscored = _split_cells(written, set(cells))
    _add_missing_cells(scores, unscored, cells, state, reason)
    has_adapter = train is not None and (folder / "adapter").is_dir()
    return {
        "id": str(planned["id"]),
        "name": str(planned.get("name") or planned["id"]),
        "configuration": str(planned.get("configuration") or planned.get("name") or planned["id"]),
        "changes": planned.get("changes") or {},
        "aliases": planned.get("aliases") or [],
        "kind": kind,
        "train_seed": planned.get("train_seed"),
        "state": state,
        "reason": reason,
        "stage": state_file.get("stage"),
        "lora": _effective_lora(planned.get("lora")) if kind != "zero-shot" else None,
        "train": planned.get("train") if kind != "zero-shot" else None,
        "trainable_params": 0 if kind == "zero-shot" else (train or {}).get("trainable_params"),
        "matched_modules": (train or {}).get("matched_modules") or {},
        "adapter": f"trials/{planned['id']}/adapter" if has_adapter else None,
        "losses": _summarize_losses((train or {}).get("curve") or []),
        "wall_s": _stage_times(state_file, train),
        "peak_memory_gib": state_file.get("peak_memory_gib") or (train or {}).get("peak_memory_gib"),
        "scores": scores,
        "unscored": unscored,
    }


def pair_with_zero_shot(trials: list[Json], planned: list[Json]) -> None:
    """Name, in each fine-tuned trial, the base model's trial that it is compared with, as planned.

    Plans of earlier versions do not say it; there it is the one of the same model, data and sampling.
    """
    bases = {_read_base(plan): plan["id"] for plan in reversed(planned) if plan.get("kind") == "zero-shot"}
    for trial, plan in zip(trials, planned, strict=True):
        if trial["kind"] != "zero-shot":
            trial["zero_shot"] = plan["zero_shot"] if "zero_shot" in plan else bases.get(_read_base(plan))


def _read_base(planned: Json) -> str:
    """What the base model's clips depend on; their number is not part of it."""
    generation: Json = planned.get("generation") or {}
    sampling = {key: value for key, value in generation.items() if key not in {"n_clips", "batch_size"}}
    return hash_json([planned.get("model"), planned.get("dataset"), sampling])


def _settle_state(state_file: Json, problems: list[str]) -> tuple[str, str | None]:
    """`done`, `stopped` (early, as the spec asks), `failed`, `running` or `missing`, and why it is not `done`.

    An interrupted trial is `missing`: nobody works on it, and the same command goes on with it.  A trial that a
    search did not try becomes `untried` in `search_tally.py`.
    """
    if problems:
        return "failed", "; ".join(problems)
    said = str(state_file.get("state") or "")
    stage = state_file.get("stage")
    where = f" in stage {stage}" if stage else ""
    why = str(state_file.get("reason") or "")
    if said == "done":
        return "done", None
    if said == "stopped":
        return "stopped", why or "stopped early"
    if said == "failed":
        return "failed", f"failed{where}: {why or 'no reason was written'}"
    if said == "running":
        return "running", f"still running{where}, or stopped without a word"
    if said == "interrupted":
        return "missing", f"interrupted{where}" + (f": {why}" if why else "")
    return "missing", "not started" if not said else f"unknown state `{said}`{where}"


def _split_cells(written: Json, planned: set[Cell]) -> tuple[list[Json], list[Json]]:
    """Scores that are numbers, and the cells that are not, each with its reason.

    Cells that an earlier version of the spec asked for and the present one does not are left out.
    """
    scores: list[Json] = []
    unscored: list[Json] = []
    for item in _pick_planned(written.get("unscored"), planned):
        reason = item.get("reason") or "no reason was written"
        unscored.append(_gap(item["metric"], item.get("prompt"), reason, STATED))
    for score in _pick_planned(written.get("scores"), planned):
        value = score.get("value")
        if isinstance(value, int | float) and math.isfinite(value):
            scores.append(score | {"prompt": score.get("prompt")})
        else:
            reason = f"the score came out as {value}, which is not a finite number"
            unscored.append(_gap(score["metric"], score.get("prompt"), reason, STATED))
    return scores, unscored


def _pick_planned(items: list[Json] | None, planned: set[Cell]) -> list[Json]:
    return [item for item in items or [] if (item["metric"], item.get("prompt")) in planned]


def _add_missing_cells(
    scores: list[Json], unscored: list[Json], planned: list[Cell], state: str, reason: str | None
) -> None:
    """List planned cells that no file speaks of."""
    present = {(item["metric"], item["prompt"]) for item in (*scores, *unscored)}
    why = f"trial {reason}" if state != "done" else "the trial is done, but it was not scored on this"
    for metric, prompt in planned:
        if (metric, prompt) not in present:
            unscored.append(_gap(metric, prompt, why, STATED if state == "stopped" else MISSING))


def _gap(metric: str, prompt: str | None, reason: str, cause: str) -> Json:
    return {"metric": metric, "prompt": prompt, "reason": reason, "cause": cause}


def _planned_cells(planned: Json, spec: Json) -> Iterable[Cell]:
    """Metric x prompt, and each metric over all prompts."""
    prompts = list_names(planned.get("prompts") or spec.get("prompts"), "text")
    for metric in list_names(planned.get("metrics") or spec.get("metrics"), "name"):
        for prompt in (*prompts, None):
            yield metric, prompt


def is_complete(trial: Json) -> bool:
    """Whether the trial is done, stopped or left out as planned, and no cell lacks both score and reason."""
    return trial["state"] in {"done", "stopped", "untried"} and all(
        item["cause"] == STATED for item in trial["unscored"]
    )


def _effective_lora(lora: Json | None) -> Json | None:
    """The settings with alpha's default filled in, so that a reader need not know it."""
    if lora is None:
        return None
    alpha = lora.get("alpha")
    return lora | {"alpha": 2.0 * lora["rank"] if alpha is None and "rank" in lora else alpha}


def _summarize_losses(curve: list[Json]) -> Json:
    """First, last and best losses of a training curve; absent where nothing was measured."""
    losses: Json = {}
    train = [point for point in curve if _is_finite(point.get("train_loss"))]
    held_out = [point for point in curve if _is_finite(point.get("eval_loss"))]
    if train:
        losses |= {"first_train": train[0]["train_loss"], "last_train": train[-1]["train_loss"]}
    if held_out:
        best = min(held_out, key=lambda point: float(point["eval_loss"]))
        losses |= {
            "first_eval": held_out[0]["eval_loss"],
            "last_eval": held_out[-1]["eval_loss"],
            "best_eval": best["eval_loss"],
            "best_eval_step": best["step"],
        }
    if curve:
        losses["steps"] = curve[-1]["step"]
    return losses


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _stage_times(state_file: Json, train: Json | None) -> Json:
    """Seconds per stage as the trial wrote them."""
    times = state_file.get("wall_s")
    if isinstance(times, dict):
        return times
    return {"train": train["wall_s"]} if train and train.get("wall_s") is not None else {}


def list_names(items: Any, key: str) -> list[str]:
    """Names of a list whose items are strings or mappings with the name under `key`."""
    return [str(item[key]) if isinstance(item, dict) else str(item) for item in items or []]


def read_part(path: Path, problems: list[str]) -> Any:
    """A file that may not be there yet (None); a damaged one is reported among the results."""
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except StoreError as error:
        problems.append(str(error))
        return None


def read_object(path: Path, problems: list[str]) -> Json | None:
    """`read_part` of a file that holds a JSON object."""
    found = read_part(path, problems)
    if found is None or isinstance(found, dict):
        return found
    problems.append(f"{path}: holds a {type(found).__name__}, expected a JSON object of a run")
    return None
