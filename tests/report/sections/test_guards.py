"""Guards, text control, and comparisons with the baseline, as readers see them."""

from __future__ import annotations

from pathlib import Path

from support.fake_run import PLAIN_PROMPTS, FakeRun, FakeTrial, contrast, write_json, zero_shot

from lora_bench.report.render import render_report

TUNED = FakeTrial("r4")
ABOUT = {"silence_dbfs": -60.0, "interval": "none; the control row is the yardstick"}


def render(run: FakeRun, tmp_path: Path, **files) -> str:
    place = run.write(tmp_path / "runs")
    for name, content in files.items():
        write_json(place / f"{name}.json", content)
    render_report(place, tmp_path / "reports")
    place = tmp_path / "reports" / "invented"
    return "\n".join((place / name).read_text(encoding="utf-8") for name in ("report.md", "details.md"))


def guard(trial, prompt, **figures):
    return {
        "trial": trial, "prompt": prompt, "n_clips": 10, "diversity": {"mfcc20": 0.5}, "unscored": {},
        "provenance": ABOUT,
    } | figures  # fmt: skip


def find_row(text: str, *cells: str) -> list[str]:
    [row] = [line for line in text.splitlines() if line.startswith("| " + " | ".join(cells) + " |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_guards_stand_by_trial_and_prompt_below_the_held_out_recordings(tmp_path: Path) -> None:
    records = [
        guard(None, None, repetition=0.25, copy_similarity=0.5),
        guard(
            TUNED.id, PLAIN_PROMPTS[0], repetition=0.75, copy_similarity=0.875, nearest_copy="clip 3: a.wav"
        ),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED], guards=records), tmp_path)
    assert text.index("held-out recordings |") < text.index("| r4 | invented march | 10 | 0.500 | 0.750 |")
    assert "diversity (mfcc20)" in text
    assert "| r4 | invented march | 10 | 0.875 | clip 3: a.wav |" in text
    assert (
        "Guards were computed with: silence dbfs -60; interval none; the control row is the yardstick."
        in text
    )


def test_recall_and_coverage_stand_by_encoder_only_where_a_run_has_them(tmp_path: Path) -> None:
    title = "Recall is the share of held-out excerpts"
    earlier = [guard(None, None), guard(TUNED.id, None)]
    assert title not in render(FakeRun(trials=[zero_shot(), TUNED], guards=earlier), tmp_path / "earlier")
    records = [
        guard(None, None, recall={"mfcc20": 0.75}, coverage={"mfcc20": 0.625}),
        guard(zero_shot().id, None),
        guard(
            TUNED.id, PLAIN_PROMPTS[0], recall={"mfcc20": 0.5}, coverage={"mfcc20": 0.25, "encodec": 0.125}
        ),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED], guards=records), tmp_path)
    shown = text[text.index(title) :]
    assert find_row(shown, "clips of", "prompt")[2:] == [
        "recall (mfcc20)", "coverage (mfcc20)", "recall (encodec)", "coverage (encodec)",
    ]  # fmt: skip
    shown = shown.partition("Guards were computed")[0]
    assert find_row(shown, "held-out recordings", "")[2:] == ["0.750", "0.625", "\u2014", "\u2014"]
    assert find_row(shown, "zero-shot", "**all prompts**")[2:] == ["\u2014"] * 4
    assert find_row(shown, "r4", "invented march")[2:] == ["0.500", "0.250", "\u2014", "0.125"]
    assert "The row of all prompts takes all of their clips as one set." in shown


def test_a_guard_that_could_not_be_had_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    records = [
        guard(
            zero_shot().id,
            None,
            repetition=0.25,
            code_match=0.125,
            unscored={"prompt adherence": "no weights"},
        ),
        guard(TUNED.id, None, unscored={"prompt adherence": "no weights"}),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED], guards=records), tmp_path)
    assert "| r4 | **all prompts** | 10 | 0.500 | — |" in text
    assert text.count("prompt adherence: no weights") == 1


