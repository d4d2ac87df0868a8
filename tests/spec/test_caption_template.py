from __future__ import annotations

import pytest
from pydantic import ValidationError

from lora_bench.spec.caption_template import FieldFormatError, parse_template
from lora_bench.spec.captions import CaptionSpec

USUAL = "{genre}, {mood}, {bpm:.0f} bpm, {key}, {instruments}"


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        (USUAL, {"genre": "rock", "mood": "sad", "bpm": 119.6, "key": "A minor", "instruments": "flute"},
         "rock, sad, 120 bpm, A minor, flute"),
        (USUAL, {"mood": "sad", "key": "A minor"}, "sad, A minor"),
        (USUAL, {"bpm": "120"}, "120 bpm"),
        (USUAL, {}, ""),
        ("a {genre} loop; {mood}. {bpm} bpm.", {"mood": "calm"}, "calm."),
        ("Genre: {genre}. Mood: {mood}, {key}.", {"genre": "folk", "key": "C major"}, "Genre: folk. C major."),
        ("{bpm:.0f} bpm[ in {key}]", {"bpm": 90.0}, "90 bpm"),
        ("{bpm:.0f} bpm[ in {key}]", {"bpm": 90.0, "key": "C major"}, "90 bpm in C major"),
        ("my genre[, {mood}]", {}, "my genre"),
        ("{title} - {artist}", {"artist": "Ann"}, "Ann"),
        ("{year}|{mood}", {"year": 1999.0, "mood": ""}, "1999"),
        ("{{literal}} {mood}", {"mood": "a, b"}, "{literal} a, b"),
        ("up-beat, 3.5 {mood}", {"mood": "x"}, "up-beat, 3.5 x"),
    ],
)  # fmt: skip
def test_missing_fields_drop_out_with_their_part(template, values, text):
    assert parse_template(template).render(values) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a.b}", r"`\{a\.b\}` is not a field; expected a name alone"),
        ("{a[0]}", "is not a field"),
        ("{a!r}", "is not a field"),
        ("{}", "is not a field"),
        ("{bpm:zz}", "`zz` is not a format .*write {bpm:.0f}"),
        ("{bpm", r"write \{\{ and \}\}"),
        ("[{a}", r"`\[` is not closed"),
        ("{a}]", r"`\]` has no `\[` before it"),
        ("[a [{b}]]", "stands within brackets"),
        ("only words", "has no field such as"),
    ],
)
def test_a_template_that_cannot_be_parsed_is_an_error_of_the_spec(template, message):
    with pytest.raises(ValidationError, match=message):
        CaptionSpec(template=template)


def test_a_word_where_a_number_is_asked_for_is_an_error():
    with pytest.raises(
        FieldFormatError, match=r"`bpm` is `fast`, which `\{bpm:\.0f\}` cannot write as a number"
    ):
        parse_template("{bpm:.0f} bpm").render({"bpm": "fast"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "a", "template": "{b}"}, "`text` is given, so `template` would not be used"),
        ({"text": "a", "command": "b"}, "so `command` would not be used"),
        ({"source": "sidecar", "file": "a.csv"}, "`source` is `sidecar`"),
        ({"folders": ["artist"]}, "`folders` gives fields to `template`, which is missing"),
        ({"command": "'"}, "cannot be split into words"),
    ],
)
def test_settings_that_would_not_be_used_are_errors(fields, message):
    with pytest.raises(ValidationError, match=message):
        CaptionSpec(**fields)


def test_captions_of_earlier_specs_are_written_as_before():
    assert CaptionSpec().model_dump() == {"text": None, "source": None}
    assert CaptionSpec(text="a").model_dump() == {"text": "a", "source": None}
