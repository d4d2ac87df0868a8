from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_run import (
    PLAIN_PROMPTS,
    PROMPT_HTML,
    PROMPT_KOREAN,
    PROMPT_LONG,
    FakeRun,
    FakeTrial,
    contrast,
    zero_shot,
)

from lora_bench.artifacts import Unscored
from lora_bench.report.render import render_report
from lora_bench.report.writers.document import Bullets, Cell, Code, Column, Paragraph, Table, mark_code
from lora_bench.report.writers.markdown import escape_markdown, write_markdown


def render(run: FakeRun, folder: Path) -> str:
    render_report(run.write(folder / "runs"), folder / "reports")
    place = folder / "reports" / run.name
    return "\n".join((place / name).read_text(encoding="utf-8") for name in ("report.md", "details.md"))


def table_rows(text: str, first_header: str) -> list[list[str]]:
    """Cells of the first table whose first header is `first_header`, header row included."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = [lines[start]]
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_a_complete_trained_run_starts_with_its_headline_and_its_name(tmp_path: Path) -> None:
    lines = render(FakeRun(), tmp_path).splitlines()
    assert lines[0].startswith("# No fine-tuned configuration was compared with zero-shot")
    assert lines[2].startswith("invented · pocket · 1 LoRA configuration")


def test_the_first_line_warns_of_an_untrained_model(tmp_path: Path) -> None:
    first = render(FakeRun(trained=False), tmp_path).splitlines()[0]
    assert first.startswith("**The model pocket is untrained")
    assert first.endswith("**")


def test_approximate_decoding_is_named_where_it_was_used(tmp_path: Path) -> None:
    def write(name: str, place: tuple[str | int, ...], value: object) -> str:
        folder = FakeRun(name=name).write(tmp_path / "runs")
        path = folder / "plan.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        part = document
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        path.write_text(json.dumps(document), encoding="utf-8")
        render_report(folder, tmp_path / "reports")
        place = tmp_path / "reports" / name
        return "\n".join((place / file).read_text(encoding="utf-8") for file in ("report.md", "details.md"))

    words = "rounded to 8 bits"
    assert words not in write("exact", ("spec", "generation", "quantization"), None)
    whole = write("whole", ("spec", "generation", "quantization"), "int8")
    assert ", decoded in int8" in whole
    assert f"approximate for zero-shot and fine-tuned alike: weights and activations were {words}" in whole
    assert "quantization: int8" in whole
    one = write("one", ("trials", 1, "changes"), {"generation.quantization": "int8"})
    assert re.search(rf"Decoding was approximate in \S+: weights and activations were {words}", one)


def test_the_first_line_names_the_trials_that_are_missing_and_why(tmp_path: Path) -> None:
    failed = FakeTrial(
        "r8-ffn", state="failed", stage="train", reason="loss is NaN at step 7", has_scores=False
    )
    waiting = FakeTrial("r9", state=None, has_scores=False)
    text = render(FakeRun(trials=[zero_shot(), failed, waiting]), tmp_path)
    first = text.splitlines()[0]
    assert "incomplete: 2 trials of 3 not done, 6 cells missing" in first
    assert "r8-ffn: failed in stage train: loss is NaN at step 7" in first
    assert "r9: not started" in first
    assert "## What is missing" in text
    assert table_rows(text, "mfcc20 ↓")[1][2:4] == ["— (failed)", "— (not started)"]
    (answer,) = (line for line in text.splitlines() if line.startswith("| **r9** |"))
    assert answer.split(" | ")[1] == "not started"
    assert "Without a verdict: r8-ffn (failed in stage train: loss is NaN at step 7)." in text
    assert "- r9: not started\n" in text
    assert "- r8-ffn: failed in stage train: loss is NaN at step 7\n" in text


def test_an_interrupted_run_renders_what_it_has(tmp_path: Path) -> None:
    cut = FakeTrial("r4", state="interrupted", stage="generate", has_scores=False)
    text = render(FakeRun(trials=[zero_shot(), cut]), tmp_path)
    assert "r4: interrupted in stage generate" in text.splitlines()[0]
    assert table_rows(text, "mfcc20 ↓")[1][1] == "0.900"
    assert table_rows(text, "mfcc20 ↓")[1][2] == "— (interrupted)"
    assert "No fine-tuned configuration was compared with zero-shot" in text


def test_the_score_table_has_prompts_as_rows_and_configurations_as_columns(tmp_path: Path) -> None:
    rows = table_rows(render(FakeRun(), tmp_path), "mfcc20 ↓")
    assert rows[0] == [
        "mfcc20 ↓",
        "zero-shot",
        "r4-attention",
        "reference: real-vs-real",
        "reference: codec",
    ]
    assert [row[0] for row in rows[1:]] == [*PLAIN_PROMPTS, "**all prompts**"]
    assert rows[1][1:] == ["0.900", "0.500", "0.1000", "0.05000"]


def test_values_without_an_interval_stand_alone(tmp_path: Path) -> None:
    text = render(FakeRun(has_interval=False), tmp_path)
    assert table_rows(text, "mfcc20 ↓")[1][1:3] == ["0.9000", "0.5000"]


def test_a_metric_where_more_is_better_points_up(tmp_path: Path) -> None:
    text = render(FakeRun(metrics=["clap_score"]), tmp_path)
    assert "## clap\\_score ↑" in text
    assert "higher is better" in text


def test_cautions_of_scores_are_listed(tmp_path: Path) -> None:
    assert "- an invented caution" in render(FakeRun(bias=0.05), tmp_path)


def test_training_seeds_are_one_column_with_their_mean(tmp_path: Path) -> None:
    seeds = [FakeTrial("r4", seed=0, base=0.5), FakeTrial("r4", seed=1, base=0.7)]
    rows = table_rows(render(FakeRun(trials=[zero_shot(), *seeds]), tmp_path), "mfcc20 ↓")
    assert rows[0][2] == "r4"
    assert rows[1][2] == "0.60"  # its standard error is 0.10


def test_verdicts_stand_in_the_headline_the_answer_and_the_table_of_differences(tmp_path: Path) -> None:
    tuned = FakeTrial("r4")
    told = [
        contrast(tuned, "mfcc20", PLAIN_PROMPTS[0], "better"),
        contrast(tuned, "mfcc20", PLAIN_PROMPTS[1], "inconclusive"),
        contrast(tuned, "mfcc20", None, "better"),
    ]
    text = render(FakeRun(trials=[zero_shot(), tuned], contrasts=told), tmp_path).replace("\u00a0", " ")
    assert text.startswith("# Fine-tuning moved the music 36 % closer to the genre.")
    answer = table_rows(text, "configuration")
    assert answer[0] == [
        "configuration",
        "verdict",
        "change",
        "difference (95 % interval)",
        "parameters",
        "minutes",
    ]
    assert answer[1][:4] == ["**r4**", "better", "-36 %", "-0.40 (-0.50 to -0.30)"]
    differences = text.split("## mfcc20 ↓, primary")[1]
    assert "| r4 | invented march | -0.40 | -0.50 to -0.30 | 0.140 | 1 | better |" in differences
    assert "| r4 | invented waltz | -0.40 | -0.50 to -0.30 | 0.140 | 1 | inconclusive |" in differences


@pytest.mark.parametrize(
    ("verdicts", "deltas", "headline"),
    [
        ("bie", (-0.5, 0.1, 0.0), "1 of 3 configurations moved the music closer to the genre: a, by 45 %."),
        (
            "bbi",
            (-0.5, -0.2, 0.0),
            "2 of 3 configurations moved the music closer to the genre: a most, by 45 %.",
        ),
        (
            "bwi",
            (-0.5, 0.5, 0.0),
            "1 of 3 configurations moved the music closer to the genre: a, by 45 %; 1 moved it farther.",
        ),
        ("wi", (0.5, 0.1), "1 of 2 configurations moved the music farther from the genre: a, by 45 %."),
        ("w", (0.5,), "Fine-tuning moved the music 45 % farther from the genre."),
        (
            "ee",
            (0.0, 0.01),
            "Fine-tuning makes no difference that matters: every change is within the margin.",
        ),
        (
            "ii",
            (-0.11, 0.1),
            "Whether fine-tuning helps is not settled: the best change is -10 %, and this design finds 13 % and more.",
        ),
    ],
)
def test_the_headline_follows_from_the_verdicts(verdicts: str, deltas, headline: str, tmp_path: Path) -> None:
    words = {"b": "better", "w": "worse", "e": "equivalent", "i": "inconclusive"}
    trials = [FakeTrial(name) for name in "abc"[: len(verdicts)]]
    told = [
        contrast(trial, "mfcc20", None, words[letter], delta=delta)
        for trial, letter, delta in zip(trials, verdicts, deltas, strict=True)
    ]
    text = render(FakeRun(trials=[zero_shot(), *trials], contrasts=told), tmp_path)
    assert text.splitlines()[0].replace("\u00a0", " ") == f"# {headline}"


def test_one_training_seed_is_said_to_speak_of_this_adapter(tmp_path: Path) -> None:
    tuned = FakeTrial("r4")
    several = [{"trial": tuned.id, "train_seed": seed, "delta": -0.4} for seed in range(3)]
    for seeds, said in ((several[:1], True), (several, False)):
        told = [contrast(tuned, "mfcc20", None, "better", seeds=seeds)]
        text = render(FakeRun(trials=[zero_shot(), tuned], contrasts=told, name=f"n{len(seeds)}"), tmp_path)
        assert ("this is about these adapters" in text) == said


def test_what_limits_an_inconclusive_answer_is_named(tmp_path: Path) -> None:
    tuned = FakeTrial("r4")
    told = [contrast(tuned, "mfcc20", None, "inconclusive", variance={"clips": 1.0, "tracks": 3.0})]
    text = render(FakeRun(trials=[zero_shot(), tuned], contrasts=told), tmp_path)
    assert "limited by the number of held-out tracks: they make up 75% of the variance" in text


def test_an_unscored_cell_is_a_dash_with_its_reason_below_and_the_run_complete(tmp_path: Path) -> None:
    gap = Unscored("mfcc20", PLAIN_PROMPTS[0], "mfcc20: weights are unavailable; `get` them")
    text = render(FakeRun(trials=[zero_shot(), FakeTrial("r4", unscored=(gap,))]), tmp_path)
    assert "incomplete" not in text
    assert table_rows(text, "mfcc20 ↓")[1][2] == "— (unscored)"
    assert "| weights are unavailable; `get` them |" in text


def test_prompts_with_markup_long_and_korean_ones_keep_the_table_whole(tmp_path: Path) -> None:
    text = render(FakeRun(prompts=[PROMPT_HTML, PROMPT_KOREAN, PROMPT_LONG]), tmp_path)
    rows = table_rows(text, "mfcc20 ↓")
    assert {len(row) for row in rows} == {5}
    assert len(rows) == 5
    prose = text.split("```yaml")[0]
    assert "<script" not in prose
    assert rows[1][0].startswith("\\[P1\\] &lt;script&gt;")
    assert all(len(row[0]) < 120 for row in rows)
    assert PROMPT_LONG in prose
    assert PROMPT_KOREAN in prose


def test_many_configurations_are_divided_into_tables_that_repeat_zero_shot(tmp_path: Path) -> None:
    trials = [zero_shot(), *(FakeTrial(f"r{rank}", rank=rank) for rank in range(1, 21))]
    text = render(FakeRun(trials=trials), tmp_path)
    headers = [line for line in text.splitlines() if line.startswith("| mfcc20 ↓ | zero-shot")]
    assert len(headers) == 4
    assert all(sum(f"| r{rank} |" in header for header in headers) == 1 for rank in range(1, 21))
    assert "(part 1 of 4)" in text


def test_a_single_trial_renders(tmp_path: Path) -> None:
    text = render(FakeRun(trials=[zero_shot()]), tmp_path)
    assert table_rows(text, "mfcc20 ↓")[0][:2] == ["mfcc20 ↓", "zero-shot"]
    assert "There is nothing to compare zero-shot with" in text


def test_the_sections_tell_data_model_adapters_training_costs_and_how_to_reproduce(tmp_path: Path) -> None:
    text = render(FakeRun(guards=[{"trial": zero_shot().id, "prompt": None, "repetition": 0.25}]), tmp_path)
    assert "| training | 8 | 8.0 | 8 |" in text
    assert "`bad|file.wav`: 0 samples; export it again" in text
    assert "self\\_attention 8" in text
    assert "| r4-attention | 4.0000 | 2.0000 | 4.2000 | 2.2000 | 2.2000 | 20 | 20 |" in text
    assert "resampler soxr-hq 1" in text
    assert "lora-bench run invented.yaml" in text
    assert "eval_frac: 0.2" in text
    assert "repetition" in text
    assert "![Plot of mfcc20 per prompt and configuration](levels.svg)" in text


@settings(deadline=None)
@given(st.text())
def test_escaped_text_holds_no_unescaped_markup(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*<>\[\]]", escaped)


@pytest.mark.parametrize("code", ["a|b", "`tick`", "``", "a`b"])
def test_code_in_a_table_keeps_the_row_whole(code: str) -> None:
    table = Table("c", (Column("h", is_numeric=False), Column("x")), ((Cell((Code(code),)), Cell("1")),))
    row = write_markdown([table]).splitlines()[2]
    assert len(re.split(r"(?<!\\)\|", row)) == 4


def test_text_next_to_code_keeps_its_blanks() -> None:
    assert (
        write_markdown([Paragraph(("Save as ", Code("x.yaml"), " and run"))]) == "Save as `x.yaml` and run\n"
    )
    assert write_markdown([Bullets((("a ", Code("b"), ": c"),))]) == "- a `b`: c\n"


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("`repeats: {seeds: [0]}` gives them", "- `repeats: {seeds: [0]}` gives them\n"),
        ("run `a` or `b`", "- run `a` or `b`\n"),
        ("a ` alone", "- a \\` alone\n"),
        ("nothing", "- nothing\n"),
    ],
)
def test_backticks_of_a_message_mark_code_if_they_come_in_pairs(message: str, written: str) -> None:
    assert write_markdown([Bullets((mark_code(message),))]).endswith(written)
