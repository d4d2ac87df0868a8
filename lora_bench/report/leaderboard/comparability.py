"""Which results of several runs may stand in one table: those that agree in data, metric and protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_bench.report.formatting import MISSING, count_noun, write_setting
from lora_bench.report.view import CellValue, Configuration, RunView

Json = dict[str, Any]
SAMPLING = {
    "n_clips": "clips per prompt",
    "clip_s": "clip length (s)",
    "guidance": "guidance scale",
    "temperature": "temperature",
    "top_k": "top k",
    "seed": "noise seed",
    "quantization": "quantization",
}

NOT_OF_THE_METRIC = {"model", "model_weights_hash", "train_seed", "decoding"}
"""What scores say of the clips; a table compares models and adapters.  Weights count by their hash if they have one."""


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
    facts: Mapping[str, Any]

    @property
    def run_name(self) -> str:
        """Name of the run."""
        return str(self.run.results["name"])

    @property
    def order(self) -> float:
        """The value that is ranked: without the bias of finite samples where that is known."""
        value = self.cell.value if self.cell.corrected is None else self.cell.corrected
        return float("nan") if value is None else value


def list_entries(run: RunView, plan: Json) -> list[Entry]:
    """Scored configurations of a run.

    Args:
        run: the run.
        plan: its `plan.json`, for the sampling of each trial; empty if it is not there.
    """
    generations = {str(trial["id"]): trial.get("generation") or {} for trial in plan.get("trials") or []}
    found: list[Entry] = []
    for configuration in run.configurations:
        trial_id = str(configuration.trials[0]["id"])
        sampling = generations.get(trial_id) or run.spec.get("generation") or {}
        for metric in run.metrics:
            cell = run.cell(configuration, metric, None)
            if cell.value is None:
                continue
            facts = _list_facts(run, configuration, metric, sampling)
            found.append(Entry(run, configuration, metric, cell, facts))
    return found


def _list_facts(run: RunView, configuration: Configuration, metric: str, sampling: Json) -> Json:
    scores = (run.score(trial["id"], metric, None) for trial in configuration.trials)
    score = next(score for score in scores if score is not None)
    dataset = _find_dataset(run, str(configuration.trials[0]["id"]))
    facts: Json = {
        "data": dataset.get("key"),
        "reference clips": score.get("n_reference"),
        "prompts": list(run.prompts),
        **{words: sampling.get(key) for key, words in SAMPLING.items()},
    }
    # counts of vectors follow from clips, and rounding in a clip's last bits makes no other metric; everything else
    # is part of what the metric is
    provenance: Json = score.get("provenance") or {}
    left_out = NOT_OF_THE_METRIC | ({"weights"} if provenance.get("weights_hash") else set())
    made = {k: v for k, v in provenance.items() if not k.startswith("n_") and k not in left_out}
    return facts | {f"metric's {key.replace('_', ' ')}": value for key, value in sorted(made.items())}


def _find_dataset(run: RunView, trial_id: str) -> Json:
    for source in run.results.get("sources") or []:
        if trial_id in (source.get("trials") or source.get("trial_ids") or []):
            return source.get("dataset") or {}
    return run.results.get("dataset") or {}


def group_entries(entries: list[Entry]) -> dict[str, list[list[Entry]]]:
    """By metric, then by agreement of all facts; the group of most runs first."""
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


def name_runs(group: list[Entry]) -> list[str]:
    """Names of the runs in a group, each once."""
    return list(dict.fromkeys(entry.run_name for entry in group))


def explain_difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In which facts two entries differ, each with both values."""
    said: list[str] = []
    for name in dict.fromkeys((*first, *other)):
        one, two = first.get(name), other.get(name)
        if one == two:
            continue
        if name == "prompts":
            common = len(set(one or []) & set(two or []))
            said.append(
                f"prompts ({count_noun(len(one or []), 'prompt')} and {len(two or [])}, {common} in common)"
            )
        else:
            said.append(f"{name} ({_show(one)} and {_show(two)})")
    return said


def _show(value: Any) -> str:
    return "not recorded" if value is None else write_setting(value) or MISSING
