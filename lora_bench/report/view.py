"""The view of a run that report sections share: configurations, metrics, prompts and cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lora_bench.metrics.names import is_higher_better
from lora_bench.planning.run_folder import RunFolder, SourceFolder
from lora_bench.report.formatting import text_width
from lora_bench.results.external import ExternalRecord
from lora_bench.results.reading import read_part
from lora_bench.results.records import Contrast, Floor, ScoreRecord, UnscoredCell
from lora_bench.results.run_files import CurvePoint, DatasetFile, ManifestEntry, TrackEntry, TrainFile
from lora_bench.results.run_records import RunResults, TrialKind, TrialResult
from lora_bench.results.search_tally import UNTRIED
from lora_bench.results.settings import read_section
from lora_bench.results.trial_states import name_state


@dataclass(frozen=True)
class Configuration:
    """One column of the tables: the zero-shot model, a LoRA configuration with its seeds, or another system."""

    name: str
    kind: TrialKind
    trials: tuple[TrialResult, ...]

    @property
    def is_zero_shot(self) -> bool:
        """Return whether this is the base model."""
        return self.kind == "zero-shot"

    @property
    def is_existing(self) -> bool:
        """Return whether its adapter was not trained in this run."""
        return self.trials[0].existing_adapter is not None

    @property
    def external(self) -> ExternalRecord | None:
        """Another system whose clips these are; None for those of the model."""
        return self.trials[0].external

    @property
    def n_seeds(self) -> int:
        """Number of training seeds that were planned; 0 where nothing is trained."""
        return len(self.trials) if self.kind == "fine-tuned" and not self.is_existing else 0


@dataclass(frozen=True)
class CellValue:
    """Score of one cell, and what is known of it.

    Attributes:
        value: the score; the mean over training seeds if there are several; None if there is none.
        spread: standard error, over clips (`over` is `clips`) or over training seeds (`seeds`).
        low: lower end of what a plot draws; `high` the upper end.
        n_seeds: training seeds in `value`.
        corrected: the score without the bias of finite samples, which the interval belongs to.
        verdict: against zero-shot; None on what is descriptive.
        state: why there is no value, in one word.
        reasons: why values are absent, in sentences.
    """

    value: float | None
    spread: float | None = None
    over: str | None = None
    low: float | None = None
    high: float | None = None
    n_seeds: int = 0
    corrected: float | None = None
    verdict: str | None = None
    state: str = ""
    reasons: tuple[str, ...] = ()


class RunView:
    """Gathered results with the look-ups that sections need.

    Trials that a search left out are in `untried` and nowhere else.
    """

    def __init__(self, results: RunResults, run_folder: Path) -> None:
        self.results = results
        self.folder = RunFolder(run_folder)
        self.trials = [trial for trial in results.trials if trial.state != UNTRIED]
        self.untried = [trial for trial in results.trials if trial.state == UNTRIED]
        self.spec = results.spec
        self.generation = read_section(results.spec, "generation")
        self._cells: dict[tuple[str, str, str, str | None], CellValue] = {}
        self._corrected: dict[str, bool] = {}
        self._scores = {(t.id, s.metric, s.prompt): s for t in self.trials for s in t.scores}
        self._unscored = {(t.id, s.metric, s.prompt): s for t in self.trials for s in t.unscored}
        self._contrasts = {
            (c.configuration, c.metric, c.prompt): c for c in results.contrasts if c.kind == "zero-shot"
        }

    def floors(self, metric: str) -> list[Floor]:
        """Return a metric's reference levels.

        Those that differ in nothing but their source are one; it names no source if all agree.
        """
        found = [floor for floor in self.results.floors if floor.metric == metric]
        groups: dict[tuple[object, ...], list[Floor]] = {}
        for floor in found:
            facts = (floor.value, floor.corrected, floor.se, floor.n_generated, floor.n_reference)
            groups.setdefault((floor.floor, floor.prompt, *facts), []).append(floor)
        merged: list[Floor] = []
        for same in groups.values():
            n_of_kind = sum(floor.floor == same[0].floor for floor in found)
            sources = " and ".join(floor.source for floor in same if floor.source)
            agree = n_of_kind == len(same) > 1
            merged.append(same[0].model_copy(update={"source": None if agree else sources or None}))
        return merged

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Zero-shot first, then LoRA configurations in the plan's order, their seeds together."""
        groups: dict[tuple[TrialKind, str], list[TrialResult]] = {}
        for trial in self.trials:
            groups.setdefault((trial.kind, trial.configuration), []).append(trial)
        made = [Configuration(name, kind, tuple(trials)) for (kind, name), trials in groups.items()]
        return sorted(made, key=lambda item: not item.is_zero_shot)

    @cached_property
    def fine_tuned(self) -> list[Configuration]:
        """Configurations with an adapter."""
        return [item for item in self.configurations if item.kind == "fine-tuned"]

    @cached_property
    def systems(self) -> list[Configuration]:
        """Other systems."""
        return [item for item in self.configurations if item.external is not None]

    @cached_property
    def rivals(self) -> list[Configuration]:
        """All that is compared with zero-shot: configurations with an adapter, and other systems."""
        return [item for item in self.configurations if not item.is_zero_shot]

    @cached_property
    def adapter_kinds(self) -> dict[str, str]:
        """Kind of adapter by configuration; empty if all have the same."""
        kinds = {item.name: str((item.trials[0].lora or {}).get("kind", "lora")) for item in self.fine_tuned}
        return kinds if len(set(kinds.values())) > 1 else {}

    @cached_property
    def zero_shot(self) -> Configuration | None:
        """The (first) base model's column."""
        return next(iter(self.bases), None)

    @cached_property
    def bases(self) -> list[Configuration]:
        """The base models' columns."""
        return [item for item in self.configurations if item.is_zero_shot]

    @cached_property
    def _bases(self) -> dict[str | None, Configuration]:
        """Zero-shot columns by the id of their trial."""
        return {item.trials[0].id: item for item in self.bases}

    def base_of(self, configuration: Configuration) -> Configuration | None:
        """Return the zero-shot column with the same model, data and sampling; a study may have several."""
        return self._bases.get(configuration.trials[0].zero_shot, self.zero_shot)

    def _list_cells(self) -> Iterator[ScoreRecord | UnscoredCell]:
        for trial in self.trials:
            yield from trial.scores
            yield from trial.unscored

    @cached_property
    def metrics(self) -> list[str]:
        """Planned metrics in order, then others that were scored."""
        return list(
            dict.fromkeys((*self.results.planned.metrics, *(cell.metric for cell in self._list_cells())))
        )

    @cached_property
    def prompts(self) -> list[str]:
        """Planned prompts in order, then others that were scored."""
        seen = (cell.prompt for cell in self._list_cells())
        return [
            prompt for prompt in dict.fromkeys((*self.results.planned.prompts, *seen)) if prompt is not None
        ]

    @property
    def primary_metric(self) -> str | None:
        """The metric that verdicts are given on."""
        return self.results.planned.primary_metric

    @property
    def pooled(self) -> str:
        """What the row of several prompts stands for."""
        return "the genre's prompts" if self.results.planned.off_genre else "all prompts"

    @cached_property
    def names_of_trials(self) -> dict[str, str]:
        """A name per trial id that is unique."""
        counts = Counter(trial.name for trial in self.trials)
        return {trial.id: trial.name if counts[trial.name] == 1 else trial.id for trial in self.trials}

    def name_trial(self, trial_id: str) -> str:
        """Return the unique name of a trial; the id itself where the run has no such trial."""
        return self.names_of_trials.get(trial_id, trial_id)

    def score(self, trial_id: str, metric: str, prompt: str | None) -> ScoreRecord | None:
        """Return the score of one trial, or None."""
        return self._scores.get((trial_id, metric, prompt))

    def scores_on(self, metric: str) -> list[ScoreRecord]:
        """Return all trials' scores on a metric."""
        return [score for trial in self.trials for score in trial.scores if score.metric == metric]

    def clip_counts(self, metric: str, prompt: str | None) -> set[int]:
        """Return the numbers of generated clips behind the scores of a row."""
        scores = (self.score(trial.id, metric, prompt) for trial in self.trials)
        return {score.n_generated for score in scores if score is not None and score.n_generated}

    def contrast(self, configuration: str, metric: str, prompt: str | None) -> Contrast | None:
        """Return the contrast of a configuration with zero-shot, or None."""
        return self._contrasts.get((configuration, metric, prompt))

    def cell(self, configuration: Configuration, metric: str, prompt: str | None) -> CellValue:
        """Return a configuration's score: its trial's, or mean and standard error over its training seeds."""
        key = (configuration.kind, configuration.name, metric, prompt)
        if key not in self._cells:
            self._cells[key] = self._make_cell(configuration, metric, prompt)
        return self._cells[key]

    def _make_cell(self, configuration: Configuration, metric: str, prompt: str | None) -> CellValue:
        ids = [trial.id for trial in configuration.trials]
        scores = [score for score in (self.score(trial_id, metric, prompt) for trial_id in ids) if score]
        gaps = [gap for gap in (self._unscored.get((trial_id, metric, prompt)) for trial_id in ids) if gap]
        reasons = tuple(dict.fromkeys(gap.reason for gap in gaps))
        if not scores:
            return CellValue(None, state=_gap_word(configuration, gaps), reasons=reasons)
        contrast = self.contrast(configuration.name, metric, prompt)
        verdict = contrast.verdict if contrast is not None and not configuration.is_zero_shot else None
        if len(ids) > 1:
            return _aggregate_seeds(scores, verdict, reasons)
        only = scores[0]
        spread, low, high = only.se, only.ci_low, only.ci_high
        if spread is not None and (low is None or high is None):
            low, high = only.value - spread, only.value + spread
        over = "clips" if spread is not None else None
        return CellValue(only.value, spread, over, low, high, 1, only.corrected, verdict)

    def is_corrected(self, metric: str) -> bool:
        """Return whether all values of a metric, reference levels too, are known without the bias of finite samples."""
        if metric not in self._corrected:
            known = [*self.scores_on(metric), *self.floors(metric)]
            self._corrected[metric] = bool(known) and all(score.corrected is not None for score in known)
        return self._corrected[metric]

    def value(self, cell: CellValue, metric: str) -> float | None:
        """Return what the front of a report shows: corrected if the whole metric is, else as other tools compute it."""
        return cell.corrected if self.is_corrected(metric) else cell.value

    def curve(self, trial: TrialResult) -> tuple[CurvePoint, ...]:
        """Return the loss curve of a trial; empty if it was not trained or its file is damaged (results say so)."""
        train = read_part(self.folder.trial(trial.id).train, TrainFile, [])
        return () if train is None else train.curve

    @cached_property
    def manifests(self) -> list[ManifestEntry]:
        """Prepared datasets; empty if the run does not tell."""
        files = (read_part(folder.dataset, DatasetFile, []) for folder in dict.fromkeys(self.source_folders))
        return [file.manifest for file in files if file is not None]

    @property
    def tracks(self) -> list[TrackEntry]:
        """Tracks of all datasets; empty if the run does not tell."""
        return [track for manifest in self.manifests for track in manifest.tracks]

    @property
    def track_sources(self) -> dict[str, str]:
        """File of each track by the track's id."""
        return {track.id: track.source for track in self.tracks if track.id and track.source}

    @property
    def source_folders(self) -> list[SourceFolder]:
        """Folders of the sources; the run's folder alone where there is one."""
        return [self.folder.source(Path(item.folder)) for item in self.results.sources] or [
            self.folder.source(Path())
        ]

    @cached_property
    def long_prompts(self) -> dict[str, str]:
        """A mark such as `P3` for each prompt that tables shorten."""
        return {
            prompt: f"P{index}"
            for index, prompt in enumerate(self.prompts, start=1)
            if text_width(prompt) > 56 or "\n" in prompt
        }


