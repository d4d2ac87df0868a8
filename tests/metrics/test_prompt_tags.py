"""Tags that prompts name: whole words, other forms, and prompts without any."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from lora_bench.errors import UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import is_higher_better
from lora_bench.metrics.prompt_tags import OTHER_FORMS, TAGS, choose_prompts, find_tags


@pytest.mark.parametrize(
    ("prompt", "tags"),
    [
        ("calm piano music", ("piano",)),
        ("Slow PIANO and violin, then piano again", ("slow", "piano", "violin")),
        ("upbeat orchestral piece with jazz influences, featuring piano and strings", ("piano", "strings")),
        ("a string quartet with two violins", ("strings", "violin")),
        ("electronic track with synthesizers; noise drums", ("electronic", "synth", "drums")),
        ("a choir of male voices", ("choir", "male")),
        ("a male voice", ("male voice",)),  # the longest one
        ("new-age music for harp", ("new age", "harp")),
        ("rock, no vocals", ("rock", "no vocals")),
        ("rock without drums or a beat", ("rock",)),
        ("rock, no male vocals, piano", ("rock", "piano")),
        ("no heavy drums", ()),
        ("without any loud electronic beat", ()),
        ("no drums piano", ("piano",)),
        ("no vocals or drums, flute", ("no vocals", "flute")),
        ("without drums/guitar, nor a choir; cello and harp", ("cello", "harp")),
        ("slow no-beat ambient", ("slow", "ambient")),
        ("non-vocal ambient, not slow rock", ("ambient", "rock")),
        ("not a loud song, no piano; non-vocal", ()),
        ("pianoforte, upbeat, womanly, harpsichordist, rocky", ()),
        ("maplestory background music", ()),
    ],
)
def test_tags_are_whole_words_of_the_prompt(prompt: str, tags: tuple[str, ...]) -> None:
    assert find_tags(prompt) == tags


def test_every_tag_names_itself_and_other_forms_are_no_tags() -> None:
    assert [find_tags(tag.upper()) for tag in TAGS] == [(tag,) for tag in TAGS]
    assert len(set(TAGS)) == 50
    assert not set(OTHER_FORMS) & set(TAGS)
    assert set(OTHER_FORMS.values()) <= set(TAGS)


@pytest.mark.skipif(find_spec("musicnn") is None, reason="the musicnn package is not installed")
def test_the_tags_are_those_of_the_checkpoint() -> None:
    from lora_bench.encoders.musicnn import CHECKPOINTS, read_tags
    from lora_bench.encoders.tag_adherence import TAGGER

    assert read_tags(CHECKPOINTS[TAGGER]) == TAGS


def test_prompts_without_tags_are_left_out_with_a_note() -> None:
    assert choose_prompts("mfcc20", ["a", "b"]) == (("a", "b"), [])
    assert choose_prompts("tag-adherence", ["a harp", "a flute"]) == (("a harp", "a flute"), [])
    assert choose_prompts("tag-adherence", ["a", "a harp", "b"]) == (
        ("a harp",),
        ["2 of 3 prompts name none of the tagger's 50 tags and are left out"],
    )
    with pytest.raises(
        UnscoredError, match=r"^tag-adherence: the prompt names none of the tagger's 50 tags$"
    ):
        choose_prompts("tag-adherence", ["a"])
    with pytest.raises(UnscoredError, match=r"^tag-adherence: the prompts name none of the tagger's 50 tags"):
        choose_prompts("tag-adherence", ["a", "b"])


def test_the_metric_has_one_name() -> None:
    metric = parse_metric("tag-adherence")
    assert not metric.has_references
    assert is_higher_better(metric.name)
    for name in ("fad/tag-adherence", "mean/tag-adherence", "tag-adherence@codec"):
        with pytest.raises(ValueError, match=f"unknown metric `{name}`.*and tag-adherence"):
            parse_metric(name)
