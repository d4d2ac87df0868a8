"""Lines that stand around the answer: the design, levels, what has no verdict, what to do next."""

from __future__ import annotations

import math

from lora_bench.metrics.verdicts import FEW, Verdict
from lora_bench.report.answer import Answer
from lora_bench.report.formatting import count_noun, format_with_error, join_words
from lora_bench.report.view import name_floor
from lora_bench.results.settings import read_section

MAX_LEVELS = 4
MAX_NAMED = 4


def describe_lacks(answer: Answer) -> str:
    """Return why configurations have no verdict, in one line; empty where the table tells."""
    named: dict[str, list[str]] = {}
    for row in answer.rows:
        if row.lacking and row.lacking != row.verdict:  # the table says it already
            named.setdefault(row.lacking, []).append(row.configuration.name)
    parts = [
        f"{join_words([*names[:MAX_NAMED], *[f'{len(names) - MAX_NAMED} more'] * (len(names) > MAX_NAMED)])} "
        f"({reason.rstrip('.')})"
        for reason, names in list(named.items())[:MAX_NAMED]
    ]
    more = f"; {len(named) - MAX_NAMED} more reasons are in Details" if len(named) > MAX_NAMED else ""
    return f"Without a verdict: {'; '.join(parts)}{more}." if parts else ""


def describe_levels(answer: Answer) -> str:
    """Return zero-shot and real music on the primary metric in one line, as the tables of the front show them."""
    view, metric = answer.view, answer.metric
    is_corrected = view.is_corrected(metric)
    cells = [(item.name, view.cell(item, metric, None)) for item in view.bases[:MAX_LEVELS]]
    parts = [
        f"{name} {format_with_error(value, cell.spread)}"
        for name, cell in cells
        if (value := view.value(cell, metric)) is not None
    ]
    parts += [
        f"{name_floor(item)} {format_with_error(item.best_value if is_corrected else item.value, item.se)}"
        for item in view.floors(metric)[:MAX_LEVELS]
    ]
    if not parts:
        return ""
    counts = {*view.clip_counts(metric, None), *(floor.n_generated for floor in view.floors(metric))}
    estimate = ", corrected for the bias of finite samples" if is_corrected and answer.lower_is_better else ""
    caveat = "; a distance of fewer clips is larger" if not is_corrected and len(counts) > 1 else ""
    errors = " (\u00b1 standard error)" if any("\u00b1" in part for part in parts) else ""
    return f"Levels of {metric}{estimate}{errors}: {', '.join(parts)}{caveat}."


def describe_design(answer: Answer) -> str:
    """Return the design in one line."""
    view = answer.view
    generation, dataset = view.generation, view.results.dataset
    n_existing = sum(item.is_existing for item in view.fine_tuned)
    n_trained = len(view.fine_tuned) - n_existing
    seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
    parts = [
        view.results.name,
        str(view.results.model.name or "unknown model"),
        *[
            count_noun(n_trained, "LoRA configuration")
            + (f", {count_noun(seeds, 'training seed')} each" if seeds else "")
        ]
        * bool(n_trained or not (n_existing or answer.is_zero_shot_only or view.systems)),
        *[count_noun(len(view.bases), "zero-shot row")] * answer.is_zero_shot_only,
        *[count_noun(n_existing, "existing adapter")] * bool(n_existing),
    ]
    if view.systems:
        parts.append(count_noun(len(view.systems), "other system"))
    if dataset.train is not None and dataset.eval is not None:
        selection = f"{dataset.selection.n_tracks} to select by, " if dataset.selection is not None else ""
        parts.append(
            f"{count_noun(dataset.train.n_tracks, 'training track')} ({_describe_length(dataset.train.duration_s)}), "
            f"{_describe_size(answer)}{selection}{dataset.eval.n_tracks} held-out"
        )
    if generation.get("n_clips"):
        rounded = f", decoded in {generation['quantization']}" if generation.get("quantization") else ""
        parts.append(
            f"{generation['n_clips']} clips of {generation.get('clip_s', 0):g} s per prompt{rounded}"
        )
    direction = "lower is closer" if answer.lower_is_better else "higher is better"
    return " \u00b7 ".join([*parts, f"primary metric {answer.metric}, {direction}"])


