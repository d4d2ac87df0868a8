"""What people preferred, in a report: their shares as a reference computes them, and nothing where nobody was asked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr
from support.listening_run import make_listening_run
from support.raters import answer_study, prefer, save_answers

from lora_bench.listening.preferences import import_answers
from lora_bench.report.render import render_report

RANKINGS = [("r16-all", "r4-attention", "zero-shot")] * 6 + [("zero-shot", "r16-all", "r4-attention")] * 2


def render(run: Path, place: Path) -> dict[str, str]:
    render_report(run, place)
    files = {path.name: path for path in (place / run.name).iterdir()}
    names = ("report.html", "report.md", "details.md")
    return {name: files[name].read_text(encoding="utf-8").replace("\u00a0", " ") for name in names}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A run's folder, its report before anybody was asked, and after."""
    place = tmp_path_factory.mktemp("heard")
    run = make_listening_run(place)
    before = render(run.folder, place / "before")
    files = [
        save_answers(place / f"{number}.json", answer_study(run.study, f"rater{number}", prefer(*ranking)))
        for number, ranking in enumerate(RANKINGS)
    ]
    files.append(
        save_answers(place / "late.json", answer_study(run.study, "rater0", prefer(*RANKINGS[0]), at="2026-02-02T10:00:00Z"))
    )  # fmt: skip
    import_answers(run.folder, files, run.view())
    return run.folder, before, render(run.folder, place / "after")


def test_without_answers_a_report_says_nothing_of_a_test(
    made: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    run, before, _ = made
    assert all("istening test" not in text for text in before.values())
    (run / "listening.json").rename(run / "kept")
    try:
        assert render(run, tmp_path) == before
    finally:
        (run / "kept").rename(run / "listening.json")


def test_shares_and_correlations_agree_with_a_reference(
    made: tuple[Path, dict[str, str], dict[str, str]],
) -> None:
    run, _, after = made
    # Every pair of configurations was heard equally often by all raters, so the wins follow from the rankings.
    study = make_reference(run)
    details = after["details.md"]
    for name, share in study.items():
        row = re.search(rf"^\| \*\*{name}\*\* \| (\d+) % \| \d+ % to \d+ % \| 8 \|", details, re.MULTILINE)
        assert row is not None, details
        assert int(row[1]) == pytest.approx(100 * share, abs=0.51)
    # scores of the made run: 0.9, 0.5 and 0.3 from zero-shot to r16-all, lower is better
    names = ["zero-shot", *study]
    strengths = [0.5, *study.values()]
    levels = {"zero-shot": -0.9, "r4-attention": -0.5, "r16-all": -0.3}
    rho = spearmanr(strengths, [levels[name] for name in names]).statistic
    assert f"| mfcc20 | {rho:+.2f} over 3 |" in details


def make_reference(run: Path) -> dict[str, float]:
    """Shares against zero-shot by maximum likelihood of all answers, found by a general optimiser."""
    from lora_bench.listening.bradley_terry import PRIOR
    from lora_bench.listening.study import read_key

    names = ["zero-shot", "r4-attention", "r16-all"]
    wins = np.zeros((3, 3))
    (study,) = read_key(run).studies
    for ranking in RANKINGS:
        for pair in (pair for pair in study.pairs if pair.kind == "comparison"):
            winner, loser = sorted((side.configuration for side in pair.sides), key=ranking.index)
            wins[names.index(winner), names.index(loser)] += 1
    wins[0, 1:] += PRIOR
    wins[1:, 0] += PRIOR

    def loss(found: np.ndarray) -> float:
        strength = np.array([0.0, *found])
        return float(np.sum(wins * np.log1p(np.exp(strength[None, :] - strength[:, None]))))

    best = minimize(loss, np.zeros(2), tol=1e-10).x
    return dict(zip(names[1:], 1 / (1 + np.exp(-best)), strict=True))


def test_the_front_says_it_in_a_line_and_the_page_shows_a_table(
    made: tuple[Path, dict[str, str], dict[str, str]],
) -> None:
    _, _, after = made
    line = next(line for line in after["report.md"].splitlines() if line.startswith("8 raters"))
    assert re.fullmatch(
        r"8 raters and 160 answered pairs: r16-all is preferred to zero-shot in \d+ % of comparisons \(95 % interval \d+ % to "
        r"\d+ %\) and r4-attention in \d+ % of comparisons \(95 % interval \d+ % to \d+ %\)\.",
        line,
    )
    assert "of the comparisons*" not in after["report.md"]  # the table is on the page and in the details
    page = after["report.html"]
    assert (
        page.count(
            "preference: a configuration is preferred to zero-shot in this share of the comparisons</caption>"
        )
        == 2
    )
    assert '<a href="#listening-test">' in page
    assert "sounds more like the genre than zero-shot" in after["details.md"]
    assert "1 file of answers did not count" in after["details.md"]
    assert "late.json: rater" in after["details.md"]


def test_a_damaged_file_is_told_and_the_rest_is_rendered(
    made: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    run, before, _ = made
    whole = (run / "listening.json").read_bytes()
    try:
        (run / "listening.json").write_bytes(whole[:50])
        files = render(run, tmp_path)
    finally:
        (run / "listening.json").write_bytes(whole)
    assert files["report.md"] == before["report.md"]
    assert "## Listening test: damaged file" in files["details.md"]
    assert "listening.json" in files["details.md"]