def name_floor(floor: Floor) -> str:
    """Return a reference level's name, with the data it was measured on where a run has several."""
    return f"{floor.floor} ({floor.source})" if floor.source else floor.floor


def arrow(metric: str) -> str:
    """Return the direction in which a metric gets better."""
    return "\u2191" if is_higher_better(metric) else "\u2193"


def _gap_word(configuration: Configuration, gaps: Sequence[UnscoredCell]) -> str:
    states = [name_state(trial.state) for trial in configuration.trials if trial.state != "done"]
    if "stopped early" in states:
        return "stopped early"
    if gaps and all(gap.cause == "stated" for gap in gaps):
        return "unscored"
    return states[0] if states else "missing"


def _aggregate_seeds(
    scores: Sequence[ScoreRecord], verdict: str | None, reasons: tuple[str, ...]
) -> CellValue:
    """Return mean and standard error over training seeds; one value has no standard error."""
    mean, error = _average([score.value for score in scores])
    known = [score.corrected for score in scores if score.corrected is not None]
    corrected, corrected_error = _average(known) if len(known) == len(scores) else (None, error)
    centre = mean if corrected is None else corrected
    low, high = (
        (None, None) if corrected_error is None else (centre - corrected_error, centre + corrected_error)
    )
    over = None if error is None else "seeds"
    return CellValue(mean, error, over, low, high, len(scores), corrected, verdict, reasons=reasons)


def _average(values: list[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; None from one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