def _describe_length(duration_s: float) -> str:
    return f"{duration_s / 60:.0f} min" if duration_s >= 60.0 else f"{duration_s:.0f} s"


def _describe_size(answer: Answer) -> str:
    """Return the part of the training tracks that every adapter is trained on, unless it varies or is the whole."""
    size = read_section(read_section(answer.view.spec, "dataset"), "size")
    varies = any(name.startswith("dataset") for trial in answer.view.trials for name in trial.changes)
    tracks, minutes = size.get("tracks"), size.get("minutes")
    if varies or "all" in (tracks, minutes) or (tracks is None and minutes is None):
        return ""
    return f"{tracks} of them used, " if tracks is not None else f"about {minutes:g} min of them used, "


def advise(answer: Answer) -> list[str]:
    """Return what limits the answer, and what to do next."""
    said = _describe_looks(answer)
    found = [row.contrast for row in answer.compared if row.contrast is not None]
    tuned = [row.contrast for row in answer.tuned if row.contrast is not None]
    is_trained = any(not row.configuration.is_existing for row in answer.tuned)
    if tuned and not is_trained:
        said.append(
            f"{'This adapter exists' if len(tuned) == 1 else 'These adapters exist'} already: the answer is about "
            f"{'this adapter' if len(tuned) == 1 else 'these adapters'}, not about settings of a training."
        )
    elif tuned and max(item.n_seeds for item in tuned) == 1:
        rows = (row for row in answer.rows if not row.configuration.is_existing)
        trained = [row.total_s for row in rows if row.total_s is not None]
        minutes = 2.0 * math.fsum(trained) / 60.0
        cost = f" (about {count_noun(round(minutes), 'more minute')})" if minutes >= 1.0 else ""
        said.append(
            "One training each: this is about these adapters, not about their settings. Three training "
            f"seeds{cost} would tell."
        )
    open_rows = [item for item in found if item.verdict == Verdict.INCONCLUSIVE and item.se]
    if open_rows:
        parts = {
            name: math.fsum(getattr(item.variance, name) or 0.0 for item in open_rows)
            for name in ("clips", "tracks", "seeds")
        }
        total = math.fsum(parts.values())
        cause = max(parts, key=lambda name: parts[name])
        words = {"clips": "clips", "tracks": "held-out tracks", "seeds": "training seeds"}[cause]
        if total > 0.0:
            said.append(
                f"What is inconclusive is limited by the number of {words}: they make up "
                f"{parts[cause] / total:.0%} of the variance."
            )
    return said + _describe_few(answer)


def _describe_few(answer: Answer) -> list[str]:
    """Return that the intervals behind verdicts are rough, where there are few clips or tracks."""
    if not any(row.contrast is not None and row.contrast.verdict for row in answer.compared):
        return []
    held_out, n_clips = answer.view.results.dataset.eval, answer.view.generation.get("n_clips")
    few: list[str] = []
    if isinstance(n_clips, int) and n_clips < FEW:
        few.append(f"{count_noun(n_clips, 'clip')} per prompt")
    if held_out is not None and held_out.n_tracks < FEW and answer.lower_is_better:  # else no track counts
        few.append(count_noun(held_out.n_tracks, "held-out track"))
    return (
        [f"Intervals and verdicts are rough with {join_words(few)}; {FEW} or more are better."] if few else []
    )


def _describe_looks(answer: Answer) -> list[str]:
    """Return which configurations needed fewer clips than planned."""
    decided = answer.view.results.decided
    if decided is None:
        return []
    looks = read_section(answer.view.spec, "verdict").get("looks")
    counts = [str(n) for n in looks] if isinstance(looks, list) else []
    after = ", ".join(f"{name} after {n}" for name, n in decided.items() if str(n) in counts)
    return [
        f"Verdicts were looked at after {', '.join(counts)} clips per prompt, and intervals hold over all looks. "
        + (f"Fewer clips were enough for {after}." if after else "None was reached early.")
    ]
