"""A run as the sections look at it: configurations, metrics, prompts and the cells between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_bench.metrics import METRIC_NAMES, parse_metric
from lora_bench.report.formatting import text_width
from lora_bench.results.search_tally import UNTRIED
from lora_bench.results.trial import read_object

Json = dict[str, Any]

NO_DIFFERENCE = "no detectable difference"


@dataclass(frozen=True)
class Configuration:
    """One column of the tables: the zero-shot model, or a LoRA configuration with its training seeds."""

    name: str
    kind: str
    trials: tuple[Json, ...]

    @property
    def is_zero_shot(self) -> bool:
        """Whether this is the base model."""
        return self.kind == "zero-shot"

    @property
    def n_seeds(self) -> int:
        """Training seeds that were planned; 0 for the base model."""
        return 0 if self.is_zero_shot else len(self.trials)


@dataclass(frozen=True)
class CellValue:
    """What is known of one cell.

    Attributes:
        value: the score; the mean over training seeds if there are several; None if there is none.
        spread: standard error, over clips (`over` is `clips`) or over training seeds (`seeds`).
        low: lower end of what a plot draws; `high` the upper end.
        n_seeds: training seeds in `value`.
        corrected: the score without the bias of finite samples, which the interval belongs to.
        verdict: against zero-shot, in words, if it was tested.
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


_FLOOR_KEYS = ("floor", "prompt", "value", "corrected", "se", "n_generated", "n_reference")


class RunView:
    """Gathered results with the look-ups that sections need.

    Trials that a search left out are in `untried` and nowhere else.
    """

    def __init__(self, results: Mapping[str, Any], run_folder: Path) -> None:
        self.results = results
        self.run_folder = run_folder
        self.trials: list[Json] = [trial for trial in results["trials"] if trial.get("state") != UNTRIED]
        self.untried: list[Json] = [trial for trial in results["trials"] if trial.get("state") == UNTRIED]
        self.spec: Json = results.get("spec") or {}
        self._cells: dict[tuple[str, str, str, str | None], CellValue] = {}
        self._scores = {(t["id"], s["metric"], s["prompt"]): s for t in self.trials for s in t["scores"]}
        self._unscored = {
            (t["id"], s["metric"], s["prompt"]): s for t in self.trials for s in t.get("unscored") or []
        }
        self._comparisons = {(c["trial"], c["metric"], c.get("prompt")): c for c in self.part("comparisons")}

    def part(self, name: str) -> list[Json]:
        """`floors`, `comparisons` or `guards`; empty if the run has none."""
        return self.results.get(name) or []

    def floors(self, metric: str) -> list[Json]:
        """A metric's floors; those that differ in nothing but their source are one, and name none if all agree."""
        found = [floor for floor in self.part("floors") if floor.get("metric") == metric]
        groups: dict[tuple[Any, ...], list[Json]] = {}
        for floor in found:
            groups.setdefault(tuple(floor.get(key) for key in _FLOOR_KEYS), []).append(floor)
        merged: list[Json] = []
        for same in groups.values():
            n_of_kind = sum(floor["floor"] == same[0]["floor"] for floor in found)
            sources = " and ".join(str(floor["source"]) for floor in same if floor.get("source"))
            agree = n_of_kind == len(same) > 1
            merged.append({**same[0], "source": None if agree else sources or None})
        return merged

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Zero-shot first, then LoRA configurations in the plan's order, their seeds together."""
        groups: dict[tuple[str, str], list[Json]] = {}
        for trial in self.trials:
            name = trial.get("configuration") or trial["name"]
            groups.setdefault((trial["kind"], name), []).append(trial)
        made = [Configuration(name, kind, tuple(trials)) for (kind, name), trials in groups.items()]
        return sorted(made, key=lambda item: not item.is_zero_shot)

    @property
    def fine_tuned(self) -> list[Configuration]:
        """Configurations with an adapter."""
        return [item for item in self.configurations if not item.is_zero_shot]

    @property
    def zero_shot(self) -> Configuration | None:
        """The (first) base model's column."""
        return next((item for item in self.configurations if item.is_zero_shot), None)

    def base_of(self, configuration: Configuration) -> Configuration | None:
        """The zero-shot column with the same model, data and sampling; a study may have several."""
        wanted = configuration.trials[0].get("zero_shot")
        bases = [item for item in self.configurations if item.is_zero_shot]
        return next((item for item in bases if item.trials[0]["id"] == wanted), self.zero_shot)

    @cached_property
    def metrics(self) -> list[str]:
        """Planned metrics in order, then others that were scored."""
        seen = [
            cell["metric"]
            for trial in self.trials
            for cell in (*trial["scores"], *(trial.get("unscored") or []))
        ]
        return list(dict.fromkeys([*(self.results.get("planned") or {}).get("metrics", []), *seen]))

    @cached_property
    def prompts(self) -> list[str]:
        """Planned prompts in order, then others that were scored."""
        seen = [
            cell["prompt"]
            for trial in self.trials
            for cell in (*trial["scores"], *(trial.get("unscored") or []))
        ]
        planned = (self.results.get("planned") or {}).get("prompts", [])
        return [prompt for prompt in dict.fromkeys([*planned, *seen]) if prompt is not None]

    @cached_property
    def names_of_trials(self) -> dict[str, str]:
        """A name per trial id that is unique."""
        counts = Counter(trial["name"] for trial in self.trials)
        return {t["id"]: t["name"] if counts[t["name"]] == 1 else t["id"] for t in self.trials}

    def score(self, trial_id: str, metric: str, prompt: str | None) -> Json | None:
        """The score of one trial, or None."""
        return self._scores.get((trial_id, metric, prompt))

    def clip_counts(self, metric: str, prompt: str | None) -> set[int]:
        """Numbers of generated clips behind the scores of a row."""
        scores = (self.score(trial["id"], metric, prompt) for trial in self.trials)
        return {int(score["n_generated"]) for score in scores if score and score.get("n_generated")}

    def comparison(self, trial_id: str, metric: str, prompt: str | None) -> Json | None:
        """The comparison of one trial with zero-shot, or None."""
        return self._comparisons.get((trial_id, metric, prompt))

    def cell(self, configuration: Configuration, metric: str, prompt: str | None) -> CellValue:
        """Score of a configuration: its trial's, or mean and standard error over its training seeds."""
        key = (configuration.kind, configuration.name, metric, prompt)
        if key not in self._cells:
            self._cells[key] = self._make_cell(configuration, metric, prompt)
        return self._cells[key]

    def _make_cell(self, configuration: Configuration, metric: str, prompt: str | None) -> CellValue:
        ids = [trial["id"] for trial in configuration.trials]
        scores = [score for score in (self.score(trial_id, metric, prompt) for trial_id in ids) if score]
        gaps = [gap for gap in (self._unscored.get((trial_id, metric, prompt)) for trial_id in ids) if gap]
        reasons = tuple(dict.fromkeys(str(gap["reason"]) for gap in gaps))
        if not scores:
            return CellValue(None, state=_gap_word(configuration, gaps), reasons=reasons)
        verdict = _join_verdicts([self.comparison(trial_id, metric, prompt) for trial_id in ids])
        if len(ids) > 1:
            return _aggregate_seeds(scores, verdict, reasons)
        only = scores[0]
        value = float(only["value"])
        spread, low, high = only.get("se"), only.get("ci_low"), only.get("ci_high")
        if spread is not None and (low is None or high is None):
            low, high = value - spread, value + spread
        over = "clips" if spread is not None else None
        return CellValue(value, spread, over, low, high, 1, only.get("corrected"), verdict)

    def curve(self, trial: Json) -> list[Json]:
        """Loss curve of a trial; empty if it was not trained or its file is damaged (results say so)."""
        train = read_object(self.run_folder / "trials" / trial["id"] / "train.json", [])
        return (train or {}).get("curve") or []

    @cached_property
    def track_sources(self) -> dict[str, str]:
        """File of each track of the datasets by the track's id; empty if the run does not tell."""
        found: dict[str, str] = {}
        for folder in self.source_folders:
            described = read_object(folder / "dataset.json", []) or {}
            tracks: list[Json] = (described.get("manifest") or described).get("tracks") or []
            found |= {str(track.get("id")): str(track.get("source")) for track in tracks}
        return found

    @property
    def source_folders(self) -> list[Path]:
        """Where the data of each source are described; the run's folder alone where there is one."""
        folders = [str(source["folder"]) for source in self.results.get("sources") or []]
        return [self.run_folder / folder for folder in folders or ["."]]

    @cached_property
    def long_prompts(self) -> dict[str, str]:
        """A mark such as `P3` for each prompt that tables shorten."""
        return {
            prompt: f"P{index}"
            for index, prompt in enumerate(self.prompts, start=1)
            if text_width(prompt) > 56 or "\n" in prompt
        }


