"""Raters that answer a listening study by rules."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_bench.listening.study import Pair, Study

Lean = Callable[[Pair, str], int]
"""How far the first side of a pair is preferred on a question, from -2 to 2."""


def prefer(*ranking: str) -> Lean:
    """The lean of somebody attentive who prefers configurations by their place in a ranking."""

    def lean(pair: Pair, question: str) -> int:
        if pair.kind == "identical":
            return 0
        if pair.kind == "damaged":
            return -2 if pair.sides[0].is_damaged else 2
        first, second = (ranking.index(side.configuration) for side in pair.sides)
        return 1 if first < second else -1

    return lean


def answer_study(study: Study, rater: str, lean: Lean, *, at: str = "2026-01-01T10:00:00Z") -> dict[str, Any]:
    """What the page would save; about half of the pairs are shown swapped."""
    chance = random.Random(rater)
    answers = []
    for pair in chance.sample(study.pairs, len(study.pairs)):
        swapped = chance.random() < 0.5
        choices = {name: 3 - (-1 if swapped else 1) * lean(pair, name) for name in study.questions}
        answers.append({"pair": pair.id, "swapped": swapped, "seconds": 9.5, "choices": choices})
    return {
        "schema": 1, "study": study.id, "rater": rater, "consent": True,
        "started_at": "2026-01-01T09:00:00Z", "finished_at": at, "answers": answers,
    }  # fmt: skip


def save_answers(path: Path, document: Any) -> Path:
    """Write a file of answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
