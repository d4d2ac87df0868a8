from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
import soundfile
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, PROMPT_LONG, FakeRun, FakeTrial, contrast, zero_shot

from lora_bench.report.render import render_report
from lora_bench.report.writers.document import (
    Bar,
    Block,
    Bullets,
    Cell,
    Chip,
    Clip,
    Code,
    CodeBlock,
    Column,
    Figure,
    Fold,
    Heading,
    Link,
    Listening,
    Matrix,
    MatrixRow,
    Paragraph,
    Strong,
    Table,
)
from lora_bench.report.writers.html import write_page
from lora_bench.report.writers.svg import Canvas

HOSTILE = """</title></style></script>--> {{ 7 * 7 }} &quot;"'` onload=x><script>alert(1)</script><img src=x onerror=y>"""
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """Collects tags and complains of nesting that does not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def parse(html: str) -> Outline:
    outline = Outline()
    outline.feed(html)
    outline.close()
    assert outline.open == []
    return outline


def render(run: FakeRun, folder: Path) -> str:
    render_report(run.write(folder / "runs"), folder / "reports")
    return (folder / "reports" / run.name / "report.html").read_text(encoding="utf-8")


def test_prompts_with_markup_stay_text(tmp_path: Path) -> None:
    html = render(FakeRun(prompts=[PROMPT_HTML, PROMPT_KOREAN, PROMPT_LONG], n_wavs=1), tmp_path)
    outline = parse(html)
    assert len(outline.all("script")) == 1
    assert '<script>alert("x")</script>' in "".join(outline.text)
    assert PROMPT_KOREAN in html


def make_blocks(text: str) -> list[Block]:
    """Every kind of block, with `text` in every field that holds text."""
    bar = Bar(text, (-1.0, 0.0, 1.0), (-2.0, 2.0), 0.5)
    spans = (text, Strong(text), Code(text), Link(text, text), Chip(text), bar)
    canvas = Canvas(10, 10, text)
    canvas.text(0, 0, text, kind=text)
    canvas.dot(0, 0, text, hint=text)
    canvas.box((0, 0, 1, 1), text, hint=text)
    clips = (Clip(text, text, None, None), Clip(text, None, text, text), Clip(text, None, None, None))
    return [
        Heading(2, text, text),
        Paragraph(spans),
        Paragraph(text, is_warning=True),
        Bullets((text, spans)),
        Table(text, (Column(spans), Column(text)), ((Cell(spans, hint=text), Cell(text, 1.0, text)),)),
        Figure(text, text, text, canvas.render()),
        CodeBlock(text, text),
        Listening(text, text, clips),
        Matrix((text, text, text), (MatrixRow(text, text, 0, clips),)),
        Fold(text, text, (Paragraph(text),)),
    ]


def test_hostile_text_in_any_field_of_any_block_adds_no_tag_and_no_attribute() -> None:
    assert {type(block) for block in make_blocks("x")} == set(get_args(Block))
    harmless, hostile = (parse(write_page(text, make_blocks(text))) for text in ("x", HOSTILE))
    names = [[(tag, *attrs) for tag, attrs in outline.tags] for outline in (harmless, hostile)]
    assert names[0] == names[1]
    values = [value for _, attrs in hostile.tags for value in attrs.values()]
    assert values.count(HOSTILE) == [v for _, attrs in harmless.tags for v in attrs.values()].count("x")
    assert "".join(hostile.text).count(HOSTILE) == [piece.strip() for piece in harmless.text].count("x")


def test_a_plot_that_the_canvas_did_not_draw_is_text() -> None:
    outline = parse(write_page("t", [Figure("s", "a", "c", "<svg onload=x></svg>")]))
    assert outline.all("svg") == []


def test_nothing_is_loaded_from_outside(tmp_path: Path) -> None:
    outline = parse(render(FakeRun(n_wavs=1, n_references=1), tmp_path))
    sources = [
        attrs[key] for _, attrs in outline.tags for key in ("src", "srcset", "poster", "data") if key in attrs
    ]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert [attrs["href"] for attrs in outline.all("link")] == ["data:,"]
    assert not re.search(r"url\(|@import", "".join(outline.text))


def test_the_policy_allows_exactly_the_style_and_script_of_the_page(tmp_path: Path) -> None:
    html = render(FakeRun(), tmp_path)
    policy = next(
        a["content"] for a in parse(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert " style=" not in html


def test_players_hold_the_same_prompt_and_index_side_by_side_and_a_reference(tmp_path: Path) -> None:
    run = FakeRun(n_wavs=3, n_references=2)
    html = render(run, tmp_path)
    (matrix,) = re.findall(r'<section class="matrix">(.*?)</section>', html, re.S)
    assert re.findall(r'<th scope="col">(.*?)</th>', matrix) == [
        "prompt", "clip", "zero-shot", "r4-attention", "reference",
    ]  # fmt: skip
    rows = re.findall(r"<tr><th(.*?)</tr>", matrix, re.S)[1:]
    assert len(rows) == 4  # two prompts, two clip indices
    for row in rows:
        labels = re.findall(r'class="play" aria-pressed="false" aria-label="(.*?): ', row)
        assert labels[:2] == ["zero-shot", "r4-attention"]
        assert re.search(r"reference: song [89]\.wav", row)
    sounds = re.findall(r'data-sound="data:audio/mpeg;base64,([^"]+)"', html)
    assert len(sounds) == 12
    for sound in sounds:
        info = soundfile.info(io.BytesIO(base64.b64decode(sound)))
        assert info.samplerate == 16_000
        assert info.duration == pytest.approx(1.0, abs=0.15)


def test_clips_that_do_not_fit_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_bench.report.audio.choose_clips.BUDGET_BYTES", 20_000)
    html = render(FakeRun(n_wavs=2), tmp_path)
    links = re.findall(r'<a href="([^"#]+)">open the file</a>', html)
    assert html.count("data-sound=") in range(1, 8)
    assert links
    assert all((tmp_path / "reports" / "invented" / link).resolve().is_file() for link in links)


def test_a_damaged_clip_is_named_and_does_not_stop_the_report(tmp_path: Path) -> None:
    run = FakeRun(n_wavs=1)
    folder = run.write(tmp_path / "runs")
    wav = next((folder / "trials" / zero_shot().id / "clips").rglob("*.wav"))
    wav.write_bytes(b"RIFF")
    render_report(folder, tmp_path / "reports")
    html = (tmp_path / "reports" / "invented" / "report.html").read_text(encoding="utf-8")
    assert "zero-shot (damaged file)" in html


def test_tables_have_captions_scoped_headers_and_sort_keys(tmp_path: Path) -> None:
    html = render(FakeRun(), tmp_path)
    outline = parse(html)
    n_tables = len(outline.all("table"))
    assert n_tables >= 4
    assert len(outline.all("caption")) == n_tables
    assert {attrs.get("scope") for attrs in outline.all("th")} == {"col", "row"}
    assert 'data-order="0.5"' in html
    regions = [attrs for attrs in outline.all("div") if attrs.get("role") == "group"]
    assert all(attrs["aria-label"] and attrs["tabindex"] == "0" for attrs in regions)


def test_every_image_and_player_has_a_label_and_the_contents_lead_to_headings(tmp_path: Path) -> None:
    outline = parse(render(FakeRun(n_wavs=1), tmp_path))
    assert all(
        attrs["aria-label"] for attrs in (*outline.all("audio"), *outline.all("button")) if "class" in attrs
    )
    assert all(attrs["aria-label"] for attrs in outline.all("svg"))
    anchors = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    targets = {attrs["href"][1:] for attrs in outline.all("a") if attrs["href"].startswith("#")}
    assert targets
    assert targets <= anchors


def test_verdicts_are_words_beside_their_colour(tmp_path: Path) -> None:
    tuned = FakeTrial("r4")
    html = render(
        FakeRun(trials=[zero_shot(), tuned], contrasts=[contrast(tuned, "mfcc20", None, "worse")]), tmp_path
    )
    assert '<span class="chip worse">worse</span>' in html


def test_control_characters_do_not_reach_the_page() -> None:
    cell = Cell("a\x00\x08b", hint="\x1b[31m")
    html = write_page(
        "t\x00", [Heading(1, "h\x07", "top"), Paragraph("p\ud800"), Table("c", (Column("x"),), ((cell,),))]
    )
    assert not re.search(r"[\x00-\x08\x1b\ud800]", html)
    html.encode("utf-8")
