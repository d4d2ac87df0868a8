"""Comparability of results of several runs: they share a table if data, metric and protocol agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from lora_bench.report.formatting import MISSING, count_noun, write_setting
from lora_bench.report.view import CellValue, Configuration, RunView
from lora_bench.results.records import Settings
from lora_bench.results.run_files import RunPlan
from lora_bench.results.run_records import DatasetSummary

SAMPLING = {
    "n_clips": "clips per prompt",
    "clip_s": "clip length (s)",
    "guidance": "guidance scale",
    "temperature": "temperature",
    "top_k": "top k",
    "seed": "noise seed",
    "quantization": "quantization",
}

NOT_OF_THE_METRIC = {"model", "model_weights_hash", "train_seed", "decoding", "adapter_scale"}
"""Facts about the clips, not the metric: a table compares models and adapters.  Weights count by their hash, if any."""
OF_SAMPLING = ("metric's sampling", "metric's generation seed")
OF_SYSTEMS = (
    *OF_SAMPLING,
    "metric's clips hash",
    "metric's generated audio",
    "metric's generated codec hash",
)
"""Facts of another system's clips, not of the metric."""


@dataclass(frozen=True)
class Entry:
    """One configuration of one run on one metric, over all prompts.

    Attributes:
        facts: everything that has to agree with another entry's for the two to be comparable, by name.
    """

    run: RunView
    configuration: Configuration
    metric: str
    cell: CellValue
    facts: Settings

    @property
    def run_name(self) -> str:
        """Name of the run."""
        return self.run.results.name

    @property
    def order(self) -> float:
        """Value that is ranked: without the bias of finite samples where that is known."""
        value = self.cell.value if self.cell.corrected is None else self.cell.corrected
        return float("nan") if value is None else value


def list_entries(run: RunView, plan: RunPlan | None) -> list[Entry]:
    """Return the scored configurations of a run.

    Args:
        run: the run.
        plan: its plan, for the sampling of each trial; None if it is absent.
    """
    generations = {trial.id: trial.generation for trial in plan.trials} if plan is not None else {}
    found: list[Entry] = []
    for configuration in run.configurations:
        sampling = generations.get(configuration.trials[0].id) or run.generation
        for metric in run.metrics:
            cell = run.cell(configuration, metric, None)
            if cell.value is None:
                continue
            facts = _list_facts(run, configuration, metric, sampling)
            base = run.base_of(configuration)
            if (
                configuration.external is not None
                and base is not None
                and run.cell(base, metric, None).value is not None
            ):
                facts = _take_sampling(facts, _list_facts(run, base, metric, sampling))
            found.append(Entry(run, configuration, metric, cell, facts))
    return found


def _list_facts(run: RunView, configuration: Configuration, metric: str, sampling: Settings) -> Settings:
    scores = (run.score(trial.id, metric, None) for trial in configuration.trials)
    score = next(score for score in scores if score is not None)
    facts: dict[str, JsonValue] = {
        "data": _find_dataset(run, configuration.trials[0].id).key,
        "reference clips": score.n_reference,
        "prompts": list(run.prompts),
        **{words: sampling.get(key) for key, words in SAMPLING.items()},
    }
    # counts of vectors follow from clips, and rounding in a clip's last bits makes no other metric; everything else
    # is part of what the metric is
    left_out = NOT_OF_THE_METRIC | ({"weights"} if score.provenance.get("weights_hash") else set())
    made = {k: v for k, v in score.provenance.items() if not k.startswith("n_") and k not in left_out}
    return facts | {f"metric's {key.replace('_', ' ')}": value for key, value in sorted(made.items())}


def _take_sampling(facts: Settings, base: Settings) -> Settings:
    """Return the facts of another system's clips with the sampling of the model that its run compares it with.

    It has none of its own that could be compared: it stands where its base stands.
    """
    own = {name: value for name, value in facts.items() if name not in OF_SYSTEMS}
    return dict(sorted({**{name: base.get(name) for name in OF_SAMPLING if name in base}, **own}.items()))


def _find_dataset(run: RunView, trial_id: str) -> DatasetSummary:
    own = (source.dataset for source in run.results.sources if trial_id in source.trial_ids)
    return next(own, run.results.dataset)


def group_entries(entries: Sequence[Entry]) -> dict[str, list[list[Entry]]]:
    """Group by metric, then by agreement of all facts; the group of most runs first."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.metric, json.dumps(entry.facts, sort_keys=True, default=str)), []).append(
            entry
        )
    found: dict[str, list[list[Entry]]] = {}
    for (metric, _), group in groups.items():
        found.setdefault(metric, []).append(group)
    for listed in found.values():
        listed.sort(key=lambda group: (-len(name_runs(group)), -len(group)))
    return found


def name_runs(group: Sequence[Entry]) -> list[str]:
    """Return the names of the runs in a group, each once."""
    return list(dict.fromkeys(entry.run_name for entry in group))


def explain_difference(first: Settings, other: Settings) -> list[str]:
    """Return the facts in which two entries differ, each with both values."""
    differences: list[str] = []
    for name in dict.fromkeys((*first, *other)):
        one, two = first.get(name), other.get(name)
        if one == two:
            continue
        if isinstance(one, list) and isinstance(two, list) and name == "prompts":
            n_common = sum(prompt in two for prompt in one)
            differences.append(
                f"prompts ({count_noun(len(one), 'prompt')} and {len(two)}, {n_common} in common)"
            )
        else:
            differences.append(f"{name} ({_show(one)} and {_show(two)})")
    return differences


def _show(value: JsonValue) -> str:
    return "not recorded" if value is None else write_setting(value) or MISSING
