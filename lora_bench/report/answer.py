"""The answer of a run: did fine-tuning help, by how much, how sure; one row per configuration.

The page, the markdown and the command line show this, in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.formatting import (
    count_noun,
    format_change,
    format_difference,
    format_value,
)
from lora_bench.report.view import Configuration, RunView, is_higher_better
from lora_bench.results.records import Contrast
from lora_bench.results.settings import read_section


@dataclass(frozen=True)
class AnswerRow:
    """One configuration.

    Attributes:
        contrast: with zero-shot on the primary metric over the genre's prompts; None if it was not compared.
        share: the change as a share of the zero-shot level; None where that is not positive.
        retention: of off-genre prompts, mean over training seeds (1: nothing moved); None if there are none.
        n_copies: clips whose codes copy the training set; None if that was not measured.
        n_clips: clips that were searched for copies.
        params: trainable parameters.
        total_s: seconds of all stages, mean over training seeds.
    """

    configuration: Configuration
    contrast: Contrast | None
    share: float | None
    retention: float | None
    n_copies: int | None
    n_clips: int
    params: float | None
    total_s: float | None

    @property
    def verdict(self) -> str:
        """The verdict, or why there is none."""
        if self.contrast is None:
            states = [trial.state for trial in self.configuration.trials if trial.state != "done"]
            return states[0] if states else "not compared"
        return self.contrast.verdict or "no interval"

    @property
    def change(self) -> str:
        """The change in words: a share of the zero-shot level where there is one."""
        if self.contrast is None:
            return ""
        if self.share is not None:
            return format_change(self.share)
        return format_difference(self.contrast.delta, error=self.contrast.se)

    @property
    def detectable(self) -> str:
        """The change that would have been found, in the same unit; empty if there is no interval."""
        if self.contrast is None or self.contrast.detectable is None:
            return ""
        if self.share is None or not self.contrast.delta:
            return format_difference(self.contrast.detectable, error=self.contrast.se).lstrip("+")
        return format_change(self.contrast.detectable * abs(self.share / self.contrast.delta)).lstrip("+")


class Answer:
    """The rows of a run, best first, and what follows from them."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.metric = view.primary_metric or next(iter(view.metrics), "")
        self.lower_is_better = not is_higher_better(self.metric)

    @cached_property
    def rows(self) -> list[AnswerRow]:
        """Configurations with an adapter, the best change first, those that were not compared last."""
        sign = 1.0 if self.lower_is_better else -1.0
        made = [self._make_row(item) for item in self.view.fine_tuned]
        return sorted(made, key=lambda row: math.inf if row.contrast is None else sign * row.contrast.delta)

    @cached_property
    def compared(self) -> list[AnswerRow]:
        """Rows with a contrast."""
        return [row for row in self.rows if row.contrast is not None]

    def level(self, configuration: Configuration | None) -> float | None:
        """Return a configuration's value over the genre's prompts, without bias where that is known."""
        if configuration is None:
            return None
        cell = self.view.cell(configuration, self.metric, None)
        return cell.value if cell.corrected is None else cell.corrected

    def floor(self, name: str) -> float | None:
        """Return a reference level of the primary metric; None if there is not exactly one."""
        found = [item for item in self.view.floors(self.metric) if item.floor == name]
        return found[0].best_value if len(found) == 1 else None

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        view = self.view
        if not view.fine_tuned or view.zero_shot is None:
            return "There is nothing to compare zero-shot with."
        if not self.compared:
            return "No fine-tuned configuration was compared with zero-shot, so the effect of fine-tuning is unknown."
        groups = {verdict: [r for r in self.compared if r.verdict == verdict] for verdict in Verdict}
        better, worse = groups[Verdict.BETTER], groups[Verdict.WORSE]
        if better:
            farther = f"; {len(worse)} moved it farther" if worse else ""
            return f"{self._say_move(better, better=True)}{farther}{self._say_retention(better[0])}."
        if worse:
            return f"{self._say_move(worse[::-1], better=False)}."
        if len(groups[Verdict.EQUIVALENT]) == len(self.compared):
            return "Fine-tuning makes no difference that matters: every change is within the margin."
        best = self.compared[0]
        if best.contrast is None or best.contrast.se is None:
            return (
                "Whether fine-tuning helps is not known: there are too few clips or tracks for an interval."
            )
        largest = f"the best change is {best.change}, and this design finds {best.detectable} and more"
        return f"Whether fine-tuning helps is not settled: {largest}."

    def _say_move(self, rows: Sequence[AnswerRow], *, better: bool) -> str:
        first, n = rows[0], len(self.compared)
        change = first.change.lstrip("+-\u2212")
        subject, where = ("the music", "the genre") if self.lower_is_better else ("clips", "their prompts")
        direction = f"{'closer to' if better else 'farther from'} {where}"
        if n == 1:
            return f"Fine-tuning moved {subject} {change} {direction}"
        most = "" if len(rows) == 1 else " most"
        whole = "both configurations" if n == 2 else f"all {n} configurations"
        who = whole.capitalize() if len(rows) == n else f"{len(rows)} of {n} configurations"
        return f"{who} moved {subject} {direction}: {first.configuration.name}{most}, by {change}"

    def _say_retention(self, row: AnswerRow) -> str:
        if row.retention is None:
            return ""
        if row.retention > 0.995:
            return "; prompts outside it did not move"
        return f"; prompts outside it moved {format_change(1.0 - row.retention).lstrip('+')} of the way, too"

    def _make_row(self, item: Configuration) -> AnswerRow:
        contrast = self.view.contrast(item.name, self.metric, None)
        level = self.level(self.view.base_of(item))
        share = None
        if contrast is not None and level is not None and level > 0.0 and self.lower_is_better:
            share = contrast.delta / level
        n_copies, n_clips = self._count_copies(item)
        trials = item.trials
        totals = [trial.total_s for trial in trials if trial.total_s is not None]
        return AnswerRow(
            configuration=item,
            contrast=contrast,
            share=share,
            retention=self._average_retention(item),
            n_copies=n_copies,
            n_clips=n_clips,
            params=next((t.trainable_params for t in trials if t.trainable_params is not None), None),
            total_s=math.fsum(totals) / len(totals) if totals else None,
        )

    def _average_retention(self, item: Configuration) -> float | None:
        if not self.view.results.planned.off_genre:
            return None
        encoder = self.metric.split("@")[0].rpartition("/")[2]
        ids = {trial.id for trial in item.trials}
        found = [
            record.retention
            for record in self.view.results.control
            if record.trial in ids
            and record.encoder == encoder
            and record.prompt is None
            and record.retention is not None
        ]
        return math.fsum(found) / len(found) if found else None

    def _count_copies(self, item: Configuration) -> tuple[int | None, int]:
        ids = {trial.id for trial in item.trials}
        counted = [
            (record.partial_code_copies_frac, record.n_clips)
            for record in self.view.results.guards
            if record.trial in ids
            and record.prompt is not None
            and record.partial_code_copies_frac is not None
            and record.n_clips is not None
        ]
        if not counted:
            return None, 0
        return round(math.fsum(share * n for share, n in counted)), sum(n for _, n in counted)

    @property
    def levels(self) -> str:
        """Zero-shot and real music on the primary metric, in one line."""
        known = {
            "zero-shot": self.level(self.view.zero_shot),
            "real against real": self.floor("real-vs-real"),
            "codec alone": self.floor("codec"),
        }
        parts = [
            f"{name} {format_value(value, digits=3) if value > 0.0 else 0}"  # below 0 by chance: an unbiased estimate
            for name, value in known.items()
            if value is not None
        ]
        return f"Levels of {self.metric}: {', '.join(parts)}." if parts else ""

    @property
    def meta(self) -> str:
        """The design in one line."""
        view = self.view
        generation, dataset = view.generation, view.results.dataset
        seeds = max((item.n_seeds for item in view.fine_tuned), default=0)
        parts = [
            view.results.name,
            str(view.results.model.name or "unknown model"),
            count_noun(len(view.fine_tuned), "LoRA configuration")
            + (f", {count_noun(seeds, 'training seed')} each" if seeds else ""),
        ]
        if dataset.train is not None and dataset.eval is not None:
            selection = (
                f"{dataset.selection.n_tracks} to select by, " if dataset.selection is not None else ""
            )
            parts.append(
                f"{count_noun(dataset.train.n_tracks, 'training track')} ({dataset.train.duration_s / 60:.0f} min), "
                f"{selection}{dataset.eval.n_tracks} held-out"
            )
        if generation.get("n_clips"):
            rounded = f", decoded in {generation['quantization']}" if generation.get("quantization") else ""
            parts.append(
                f"{generation['n_clips']} clips of {generation.get('clip_s', 0):g} s per prompt{rounded}"
            )
        direction = "lower is closer" if self.lower_is_better else "higher is better"
        return " \u00b7 ".join([*parts, f"primary metric {self.metric}, {direction}"])

    @property
    def advice(self) -> list[str]:
        """What limits the answer, and what to do next."""
        said = self._describe_looks()
        found = [row.contrast for row in self.compared if row.contrast is not None]
        if found and max(item.n_seeds for item in found) == 1:
            trained = [row.total_s for row in self.rows if row.total_s is not None]
            minutes = 2.0 * math.fsum(trained) / 60.0
            cost = f" (about {minutes:.0f} more minutes)" if minutes >= 1.0 else ""
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
        return said

    def _describe_looks(self) -> list[str]:
        """Return which configurations needed fewer clips than planned."""
        decided = self.view.results.decided
        if decided is None:
            return []
        looks = read_section(self.view.spec, "verdict").get("looks")
        counts = [str(n) for n in looks] if isinstance(looks, list) else []
        after = ", ".join(f"{name} after {n}" for name, n in decided.items() if str(n) in counts)
        return [
            f"Verdicts were looked at after {', '.join(counts)} clips per prompt, and intervals hold over all looks. "
            + (f"Fewer clips were enough for {after}." if after else "None was reached early.")
        ]
