"""Trainings that several trials share: those whose trials differ only in what happens after training.

Such a training runs once, in the cache (`runner/shared_training.py`); a trial that shares with none trains in its own
folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from lora_bench.spec.configurations import Configuration, SectionTexts

AFTER_TRAINING: Mapping[str, Collection[str]] = {"train": {"checkpoint_every"}}
"""Fields of an adapter's sections on which its training does not depend, by section.

The key of an adapter (`stages/train/identity.py`) must not depend on them either: it is what decides in the end.
"""
TRAINED_SECTIONS = ("model", "dataset", "lora", "train")


def find_leaders(trials: Iterable[tuple[Configuration, int, str]]) -> Mapping[str, str]:
    """Return the first trial of each training that several share, by the ids of those trials.

    Args:
        trials: configuration, training seed and id of each fine-tuned trial, in order.
    """
    texts = SectionTexts(AFTER_TRAINING)
    groups: dict[tuple[str, int], list[str]] = {}
    for item, seed, trial_id in trials:
        text = texts.write({name: item.identity[name] for name in TRAINED_SECTIONS})
        groups.setdefault((text, seed), []).append(trial_id)
    return {trial_id: group[0] for group in groups.values() if len(group) > 1 for trial_id in group}


def count_trainings(leaders: Sequence[str | None]) -> int:
    """Return the number of trainings of trials, given the leader of each (None if it trains alone)."""
    return sum(leader is None for leader in leaders) + len(set(leaders) - {None})