def is_higher_better(metric: str) -> bool:
    """Whether a larger value is the better one; distances are better when small."""
    return metric in METRIC_NAMES and not parse_metric(metric).lower_is_better


def name_floor(floor: dict[str, Any]) -> str:
    """A floor's name, with the data it was measured on where a run has several."""
    return f"{floor['floor']} ({floor['source']})" if floor.get("source") else str(floor["floor"])


def arrow(metric: str) -> str:
    """The direction in which a metric gets better."""
    return "\u2191" if is_higher_better(metric) else "\u2193"


def _gap_word(configuration: Configuration, gaps: list[Json]) -> str:
    states = [trial["state"] for trial in configuration.trials if trial["state"] != "done"]
    if "stopped" in states:
        return "stopped early"
    if gaps and all(gap.get("cause") == "stated" for gap in gaps):
        return "unscored"
    return states[0] if states else "missing"


def _aggregate_seeds(scores: list[Json], verdict: str | None, reasons: tuple[str, ...]) -> CellValue:
    """Mean and its standard error over training seeds; one value has no standard error."""
    mean, error = _average([float(score["value"]) for score in scores])
    known = [float(score["corrected"]) for score in scores if score.get("corrected") is not None]
    corrected, corrected_error = _average(known) if len(known) == len(scores) else (None, error)
    centre = mean if corrected is None else corrected
    low, high = (
        (None, None) if corrected_error is None else (centre - corrected_error, centre + corrected_error)
    )
    over = None if error is None else "seeds"
    return CellValue(mean, error, over, low, high, len(scores), corrected, verdict, reasons=reasons)


def _average(values: list[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None from one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _join_verdicts(comparisons: list[Json | None]) -> str | None:
    """One verdict if all training seeds agree, else how many said what."""
    words = [str(item["verdict"]) for item in comparisons if item and item.get("verdict")]
    if not words:
        return None
    counts = Counter(words)
    if len(counts) == 1:
        return words[0]
    return "mixed: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