def test_control_tells_separation_pull_and_the_kind_of_prompt(tmp_path: Path) -> None:
    about = {"encoder": "mfcc20", "interval": "95 %"}
    shared = {"figure": "control", "trial": TUNED.id, "encoder": "mfcc20", "provenance": about}
    figures = {
        "separation_base": 2.0, "separation": 0.5, "separation_change": -1.5, "separation_change_ci_low": -2.0,
        "separation_change_ci_high": -1.0, "told_apart_base_frac": 0.875,
        "told_apart_frac": 0.5, "pull": 0.25, "pull_ci_low": 0.125, "pull_ci_high": 0.375,
        "retention": 0.75, "retention_ci_low": 0.625, "retention_ci_high": 0.875,
    }  # fmt: skip
    records = [
        shared | figures | {"prompt": PLAIN_PROMPTS[0], "off_genre": True},
        shared | {"prompt": PLAIN_PROMPTS[1], "off_genre": False, "note": "only 2 clips"},
        shared | figures | {"prompt": None, "off_genre_less_in_genre_pull": -0.5},
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED]), tmp_path, guards={"guards": [], "control": records})
    assert "## Is text control kept?" in text
    row = find_row(text, "r4", "invented march", "off-genre")
    assert [cell.replace("\u00a0", " ") for cell in row[3:]] == [
        "2.000 → 0.500", "-1.500 (-2.00 to -1.00)", "0.875 → 0.500",
        "+0.250 (+0.12 to +0.38)", "0.750 (0.62 to 0.88)",
    ]  # fmt: skip
    assert find_row(text, "r4", "invented waltz", "genre's own")[3] == "—"
    assert "by mfcc20: -0.500" in text
    assert "only 2 clips" in text
    assert "These measures were computed with: encoder mfcc20; interval 95 %." in text


def test_the_baselines_contrasts_neither_replace_nor_join_those_with_zero_shot(tmp_path: Path) -> None:
    other = FakeTrial("r8")
    told = [
        contrast(other, "mfcc20", None, "better"),
        contrast(other, "mfcc20", None, "worse", delta=0.75, against=TUNED.name, kind="baseline"),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED, other]), tmp_path, contrasts={"contrasts": told})
    zero_part, _, baseline_part = text.partition("mfcc20: each configuration less zero-shot")
    assert find_row(zero_part, "r8", "**all prompts**")[2] == "-0.40"
    assert find_row(baseline_part, "r8", "**all prompts**")[2] == "+0.75"
    assert "| worse |" not in zero_part


def test_a_contrast_has_the_number_of_its_seeds_and_one_that_is_not_primary_is_descriptive(
    tmp_path: Path,
) -> None:
    seeds = [{"trial": TUNED.id, "train_seed": seed, "delta": -0.5} for seed in range(3)]
    told = [
        contrast(TUNED, "mfcc20", None, "better", seeds=seeds),
        contrast(TUNED, "mfcc20", "invented waltz", None),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED]), tmp_path, contrasts={"contrasts": told})
    row = find_row(text, "r4", "**all prompts**")
    assert (row[2], row[4], row[5], row[6]) == ("-0.40", "0.140", "3", "better")
    assert find_row(text, "r4", "invented waltz")[6] == "descriptive"


def test_another_system_has_the_seeds_of_what_it_is_compared_with(tmp_path: Path) -> None:
    other = FakeTrial("sines", kind="external", seed=None)
    seeds = [{"trial": other.id, "train_seed": seed, "delta": -0.5} for seed in range(2)]
    told = [
        contrast(other, "mfcc20", None, "better", seeds=seeds[:1], paired=False),
        contrast(
            other, "mfcc20", PLAIN_PROMPTS[0], None, kind="baseline", against="r4", seeds=seeds, paired=False
        ),
    ]
    text = render(FakeRun(trials=[zero_shot(), TUNED, other]), tmp_path, contrasts={"contrasts": told})
    assert find_row(text, "sines", "**all prompts**")[5] == "\u2014"
    assert find_row(text, "sines", PLAIN_PROMPTS[0])[5] == "2 of r4"


def test_held_out_recordings_of_several_sets_of_tracks_are_told_apart(tmp_path: Path) -> None:
    small = FakeTrial("small")
    records = [
        guard(trial, None, copy_similarity=similarity, provenance=ABOUT | {"dataset": tracks})
        for trial, tracks, similarity in (
            (None, "all", 0.5), (None, "part", 0.25), (zero_shot().id, "all", 0.125), (TUNED.id, "all", 0.125),
            (small.id, "part", 0.0625),
        )
    ]  # fmt: skip
    text = render(FakeRun(trials=[zero_shot(), TUNED, small], guards=records), tmp_path)
    assert "| held-out recordings (for zero-shot) |  | 10 | 0.500 |" in text
    assert "| held-out recordings (for small) |  | 10 | 0.250 |" in text
    assert "one such row for each set of training and held-out tracks" in text
