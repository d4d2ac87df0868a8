"""Trainings that several trials share, or whose earlier steps they keep.

Trials share a training if they differ only in what happens after it.  Such a training runs once, in the cache
(`runner/shared_training.py`); other trials train in their own folders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_bench.spec.configuration import Configuration, SectionTexts

AFTER_TRAINING: Mapping[str, Collection[str]] = {"train": {"checkpoint_every", "keep"}}
"""Fields of an adapter's sections on which its training does not depend, by section.

The key of an adapter (`stages/train/identity.py`) must not depend on them either: it is what decides in the end.
"""
TRAINED_SECTIONS = ("model", "dataset", "lora", "train")


@dataclass(frozen=True)
class SharedTraining:
    """A training in the cache.

    Attributes:
        leader: id of the first trial that it is for.
        kept: steps and `best`, of all its trials, apart from the last step.
    """

    leader: str
    kept: tuple[int | str, ...]


def find_shared(trials: Iterable[tuple[Configuration, int, str]]) -> Mapping[str, SharedTraining]:
    """Return the trainings that several trials share, or that keep steps, by the ids of their trials.

    Args:
        trials: configuration, training seed and id of each fine-tuned trial, in order.
    """
    texts = SectionTexts(AFTER_TRAINING)
    groups: dict[tuple[str, int], list[tuple[str, int | str | None]]] = {}
    for item, seed, trial_id in trials:
        text = texts.write({name: item.identity[name] for name in TRAINED_SECTIONS})
        keep = item.settings.train.keep
        groups.setdefault((text, seed), []).append((trial_id, None if isinstance(keep, list) else keep))
    found: dict[str, SharedTraining] = {}
    for group in groups.values():
        kept = tuple(
            sorted({keep for _, keep in group if keep is not None}, key=lambda keep: (keep == "best", keep))
        )
        if len(group) > 1 or kept:
            found |= dict.fromkeys((trial_id for trial_id, _ in group), SharedTraining(group[0][0], kept))
    return found


def count_trainings(leaders: Sequence[str | None]) -> int:
    """Return the number of trainings of trials, given the leader of each (None if it trains alone)."""
    return sum(leader is None for leader in leaders) + len(set(leaders) - {None})
