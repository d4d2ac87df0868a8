"""What trials of a run share: the model, the data, and how long and how many clips are compared.

A run over several datasets or models has several sources, each with its own data, floors and reference
excerpts.  The first one's files lie in the run's folder itself, those of the others in `data/<name>-<hash8>/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from lora_bench.slugs import slugify, spell_path
from lora_bench.store import JsonObject, JsonValue, hash_json


@dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
        key: hash of model, dataset, clip length and number of clips.
        label: how tables name it: the dataset, with the model or clip length where datasets repeat.
        folder: its files, relative to the run's folder.
        trial_ids: trials that use it, in the order of the plan.
    """

    key: str
    label: str
    folder: Path
    trial_ids: tuple[str, ...]

    def place(self, run_folder: Path) -> Path:
        """Its folder in a run."""
        return run_folder / self.folder


def list_sources(trials: Sequence[JsonObject]) -> list[Source]:
    """Sources of planned trials (as `plan.json` has them), in the order of their first trial."""
    groups: dict[str, list[JsonObject]] = {}
    for trial in trials:
        groups.setdefault(key_source(trial), []).append(trial)
    firsts = [group[0] for group in groups.values()]
    labels = _label(firsts)
    found: list[Source] = []
    for place, (key, group) in enumerate(groups.items()):
        folder = Path("data") / f"{slugify(labels[place], max_length=40)}-{key}" if place else Path()
        found.append(Source(key, labels[place], folder, tuple(str(trial["id"]) for trial in group)))
    return found


def key_source(trial: JsonObject) -> str:
    """Eight digits of the hash of what a source is."""
    generation = _read_section(trial, "generation")
    dataset = {name: value for name, value in _read_section(trial, "dataset").items() if name != "size"}
    facts: dict[str, JsonValue] = {"model": trial.get("model"), "dataset": dataset or trial.get("dataset")}
    return hash_json(facts | {name: generation.get(name) for name in ("clip_s", "n_clips")}, length=8)


def _label(trials: Sequence[JsonObject]) -> list[str]:
    """A name per source that no other has: the dataset's, and more where that is not enough."""
    parts = [_name_parts(trial) for trial in trials]
    labels = [part[0] for part in parts]
    for depth in range(1, len(parts[0]) if parts else 0):
        counts = Counter(labels)
        if max(counts.values()) == 1:
            break
        if len({part[depth] for part in parts}) > 1:
            labels = [f"{label}, {part[depth]}" for label, part in zip(labels, parts, strict=True)]
    return labels


def _read_section(trial: JsonObject, name: str) -> JsonObject:
    """Return a section of a planned trial; empty where an earlier version did not write it."""
    section = trial.get(name)
    return section if isinstance(section, Mapping) else {}


def _name_parts(trial: JsonObject) -> tuple[str, ...]:
    dataset, generation = _read_section(trial, "dataset"), _read_section(trial, "generation")
    path = dataset.get("path")
    name = spell_path(PurePath(str(path)).name) if path else str(dataset.get("builtin") or "data")
    return (
        name,
        PurePath(str(_read_section(trial, "model").get("id"))).name,
        f"clips of {generation.get('clip_s')} s",
        f"{generation.get('n_clips')} clips",
        key_source(trial),
    )
