"""People's preference by configuration, and how metrics agree with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from lora_bench.errors import UsageError
from lora_bench.listening.answers import MAX_FAILED_FRAC, Rating, read_ratings
from lora_bench.listening.bradley_terry import PRIOR, Strength, estimate_strengths, find_connected, to_share
from lora_bench.listening.study import read_key
from lora_bench.metrics.names import is_higher_better
from lora_bench.planning.run_folder import RunFolder
from lora_bench.report.view import RunView
from lora_bench.results.listening import (
    LISTENING_SCHEMA,
    ExcludedAnswers,
    ListeningResults,
    MetricAgreement,
    PreferenceRecord,
)
from lora_bench.results.reading import write_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CONFIGURATIONS = 3
PROVENANCE = {
    "model": "Bradley-Terry; an answer of no difference is half a preference for each side",
    "prior": PRIOR,
    "interval": "95 %, Student's t, jackknife over raters, at least the error of independent answers",
    "excluded": f"raters who fail more than {MAX_FAILED_FRAC:.0%} of the attention checks",
}


@dataclass(frozen=True)
class _Table:
    """Answers to one question.

    Attributes:
        names: configurations, zero-shot first.
        wins: [R, K, K] how often each rater preferred the row's configuration to the column's.
    """

    question: str
    names: list[str]
    wins: NDArray[np.float64]


def import_answers(run: Path, paths: Sequence[Path], view: RunView) -> ListeningResults:
    """Evaluate files of answers, and write the results into the run's folder.

    Raises:
        UsageError: the run has no listening page, or no file counts; then nothing is written.
        StoreError: a file was not saved by a listening page.
    """
    ratings, excluded = read_ratings(paths, read_key(run))
    if not ratings:
        raise UsageError("\n".join(["no answers count, so nothing was written", *list_reasons(excluded)]))
    results = evaluate_ratings(ratings, excluded, view)
    write_record(RunFolder(run).listening, results)
    return results


def list_reasons(excluded: Sequence[ExcludedAnswers]) -> list[str]:
    """Return a line for each excluded file."""
    return [f"{item.file}: excluded: {item.reason}" for item in excluded]


def evaluate_ratings(
    ratings: Sequence[Rating], excluded: Sequence[ExcludedAnswers], view: RunView
) -> ListeningResults:
    """Return preferences on every question that was asked, and the agreement of every metric with them."""
    studies = list(dict.fromkeys(rating.study.id for rating in ratings))
    questions = dict.fromkeys(name for rating in ratings for name in rating.study.questions)
    preferences: list[PreferenceRecord] = []
    agreements: list[MetricAgreement] = []
    for question in questions:
        for zero_shot in dict.fromkeys(rating.study.zero_shot for rating in ratings):
            table = _count(
                question, zero_shot, [item for item in ratings if item.study.zero_shot == zero_shot]
            )
            found = list(_describe(table))
            preferences += found
            if len({rating.study.zero_shot for rating in ratings}) == 1:
                agreements += _correlate(question, zero_shot, found, view)
    return ListeningResults(
        schema=LISTENING_SCHEMA,
        studies=tuple(studies),
        n_raters=len({rating.rater for rating in ratings}),
        n_answers=sum(pair.kind == "comparison" for rating in ratings for pair in rating.study.pairs),
        preferences=tuple(preferences),
        agreements=tuple(agreements),
        excluded=tuple(excluded),
        provenance=PROVENANCE,
    )


def _count(question: str, zero_shot: str, ratings: Sequence[Rating]) -> _Table:
    """Count preferences by rater, over all studies that a rater answered."""
    answers = [
        (rating.rater, pair, lean) for rating in ratings for pair, lean in rating.list_comparisons(question)
    ]
    compared = (side.configuration for _, pair, _ in answers for side in pair.sides)
    names = list(dict.fromkeys((zero_shot, *sorted(compared))))
    raters = {name: row for row, name in enumerate(dict.fromkeys(rater for rater, *_ in answers))}
    wins = np.zeros((len(raters), len(names), len(names)))
    for rater, pair, lean in answers:
        first, second = (names.index(side.configuration) for side in pair.sides)
        share = 0.5 * (1 + np.sign(lean))
        wins[raters[rater], first, second] += share
        wins[raters[rater], second, first] += 1.0 - share
    return _Table(question, names, wins)


def _describe(table: _Table) -> Iterator[PreferenceRecord]:
    if not len(table.wins):
        return
    compared = np.sum(table.wins + np.swapaxes(table.wins, 1, 2), axis=0)
    connected = find_connected(compared)
    kept = [place for place, is_connected in enumerate(connected) if is_connected]
    strengths = estimate_strengths(table.wins[:, kept][:, :, kept])
    by_place = dict(zip(kept[1:], strengths, strict=True))
    for place, name in enumerate(table.names[1:], start=1):
        heard = np.sum(table.wins[:, place] + table.wins[:, :, place], axis=1)
        yield _make_record(table, name, by_place.get(place)).model_copy(
            update={"n_raters": int(np.sum(heard > 0)), "n_answers": round(float(np.sum(heard)))}
        )


def _make_record(table: _Table, name: str, strength: Strength | None) -> PreferenceRecord:
    question, against = table.question, table.names[0]
    if strength is None:
        note = "never compared with zero-shot, directly or through others"
        return PreferenceRecord(question=question, configuration=name, against=against, note=note)
    record = PreferenceRecord(
        question=question,
        configuration=name,
        against=against,
        strength=strength.value,
        share=to_share(strength.value),
    )
    if strength.interval is None:
        return record.model_copy(update={"note": "no interval from one rater"})
    low, high = strength.interval
    return record.model_copy(
        update={
            "se": strength.se,
            "df": strength.freedom,
            "ci_low": low,
            "ci_high": high,
            "share_ci_low": to_share(low),
            "share_ci_high": to_share(high),
        }
    )


def _correlate(
    question: str, zero_shot: str, preferences: Sequence[PreferenceRecord], view: RunView
) -> Iterator[MetricAgreement]:
    """Yield the rank correlation of each metric, over all its prompts together, with strengths."""
    strengths = {item.configuration: item.strength for item in preferences if item.strength is not None}
    strengths[zero_shot] = 0.0
    by_name = {item.name: item for item in view.configurations}
    for metric in view.metrics:
        points: list[tuple[float, float]] = []
        for name, strength in strengths.items():
            cell = view.cell(by_name[name], metric, None) if name in by_name else None
            value = None if cell is None else cell.value if cell.corrected is None else cell.corrected
            if value is not None:
                points.append((value if is_higher_better(metric) else -value, strength))
        n = len(points)
        record = MetricAgreement(question=question, metric=metric, n_configurations=n)
        if n < MIN_CONFIGURATIONS:
            note = f"{n} configurations with scores and answers; expected at least {MIN_CONFIGURATIONS}"
            yield record.model_copy(update={"note": note})
        elif any(len(set(values)) == 1 for values in zip(*points, strict=True)):
            yield record.model_copy(update={"note": "all configurations are equal, so they have no ranks"})
        else:
            ranks = [rankdata(values) for values in zip(*points, strict=True)]
            yield record.model_copy(update={"correlation": float(np.corrcoef(ranks)[0, 1])})
