"""The answer of a run: did fine-tuning help, by how much, how sure; one row per configuration.

The page, the markdown and the command line show this, in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lora_bench.metrics.names import MELODY_AGREEMENT, TAG_ADHERENCE, is_higher_better, is_rating
from lora_bench.metrics.verdicts import Verdict
from lora_bench.report.formatting import MINUS, clean_text, format_change, format_difference, join_words
from lora_bench.report.view import Configuration, RunView
from lora_bench.results.records import Contrast
from lora_bench.results.run_records import RESULTS_SCHEMA
from lora_bench.results.settings import read_section
from lora_bench.results.trial_states import explain_state, name_state

CHOSEN = "the best on the selection tracks"
MAX_SYSTEMS = 3
_PROMPT_RATINGS = {
    MELODY_AGREEMENT: "the agreement of clips with their melodies",
    TAG_ADHERENCE: "the adherence of clips to the tags of their prompts",
}


@dataclass(frozen=True)
class AnswerRow:
    """One configuration, or another system.

    Attributes:
        contrast: with zero-shot on the primary metric over the genre's prompts; None if it was not compared.
        share: the change as a share of the zero-shot level; None where that is not positive.
        retention: of off-genre prompts, mean over training seeds (1: nothing moved); None if there are none.
        n_copies: clips whose codes copy the training set; None if that was not measured.
        n_clips: clips that were searched for copies.
        params: parameters of the adapter; None of another system.
        total_s: seconds of all stages, mean over training seeds; None of another system.
        lacking: why there is no verdict; empty if there is one.
    """

    configuration: Configuration
    contrast: Contrast | None
    share: float | None
    retention: float | None
    n_copies: int | None
    n_clips: int
    params: float | None
    total_s: float | None
    lacking: str

    @property
    def verdict(self) -> str:
        """The verdict, or why there is none."""
        if self.contrast is None:
            states = [name_state(trial.state) for trial in self.configuration.trials if trial.state != "done"]
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
        """Configurations with an adapter and other systems, the best first, those that were not compared last.

        The selection side decides what is best where the dataset has one, else the change itself.
        """
        return sorted((self._make_row(item) for item in self.view.rivals), key=self._rank)

    @cached_property
    def has_selection(self) -> bool:
        """Whether tracks that enter no verdict decide the order."""
        return any(self._average_selection(item) is not None for item in self.view.rivals)

    def _rank(self, row: AnswerRow) -> tuple[bool, float]:
        sign = 1.0 if self.lower_is_better else -1.0
        if self.has_selection:
            value = self._average_selection(row.configuration)
        elif row.contrast is not None:
            value = row.contrast.delta
        else:
            value = self.level(row.configuration)
        return row.contrast is None, math.inf if value is None else sign * value

    def _average_selection(self, item: Configuration) -> float | None:
        """Return the mean score over training seeds on the tracks to select by; None if a training has none."""
        found = [
            score.best_value
            for trial in item.trials
            for score in trial.selection
            if score.metric == self.metric and score.prompt is None
        ]
        return math.fsum(found) / len(found) if len(found) == len(item.trials) else None

    @cached_property
    def compared(self) -> list[AnswerRow]:
        """Rows with a contrast."""
        return [row for row in self.rows if row.contrast is not None]

    @cached_property
    def tuned(self) -> list[AnswerRow]:
        """Rows of configurations with an adapter that have a contrast."""
        return [row for row in self.compared if row.configuration.external is None]

    def level(self, configuration: Configuration | None) -> float | None:
        """Return a configuration's value over the genre's prompts, as the tables of the front show it."""
        if configuration is None:
            return None
        return self.view.value(self.view.cell(configuration, self.metric, None), self.metric)

    @property
    def is_zero_shot_only(self) -> bool:
        """Whether the spec asks for the base model alone."""
        return bool(read_section(self.view.spec, "trials").get("zero_shot_only"))

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        if not self.tuned:
            return self._say_no_comparison()
        groups = {verdict: [r for r in self.tuned if r.verdict == verdict] for verdict in Verdict}
        better, worse = groups[Verdict.BETTER], groups[Verdict.WORSE]
        if better:
            farther = f"; {len(worse)} moved it farther" if worse else ""
            return f"{self._say_move(better, better=True)}{farther}{self._say_retention(better[0])}."
        if worse:
            return f"{self._say_move(worse if self.has_selection else worse[::-1], better=False)}."
        if len(groups[Verdict.EQUIVALENT]) == len(self.tuned):
            changes = [row.contrast for row in self.tuned if row.contrast is not None]
            if all(change.delta == 0.0 == change.se for change in changes):  # there may be no margin
                return "Fine-tuning changes nothing: every clip scores the same as zero-shot's."
            return "Fine-tuning makes no difference that matters: every change is within the margin."
        best = self.tuned[0]
        if best.contrast is None or best.contrast.se is None:
            return (
                "Whether fine-tuning helps is not known: there are too few clips or tracks for an interval."
            )
        which = (
            f"the change of {best.configuration.name}, {CHOSEN}," if self.has_selection else "the best change"
        )
        largest = f"{which} is {best.change}, and this design finds {best.detectable} and more"
        return f"Whether fine-tuning helps is not settled: {largest}."

    def _say_no_comparison(self) -> str:
        view = self.view
        if self.is_zero_shot_only:
            several = "s" if len(view.bases) > 1 else ""
            return f"These are the scores of the base model{several} alone: no adapter was asked for."
        if not view.rivals or view.zero_shot is None:
            return "There is nothing to compare zero-shot with."
        if not view.fine_tuned:
            return self._say_systems()
        if view.results.schema_version < RESULTS_SCHEMA:
            return "These results are of an earlier version, without today's verdicts; run the spec again to get them."
        return "No fine-tuned configuration was compared with zero-shot, so the effect of fine-tuning is unknown."

    def _say_move(self, rows: Sequence[AnswerRow], *, better: bool) -> str:
        first, n = rows[0], len(self.tuned)
        change = first.change.lstrip(f"+{MINUS}")
        subject, where = ("the music", "the genre") if self.lower_is_better else ("clips", "their prompts")
        direction = f"{'closer to' if better else 'farther from'} {where}"
        rated = "the rating of clips" if is_rating(self.metric) else _PROMPT_RATINGS.get(self.metric)
        if rated is not None:
            subject, direction = rated, "up" if better else "down"
        if n == 1:
            return f"Fine-tuning moved {subject} {change} {direction}"
        most = "" if len(rows) == 1 else f", {CHOSEN}" if self.has_selection else " most"
        whole = "both configurations" if n == 2 else f"all {n} configurations"
        who = whole.capitalize() if len(rows) == n else f"{len(rows)} of {n} configurations"
        return f"{who} moved {subject} {direction}: {first.configuration.name}{most}, by {change}"

    def _say_systems(self) -> str:
        """Return the outcome of a run without trainings: the verdict on each of a few other systems."""
        words = [
            f"{row.configuration.name} is {row.verdict} ({row.change})" for row in self.compared[:MAX_SYSTEMS]
        ]
        if not words:
            return "No other system was compared with zero-shot."
        more = f", and {len(self.compared) - len(words)} more" if len(self.compared) > len(words) else ""
        return f"Compared with zero-shot, {join_words(words)}{more}."

    def _say_retention(self, row: AnswerRow) -> str:
        if row.retention is None:
            return ""
        if row.retention > 0.995:
            return "; clips of off-genre prompts did not move"
        moved = format_change(1.0 - row.retention).lstrip("+")
        return f"; clips of off-genre prompts moved {moved} of the way, too"

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
            params=next((t.adapter_params for t in trials if t.adapter_params is not None), None),
            total_s=math.fsum(totals) / len(totals) if totals and item.external is None else None,
            lacking=self._explain_lack(item, contrast),
        )

    def _explain_lack(self, item: Configuration, contrast: Contrast | None) -> str:
        """Return why there is no verdict: of the configuration, else of what it is compared with."""
        if contrast is not None:
            return (
                ""
                if contrast.verdict
                else contrast.note or "there are too few clips or tracks for an interval"
            )
        base = self.view.base_of(item)
        for side in (item, base) if base is not None else (item,):
            told = [explain_state(trial) for trial in side.trials if trial.state != "done"]
            if told:
                return clean_text(told[0] if side is item else f"{side.name} {told[0]}")
            unscored = self.view.cell(side, self.metric, None).reasons
            if unscored:
                return clean_text(unscored[0] if side is item else f"{side.name}: {unscored[0]}")
        if base is None:
            return "zero-shot was not run"
        if self.view.results.schema_version < RESULTS_SCHEMA:
            return "results of an earlier version; run the spec again"
        missing = (
            each.reason
            for each in self.view.results.missing_contrasts
            if (each.metric, each.prompt) == (self.metric, None)
            and (each.configuration, each.against) == (item.name, base.name)
        )
        return clean_text(next(missing, "no comparison was written; resume the run"))

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
