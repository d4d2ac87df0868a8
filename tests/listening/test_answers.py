"""Files of answers: those that no page saves are errors, those that do not count are excluded with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.listening_run import ListeningRun
from support.raters import answer_study, prefer, save_answers

from lora_bench.errors import StoreError, UsageError
from lora_bench.listening.answers import read_ratings
from lora_bench.listening.create import Wishes, write_study
from lora_bench.listening.preferences import import_answers
from lora_bench.listening.study import Pair, read_key

LEAN = prefer("r16-all", "r4-attention", "zero-shot")


def write_raters(run: ListeningRun, *raters: str) -> list[Path]:
    return [save_answers(run.folder / f"{name}.json", answer_study(run.study, name, LEAN)) for name in raters]


def test_preferences_are_found_and_swaps_undone(run: ListeningRun) -> None:
    ratings, excluded = read_ratings(write_raters(run, "ann", "bob"), read_key(run.folder))
    assert not excluded
    for rating in ratings:
        for pair, lean in rating.list_comparisons("fits_genre"):
            assert lean == LEAN(pair, "fits_genre")


def test_people_who_prefer_the_larger_adapter_are_imported(run: ListeningRun) -> None:
    results = import_answers(run.folder, write_raters(run, *"abcdefgh"), run.view())
    assert (results.n_raters, results.n_answers) == (8, 160)
    assert json.loads((run.folder / "listening.json").read_text()) == results.model_dump(
        mode="json", by_alias=True, exclude_unset=True
    )
    found = {item.configuration: item for item in results.preferences if item.question == "preference"}
    small, large = found["r4-attention"], found["r16-all"]
    assert 0 < small.strength < large.strength
    assert large.share_ci_low > 0.5
    assert (large.n_raters, large.n_answers) == (8, 120)
    by_metric = {item.metric: item for item in results.agreements if item.question == "preference"}
    assert by_metric["mfcc20"].correlation == pytest.approx(1.0)
    assert by_metric["mfcc20"].n_configurations == 3


def test_two_configurations_have_no_correlation(run: ListeningRun) -> None:
    page = write_study(run.folder, Wishes(configurations=["r16-all"], n_pairs=4))
    files = [
        save_answers(run.folder / f"{n}.json", answer_study(page.study, n, LEAN)) for n in ("ann", "bob")
    ]
    results = import_answers(run.folder, files, run.view())
    assert results.agreements[0].correlation is None
    assert results.agreements[0].note == "2 configurations with scores and answers; expected at least 3"


def test_one_rater_has_a_strength_without_an_interval(run: ListeningRun) -> None:
    results = import_answers(run.folder, write_raters(run, "ann"), run.view())
    assert results.preferences[0].strength is not None
    assert results.preferences[0].ci_low is None
    assert results.preferences[0].note == "no interval from one rater"


def test_answers_to_pages_with_other_seeds_count_together(run: ListeningRun) -> None:
    other = write_study(run.folder, Wishes(seed=1), run.folder / "other.html")
    files = write_raters(run, "ann", "bob")
    files.append(save_answers(run.folder / "more.json", answer_study(other.study, "ann", LEAN)))
    results = import_answers(run.folder, files, run.view())
    assert results.studies == (run.study.id, other.study.id)
    assert (results.n_raters, results.n_answers) == (2, 60)


# ---------------------------------------------------------------- files that do not count


def drop_answer(document: dict[str, Any]) -> None:
    document["answers"].pop()


def drop_choice(document: dict[str, Any]) -> None:
    del document["answers"][3]["choices"]["fits_genre"]


def repeat_answer(document: dict[str, Any]) -> None:
    document["answers"].append(document["answers"][0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: found.update(study="0" * 16), "study `0000000000000000` is not of this run"),
        (lambda found: found["answers"][0].update(pair="ff"), "pair `ff` is not one of study `"),
        (repeat_answer, "is answered twice"),
        (drop_answer, "incomplete: 23 of 24 pairs are answered"),
        (drop_choice, "incomplete: 23 of 24 pairs are answered"),
        (lambda found: found.update(finished_at=None), "incomplete: 24 of 24"),
        (lambda found: found["answers"][0]["choices"].update(beauty=3), "question `beauty` was not asked"),
    ],
)
def test_answers_that_do_not_fit_the_study_are_excluded(
    run: ListeningRun, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    document = answer_study(run.study, "eve", LEAN)
    change(document)
    files = [*write_raters(run, "ann", "bob"), save_answers(run.folder / "eve.json", document)]
    results = import_answers(run.folder, files, run.view())
    (excluded,) = results.excluded
    assert (excluded.file, excluded.rater) == ("eve.json", "eve")
    assert reason in excluded.reason
    assert results.n_raters == 2


def test_the_first_answers_of_a_rater_count(run: ListeningRun) -> None:
    first = answer_study(run.study, "ann", LEAN, at="2026-01-01T12:00:00+01:00")  # 11:00 in Greenwich
    second = answer_study(run.study, "ann", LEAN, at="2026-01-01T11:30:00Z")
    files = [save_answers(run.folder / "a.json", second), save_answers(run.folder / "b.json", first)]
    _, excluded = read_ratings(files, read_key(run.folder))
    assert [(item.file, item.reason) for item in excluded] == [
        ("a.json", "rater `ann` has answered this study before; the first answers count")
    ]


def careless(pair: Pair, question: str) -> int:
    return 2


def strict(pair: Pair, question: str) -> int:
    """Hears a slight difference between identical clips: that is not inattention."""
    return 1 if pair.kind == "identical" else LEAN(pair, question)


def test_a_rater_who_fails_attention_checks_is_excluded(run: ListeningRun) -> None:
    files = [
        save_answers(run.folder / f"{name}.json", answer_study(run.study, name, lean))
        for name, lean in (("careless", careless), ("strict", strict))
    ]
    ratings, (excluded,) = read_ratings(files, read_key(run.folder))
    assert [rating.rater for rating in ratings] == ["strict"]
    assert excluded.reason.startswith("failed ")
    assert "of 4 attention checks (2 of 2 with identical clips," in excluded.reason


def test_without_answers_that_count_nothing_is_written(run: ListeningRun) -> None:
    path = save_answers(run.folder / "x.json", answer_study(run.study, "x", careless))
    with pytest.raises(UsageError, match=r"(?s)nothing was written.*x\.json: excluded: failed"):
        import_answers(run.folder, [path], run.view())
    assert not (run.folder / "listening.json").exists()


# ---------------------------------------------------------------- files that no page saves


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["answers"][2]["choices"].update(preference=9), r"`answers\[2\].choices.preference` is 9, expected 1, 2, 3, 4 or 5"),
        (lambda found: found.update(rater="<b>x</b>"), r"`rater` is '<b>x</b>', expected 1 to 40 letters"),
        (lambda found: found.update(consent=False), "`consent` is False, expected True"),
        (lambda found: found.pop("study"), "`study` is missing"),
        (lambda found: found["answers"][0].update(seconds=-1), r"`answers\[0\].seconds`"),
        (lambda found: found.update(configuration="r4"), "`configuration`"),
        (lambda found: found.update(schema=2), "`schema` is 2, expected 1"),
    ],
)  # fmt: skip
def test_a_file_in_another_form_is_an_error_with_place_value_expectation_and_mend(
    run: ListeningRun, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = answer_study(run.study, "eve", LEAN)
    change(document)
    path = save_answers(run.folder / "eve.json", document)
    with pytest.raises(StoreError, match=message) as caught:
        import_answers(run.folder, [path], run.view())
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith("ask the rater to save it again, or leave the file out")


def test_all_damaged_files_are_listed_at_once_and_nothing_is_written(run: ListeningRun) -> None:
    good = write_raters(run, "ann", "bob")
    cut, binary = run.folder / "cut.json", run.folder / "binary.json"
    cut.write_text(good[0].read_text()[:100])
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError) as caught:
        import_answers(run.folder, [*good, cut, binary], run.view())
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{cut}: not valid JSON: ")
    assert second.startswith(f"{binary}: not text in UTF-8")
    assert not (run.folder / "listening.json").exists()


def test_a_run_without_a_page_has_no_answers(run: ListeningRun) -> None:
    files = write_raters(run, "ann")
    (run.folder / "listening_key.json").unlink()
    with pytest.raises(UsageError, match=r"listening_key.json: does not exist, so .* write its page first"):
        import_answers(run.folder, files, run.view())
