"""Two runs or trials side by side: their cells, resources and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from lora_bench.comparison.across_runs import compare_pair, find_trial_files
from lora_bench.results.records import Contrast, Settings
from lora_bench.results.run_records import RunResults, TrialResult
from lora_bench.results.settings import read_section
from lora_bench.results.trial_states import explain_state
from lora_bench.spec.configurations import drop_effect_free, find_differences
from lora_bench.spec.grid import show_value

# A difference in any of these makes two scores answers to different questions.
_PAIRED_BY = ("dataset", "generation", "prompts")
TEST_FIELDS = {"delta", "ci_low", "ci_high", "detectable", "primary", "verdict", "n_pairs", "paired"}

Key = tuple[str, str | None]


@dataclass(frozen=True)
class Side:
    """A run, or one trial of it.

    Attributes:
        folder: of the run; None for a `results.json` without one.
        trial: the trial that was asked for; None for the whole run.
    """

    results: RunResults
    folder: Path | None
    trial: TrialResult | None

    @property
    def label(self) -> str:
        """Name of the run, with the trial's."""
        name = self.results.name
        return name if self.trial is None else f"{name}:{self.trial.name}"


Pair = tuple[str, TrialResult | None, TrialResult | None]


@dataclass(frozen=True)
class CellPair:
    """One cell of both sides, and the contrast of B with A; what is absent is None."""

    trial: str
    metric: str
    prompt: str | None
    first: float | None
    second: float | None
    delta: float | None
    test: Contrast | None

    def list_fields(self) -> Mapping[str, object]:
        """Return the cell as JSON; the difference of its test is corrected for the bias of finite samples."""
        test = None if self.test is None else self.test.model_dump(include=TEST_FIELDS)
        return {**vars(self), "test": test}


@dataclass(frozen=True)
class Resources:
    """Resources of a trial; None where they are unknown."""

    params: int | None = None
    train_s: float | None = None
    total_s: float | None = None
    memory_gib: float | None = None


def list_resources(trial: TrialResult | None) -> Resources:
    """Return the resources of a trial; all unknown where there is no trial."""
    if trial is None:
        return Resources()
    return Resources(trial.adapter_params, trial.wall_s.get("train"), trial.total_s, trial.peak_memory_gib)


def pair_trials(first: Side, second: Side) -> list[Pair]:
    """Return trials that belong together: those asked for, else those of one name, in the first's order."""
    if first.trial is not None and second.trial is not None:
        names = dict.fromkeys((first.trial.name, second.trial.name))
        return [(" / ".join(names), first.trial, second.trial)]
    one, other = ({trial.name: trial for trial in side.results.trials} for side in (first, second))
    return [(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]


def explain_lack(pairs: Sequence[Pair], untested: Mapping[str, Sequence[str]], primary: str | None) -> str:
    """Return why no pair of trials has a verdict.

    Args:
        pairs: all of them.
        untested: reasons for missing tests, with the trials.
        primary: the metric that verdicts are given on; None if the run names none.
    """
    both = [(one, other) for _, one, other in pairs if one is not None and other is not None]
    if not both:
        return "the runs have no trial of the same name; name one of each, such as runs/a:r4 runs/b:r8"
    unfinished = [trial for pair in both for trial in pair if trial.state != "done"]
    if unfinished:
        return f"{unfinished[0].name} is not done ({explain_state(unfinished[0])})"
    if untested:
        return "; ".join(untested)
    return f"the metric that decides, {primary}, has no score on both sides"


def compare_cells(
    pairs: Sequence[Pair], first: Side, second: Side
) -> tuple[list[CellPair], dict[str, list[str]]]:
    """Return every cell of either side, and why trials were not tested."""
    cells: list[CellPair] = []
    untested: dict[str, list[str]] = {}
    for name, one, other in pairs:
        values, others = _index_scores(one), _index_scores(other)
        tests: Mapping[Key, Contrast] = {}
        if one is not None and other is not None:
            files = find_trial_files(first.folder, one), find_trial_files(second.folder, other)
            metrics = list(dict.fromkeys(metric for metric, _ in values if (metric, None) in others))
            primary = first.results.planned.primary_metric or next(iter(metrics), "")
            tests, reasons = compare_pair(*files, metrics, primary)
            for reason in reasons:
                untested.setdefault(reason, []).append(name)
        for key in dict.fromkeys((*values, *others)):
            a, b = values.get(key), others.get(key)
            is_alike = key[1] is not None or _list_prompts(values, key[0]) == _list_prompts(others, key[0])
            delta = b - a if a is not None and b is not None and is_alike else None
            cells.append(CellPair(name, *key, a, b, delta, tests.get(key)))
    return cells, untested


def _list_prompts(scores: Mapping[Key, float], metric: str) -> set[str | None]:
    """Return the prompts that a trial has scores for; the pooled ones of other prompts are no difference."""
    return {prompt for name, prompt in scores if name == metric}


def _index_scores(trial: TrialResult | None) -> dict[Key, float]:
    return {(s.metric, s.prompt): s.value for s in (trial.scores if trial is not None else ())}


def find_warnings(first: RunResults, second: RunResults) -> list[str]:
    """Return what makes the columns answers to different questions."""
    warnings: list[str] = []
    one, other = (_drop_counts(results.spec) for results in (first, second))
    for name in _PAIRED_BY:
        if one.get(name) != other.get(name):
            fields = find_differences({name: one.get(name)}, {name: other.get(name)})
            warnings.append(f"the runs differ in {', '.join(fields)}; their scores are not paired")
    melodies = [_list_melodies(results) for results in (first, second)]
    if all(melodies) and melodies[0] != melodies[1]:  # a folder of the same name may hold other files
        warnings.append("the clips of the runs follow different melodies")
    for label, results in (("A", first), ("B", second)):
        if not results.complete:
            warnings.append(f"{label} ({results.name}) is incomplete")
    return warnings


def _list_melodies(results: RunResults) -> set[str]:
    """Return the hashes of the melodies that clips follow."""
    scores = (score for trial in results.trials for score in trial.scores)
    known = (score.provenance.get("melodies_hash") for score in scores)
    return {found for found in known if isinstance(found, str)}


def _drop_counts(spec: Settings) -> Settings:
    """Return a spec without the number of clips and the batch size, which do not decide if clips are pairs."""
    generation = dict(read_section(spec, "generation"))
    return {**spec, **drop_effect_free({"generation": generation})}


def find_changes(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return settings in which the two sides of a pair differ: `lora.rank 8 -> 16`."""
    found: dict[str, list[str]] = {}
    for name, first, second in pairs:
        if first is None or second is None:
            continue
        one, other = (
            {"lora": dict(trial.lora or {}), "train": dict(trial.train or {})} for trial in (first, second)
        )
        changes = [
            f"{field} {show_value(_look_up(one, field))} -> {show_value(_look_up(other, field))}"
            for field in find_differences(one, other)
        ]
        if changes:
            found[name] = changes
    return found


def _look_up(settings: Settings, dotted: str) -> JsonValue:
    *sections, name = dotted.split(".")
    return read_section(settings, *sections).get(name)
