"""The draw of a listening test's pairs and attention checks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from lora_bench.listening.contestants import Cell, Contestant
from lora_bench.listening.study import Pair, PairKind, PairSide

PAIRS_PER_CHECK = 10
"""Pairs for which there is one check of each kind."""


@dataclass
class _Comparison:
    """Pairs of trials and cells of two configurations that are left to draw, by prompt, and the prompts drawn."""

    left: dict[str, list[tuple[PairSide, PairSide, Cell]]] = field(
        default_factory=dict[str, list[tuple[PairSide, PairSide, Cell]]]
    )
    drawn: Counter[str] = field(default_factory=Counter[str])


def draw_pairs(contestants: Sequence[Contestant], n_pairs: int, chance: random.Random) -> list[Pair]:
    """Draw pairs: every other one against zero-shot, all comparisons and prompts as often as possible equally.

    Args:
        contestants: zero-shot first.
        n_pairs: pairs to draw; fewer are returned if the run has fewer.
        chance: source of all choices.
    """
    base, *tuned = contestants
    against_base = [_list_candidates(base, item, chance) for item in tuned]
    among_tuned = [_list_candidates(first, second, chance) for first, second in combinations(tuned, 2)]
    chance.shuffle(against_base)
    chance.shuffle(among_tuned)
    prompts: Counter[str] = Counter()
    seen: set[Cell] = set()
    pairs: list[Pair] = []
    turns = _take_turns(against_base, among_tuned)
    while len(pairs) < n_pairs and any(item.left for item in turns):
        for comparison in turns:
            if comparison.left and len(pairs) < n_pairs:
                first, second, cell = _take(comparison, prompts, seen)
                pairs.append(_make_pair("comparison", first, second, cell, chance))
    return pairs


def _take_turns(first: Sequence[_Comparison], second: Sequence[_Comparison]) -> list[_Comparison]:
    """Return a round in which both lists alternate; the shorter one is repeated."""
    if not first or not second:
        return [*first, *second]
    longest = max(len(first), len(second))
    repeated = [(list(side) * longest)[:longest] for side in (first, second)]
    return [item for turn in zip(*repeated, strict=True) for item in turn]


def _list_candidates(first: Contestant, second: Contestant, chance: random.Random) -> _Comparison:
    found = _Comparison()
    for trial, clips in first.clips.items():
        for other, others in second.clips.items():
            for cell in clips:
                if cell in others:
                    sides = (
                        PairSide(configuration=first.name, trial=trial),
                        PairSide(configuration=second.name, trial=other),
                    )
                    found.left.setdefault(cell[0], []).append((*sides, cell))
    for candidates in found.left.values():
        chance.shuffle(candidates)
    return found


def _take(comparison: _Comparison, prompts: Counter[str], seen: set[Cell]) -> tuple[PairSide, PairSide, Cell]:
    """Take the prompt that was heard least, here and in all, and if possible a clip index that was not heard."""
    prompt = min(comparison.left, key=lambda text: (comparison.drawn[text], prompts[text]))
    candidates = comparison.left[prompt]
    place = next((place for place, item in enumerate(candidates) if item[2] not in seen), 0)
    taken = candidates.pop(place)
    if not candidates:
        del comparison.left[prompt]
    comparison.drawn[prompt] += 1
    prompts[prompt] += 1
    seen.add(taken[2])
    return taken


def _make_pair(kind: PairKind, first: PairSide, second: PairSide, cell: Cell, chance: random.Random) -> Pair:
    sides = (first, second) if chance.random() < 0.5 else (second, first)
    return Pair(id="", kind=kind, sides=sides, prompt=cell[0], clip_index=cell[1])


def draw_checks(
    contestants: Sequence[Contestant],
    n_pairs: int,
    chance: random.Random,
    is_audible: Callable[[Path], bool],
) -> list[Pair]:
    """Draw attention checks of both kinds: two identical clips, and a clip with a damaged copy of it.

    Args:
        contestants: configurations whose clips are used.
        n_pairs: number of comparisons.
        chance: source of all choices.
        is_audible: whether damage to a file can be heard.
    """
    clips = [
        (item.name, trial, cell, path)
        for item in contestants
        for trial, files in item.clips.items()
        for cell, path in files.items()
    ]
    chance.shuffle(clips)
    audible = (clip for clip in clips if is_audible(clip[3]))
    checks: list[Pair] = []
    for _ in range(max(1, n_pairs // PAIRS_PER_CHECK)):
        kinds: tuple[PairKind, ...] = ("identical", "damaged")
        for kind in kinds:
            clip = next(audible, None)
            if clip is not None:
                side = PairSide(configuration=clip[0], trial=clip[1])
                other = side.model_copy(update={"is_damaged": kind == "damaged"})
                checks.append(_make_pair(kind, side, other, clip[2], chance))
    return checks
