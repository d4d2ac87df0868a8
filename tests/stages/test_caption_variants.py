"""Several captions per track: which there are, and which one training takes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_data import load_tiny, make_manifest
from support.training import StopAt, assert_same_adapter

from lora_bench.artifacts import AudioFormat
from lora_bench.errors import DatasetError
from lora_bench.models.token_set import load_tokens, save_tokens
from lora_bench.progress import SilentProgress
from lora_bench.spec.caption_template import parse_template
from lora_bench.spec.captions import CaptionSpec
from lora_bench.spec.schema import DatasetSpec, LoraSpec, TrainSpec
from lora_bench.stages.dataset import manifest_from_json, prepare_dataset
from lora_bench.stages.dataset.caption_variants import vary
from lora_bench.stages.dataset.composing import Described
from lora_bench.stages.dataset.field_names import Value
from lora_bench.stages.tokens import encode_dataset
from lora_bench.stages.train import train_adapter
from lora_bench.stages.train.schedule import draw_captions, drop_captions
from lora_bench.store import Store, to_jsonable

SONG = Described("a.wav", {name: Value(name.upper(), "x") for name in ("genre", "mood", "key", "trigger")})


def list_variants(text, *more, dropout=None, content="c"):
    templates = [parse_template(each) for each in (text, *more)]
    return [found for _, found in vary(templates, SONG, content, dropout)]


def test_fields_are_left_out_as_often_as_asked_and_a_track_keeps_its_captions():
    texts = [
        text for index in range(400) for text in list_variants("a, {genre}, {mood}, {key}", dropout=0.3, content=str(index))
    ]  # fmt: skip
    assert len(texts) == 3200
    for field in ("GENRE", "MOOD", "KEY"):
        assert np.mean([field in text for text in texts]) == pytest.approx(0.7, abs=0.03)
    whole = Counter(texts)["a, GENRE, MOOD, KEY"] / len(texts)
    assert whole == pytest.approx(0.7**3, abs=0.03)  # independently of each other
    assert list_variants("{genre}, {mood}", dropout=0.5) == list_variants("{genre}, {mood}", dropout=0.5)


def test_alternatives_are_there_whole_and_the_trigger_is_never_left_out():
    assert list_variants("{genre}", "{mood}!", "{key}") == ["MOOD!", "KEY"]
    texts = list_variants("{trigger}, {genre}", "{trigger} in {key}", dropout=0.9)
    assert all("TRIGGER" in text for text in texts if "in" not in text)
    assert "TRIGGER in KEY" in texts
    assert "" not in list_variants("{genre}", dropout=0.9)


@pytest.fixture
def folder(tmp_path, make_tone, save_sound):
    rows = ["file,genre,mood,caption_2"]
    for index in range(4):
        save_sound(tmp_path / "genre" / f"{index}.wav", make_tone(2.0, tone_hz=300.0 + 50.0 * index))
        rows.append(f"{index}.wav,waltz,calm {index},text {index}")
    (tmp_path / "genre" / "captions.csv").write_text("\n".join(rows))
    return tmp_path / "genre"


def prepare(folder, **fields):
    spec = DatasetSpec(path=folder, captions=CaptionSpec(template="{genre}, {mood}", **fields), clip_s=1.0)
    store = Store(folder.parent / "cache")
    return prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress())


def test_the_manifest_has_the_captions_of_each_track_and_the_main_one_stays(folder):
    plain = prepare(folder)
    varied = prepare(folder, alternatives=["{caption_2}"], trigger="xyz")
    for before, track in zip(plain.tracks, varied.tracks, strict=True):
        index = track.source[0]
        assert track.caption == f"xyz, {before.caption}"
        assert track.variants == (f"xyz, waltz, calm {index}", f"xyz, text {index}")
    assert varied.key != prepare(folder, trigger="xyz").key
    assert manifest_from_json(json.loads(json.dumps(to_jsonable(varied)))).tracks == varied.tracks
    assert "variants" not in json.dumps(to_jsonable(plain))
    assert prepare(folder, field_dropout=0.5).key != prepare(folder, field_dropout=0.1).key
    with pytest.raises(DatasetError, match="no track has the field `moood`"):
        prepare(folder, alternatives=["{moood}"])


def test_a_spec_without_them_keeps_its_identity_and_one_without_a_template_is_refused():
    assert CaptionSpec().model_dump().keys().isdisjoint({"alternatives", "field_dropout"})
    for fields in ({"alternatives": ["{a}"]}, {"field_dropout": 0.5}):
        with pytest.raises(ValidationError, match="varies the captions of `template`, which is missing"):
            CaptionSpec(**fields)
    with pytest.raises(ValidationError, match="has no field"):
        CaptionSpec(template="{a}", alternatives=["plain"])


def test_training_takes_the_captions_that_the_schedule_draws_and_held_out_loss_the_main_one(
    tmp_path, monkeypatch
):
    model = load_tiny(tmp_path / "model")
    manifest = make_manifest(tmp_path / "data")
    texts = ("a song", "one", "two of them")
    tracks = tuple(replace(track, caption="a song", variants=texts) for track in manifest.tracks)
    slices = tuple(replace(piece, caption="a song") for piece in manifest.slices)
    varied = replace(manifest, key="varied", tracks=tracks, slices=slices)
    tokens = encode_dataset(varied, model, Store(tmp_path / "cache"), SilentProgress())
    assert set(tokens.choices) == {track.id for track in tracks if track.split == "train"}
    place = tmp_path / "saved"
    place.mkdir()
    save_tokens(tokens, place)
    assert load_tokens(place).choices == tokens.choices
    plain = replace(manifest, key="plain", slices=slices)
    save_tokens(encode_dataset(plain, model, Store(tmp_path / "cache"), SilentProgress()), place)
    assert "choices" not in (place / "tokens.json").read_text()

    trained, measured = [], []
    original = model.training_loss

    def record(codes, valid, states):
        heard = [next(i for i, known in enumerate(tokens.text_states) if known.shape == state.shape and np.array_equal(known, state)) for state in states]  # fmt: skip
        (trained if torch.is_grad_enabled() else measured).extend(tokens.captions[i] for i in heard)
        return original(codes, valid, states)

    monkeypatch.setattr(model, "training_loss", record)
    lora = LoraSpec(rank=2, targets="attention")
    train = TrainSpec(
        steps=6, batch_size=2, grad_accumulation=2, caption_dropout=0.0, eval_every=3, checkpoint_every=2
    )
    train_adapter(tokens, model, lora, train, 0, tmp_path / "whole", SilentProgress())
    draws = np.concatenate([draw_captions(0, step, 4) for step in range(6)])
    assert trained == [texts[int(draw * 3)] for draw in draws]
    assert set(trained) == set(texts)
    assert set(measured) == {"a song"}
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, lora, train, 0, tmp_path / "cut", StopAt(5, KeyboardInterrupt()))
    train_adapter(tokens, model, lora, train, 0, tmp_path / "cut", SilentProgress())
    assert_same_adapter(tmp_path / "whole", tmp_path / "cut")


def test_draws_are_independent_of_caption_dropout():
    draws = np.concatenate([draw_captions(3, step, 8) for step in range(500)])
    dropped = np.concatenate([drop_captions(3, step, 8, 0.5) for step in range(500)])
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(draws, dropped)[0, 1]) < 0.05
