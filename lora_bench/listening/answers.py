"""Files of answers: their form, and the rules by which a file is evaluated or excluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lora_bench.errors import StoreError
from lora_bench.listening.page import NO_DIFFERENCE
from lora_bench.listening.study import ListeningKey, Pair, Study
from lora_bench.results.listening import ExcludedAnswers
from lora_bench.results.reading import describe_problem

MAX_FAILED_FRAC = 0.25
"""Share of the attention checks that a rater may fail."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _check_rater(name: str) -> str:
    if not 1 <= len(name) <= 40 or not _LETTERS.issuperset(name):
        raise PydanticCustomError(
            "rater", "{expected}", {"expected": "1 to 40 letters, digits, dots, hyphens or underscores"}
        )
    return name


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Answer(_Form):
    """The answers about one pair; choices are as the rater saw them, from 1 (A, clearly) to 5 (B, clearly)."""

    pair: str
    swapped: bool
    seconds: Annotated[float, Field(ge=0)]
    choices: dict[str, Literal[1, 2, 3, 4, 5]]

    def lean(self, question: str) -> int:
        """Return how far the first side is preferred, from -2 to 2."""
        toward_a = NO_DIFFERENCE - self.choices[question]
        return -toward_a if self.swapped else toward_a


class AnswersFile(_Form):
    """A file that a listening page saves."""

    schema_version: Literal[1] = Field(alias="schema")
    study: str
    rater: Annotated[str, AfterValidator(_check_rater)]
    consent: Literal[True]
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Rating:
    """One rater's answers to one study, complete and attentive.

    Attributes:
        answers: in the order of `study.pairs`.
    """

    rater: str
    study: Study
    answers: tuple[Answer, ...]

    def list_comparisons(self, question: str) -> Iterator[tuple[Pair, int]]:
        """Yield pairs, without attention checks, and how far their first side is preferred."""
        if question in self.study.questions:
            for pair, answer in zip(self.study.pairs, self.answers, strict=True):
                if pair.kind == "comparison":
                    yield pair, answer.lean(question)


def read_ratings(paths: Sequence[Path], key: ListeningKey) -> tuple[list[Rating], list[ExcludedAnswers]]:
    """Read files of answers, and exclude those that do not count.

    Returns:
        Ratings, the first of each rater and study if there are several; and excluded files with reasons.

    Raises:
        StoreError: files that no listening page has saved; lists all of them.
    """
    files: list[tuple[Path, AnswersFile]] = []
    problems: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            files.append((path, _read_file(path)))
        except StoreError as error:
            problems.append(str(error))
    if problems:
        raise StoreError("\n".join(problems))
    ratings: dict[tuple[str, str], Rating] = {}
    excluded: list[ExcludedAnswers] = []
    for path, found in sorted(files, key=_order_in_time):
        study = next((study for study in key.studies if study.id == found.study), None)
        reason = _find_fault(found, study)
        if reason is None and (found.study, found.rater) in ratings:
            reason = f"rater `{found.rater}` has answered this study before; the first answers count"
        if reason is not None or study is None:
            excluded.append(ExcludedAnswers(file=path.name, rater=found.rater, reason=reason or ""))
            continue
        by_pair = {answer.pair: answer for answer in found.answers}
        ordered = tuple(by_pair[pair.id] for pair in study.pairs)
        ratings[found.study, found.rater] = Rating(found.rater, study, ordered)
    return list(ratings.values()), excluded


def _order_in_time(found: tuple[Path, AnswersFile]) -> tuple[bool, float, str]:
    """Return a key that puts unfinished files last."""
    at = found[1].finished_at
    return at is None, 0.0 if at is None else at.timestamp(), found[0].name


def _read_file(path: Path) -> AnswersFile:
    mend = (
        "expected the file that a listening page saves; ask the rater to save it again, or leave the file out"
    )
    try:
        return AnswersFile.model_validate_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not text in UTF-8 ({error}); {mend}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        is_damaged = first["type"] == "json_invalid"
        problem = str(first["ctx"]["error"]) if is_damaged and "ctx" in first else describe_problem(error)
        raise StoreError(f"{path}: {'not valid JSON: ' if is_damaged else ''}{problem}; {mend}") from error


def _find_fault(found: AnswersFile, study: Study | None) -> str | None:
    """Return why a file is excluded; None if it counts."""
    if study is None:
        return f"study `{found.study}` is not of this run; evaluate it with the run that its page was written for"
    pairs = [answer.pair for answer in found.answers]
    known = {pair.id for pair in study.pairs}
    unknown = next((pair for pair in pairs if pair not in known), None)
    if unknown is not None:
        return f"pair `{unknown}` is not one of study `{study.id}`"
    if len(set(pairs)) < len(pairs):
        repeated = next(pair for pair in pairs if pairs.count(pair) > 1)
        return f"pair `{repeated}` is answered twice"
    strange = {name for answer in found.answers for name in answer.choices} - {*study.questions}
    if strange:
        return f"question `{min(strange)}` was not asked; questions are {', '.join(study.questions)}"
    n_complete = sum(len(answer.choices) == len(study.questions) for answer in found.answers)
    if n_complete < len(study.pairs) or found.finished_at is None:
        return f"incomplete: {n_complete} of {len(study.pairs)} pairs are answered"
    return _find_inattention(found, study)


def _find_inattention(found: AnswersFile, study: Study) -> str | None:
    """Return a reason if more checks failed than may, on the first question of the study.

    Identical clips must not differ clearly, and the damaged clip must not be preferred, or as good.
    """
    answers = {answer.pair: answer for answer in found.answers}
    leans = [(pair, answers[pair.id].lean(study.questions[0])) for pair in study.pairs]
    identical = [abs(lean) == 2 for pair, lean in leans if pair.kind == "identical"]
    damaged = [
        (lean if pair.sides[0].is_damaged else -lean) >= 0 for pair, lean in leans if pair.kind == "damaged"
    ]
    n_failed, n_checks = sum(identical) + sum(damaged), len(identical) + len(damaged)
    if n_failed > MAX_FAILED_FRAC * n_checks:
        return (
            f"failed {n_failed} of {n_checks} attention checks ({sum(identical)} of {len(identical)} with identical "
            f"clips, {sum(damaged)} of {len(damaged)} with a damaged clip)"
        )
    return None
