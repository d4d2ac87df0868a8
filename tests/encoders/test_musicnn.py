"""musicnn in torch against the graph and the front end of the package itself."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import soundfile as sf
import torch
from scipy.stats import entropy
from support.sounds import make_tone
from support.tf_graph import Graph

from lora_bench.artifacts import AudioClip
from lora_bench.encoders import get_encoder, musicnn
from lora_bench.encoders.musicnn import (
    CHECKPOINTS,
    WINDOW_FRAMES,
    compute_log_mel,
    cut_frames,
    find_checkpoint,
    read_tags,
)
from lora_bench.encoders.musicnn_network import build_network, tensorflow_names
from lora_bench.encoders.tensor_bundle import read_bundle
from lora_bench.errors import ModelError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.stages.score import score_embeddings

pytestmark = pytest.mark.skipif(find_spec("musicnn") is None, reason="the musicnn package is not installed")


@pytest.fixture(scope="module")
def encoders():
    return {name: get_encoder(name, device="cpu") for name in CHECKPOINTS}


def make_loud(name, seconds=3.2):
    return make_tone(name, seconds=seconds, rate_hz=16_000)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values())
def test_every_layer_agrees_with_the_graph_in_the_checkpoint(checkpoint):
    folder = find_checkpoint(checkpoint)
    variables = read_bundle(folder, "")
    graph = Graph(folder / ".meta", variables)
    # fewer frames than a window, for speed: no layer knows the length
    x = np.random.default_rng(0).uniform(0, 3, (1, 40, 96)).astype(np.float32)
    with torch.inference_mode():
        ours = build_network(variables).run(torch.from_numpy(x))
    layers = {
        "model/Squeeze": ours.layers["timbral"][..., :204],
        "model/Squeeze_1": ours.layers["timbral"][..., 204:],
        "model/concat": torch.cat([ours.layers["timbral"], ours.layers["temporal"]], 2),
        "model/transpose": ours.layers["cnn1"],
        "model/Add": ours.layers["cnn2"],
        "model/Add_1": ours.layers["cnn3"],
        "model/Max": ours.layers["max_pool"],
        "model/moments/Squeeze": ours.layers["mean_pool"],
        "model/batch_normalization_10/batchnorm/add_1": ours.penultimate,
        "model/Sigmoid": torch.sigmoid(ours.logits),
    }
    feeds = {"model/Placeholder": x, "model/Placeholder_2": False}
    for value, (node, layer) in zip(graph.run_all(list(layers), feeds), layers.items(), strict=True):
        np.testing.assert_allclose(
            value.reshape(layer.shape), layer.numpy(), atol=1e-3, rtol=1e-3, err_msg=node
        )
    # what inference reads in the graph is what our layers take, variable for variable
    assert graph.used_variables == set(tensorflow_names().values())


def test_front_end_agrees_with_the_packages_own(tmp_path, monkeypatch):
    for name in ("tensorflow", "musicnn.models"):  # imported by the extractor, not used for the front end
        monkeypatch.setitem(sys.modules, name, MagicMock(spec=ModuleType))
    sys.modules["tensorflow"].compat = MagicMock()
    monkeypatch.delitem(sys.modules, "musicnn.extractor", raising=False)
    from musicnn.extractor import batch_data

    clip = make_loud("a", seconds=7.0)
    sf.write(tmp_path / "a.wav", clip.audio[0] * 0.1, 16_000, subtype="FLOAT")
    theirs, _ = batch_data(str(tmp_path / "a.wav"), WINDOW_FRAMES, WINDOW_FRAMES)
    monkeypatch.delitem(sys.modules, "musicnn.extractor")
    ours = np.stack(cut_frames(compute_log_mel(clip.audio[0] * np.float32(0.1))))
    assert ours.shape == theirs.shape == (2, WINDOW_FRAMES, 96)
    np.testing.assert_allclose(ours, theirs, atol=3e-3)  # theirs is rounded to float16


def test_front_end_of_a_loud_tone_is_finite_where_float16_would_overflow():
    t = np.arange(16_000) / 16_000
    loud = np.sin(2 * np.pi * 220 * t).astype(np.float32)
    frames = compute_log_mel(loud)
    assert np.isfinite(frames).all()
    assert (10.0 ** frames.max() - 1) > np.finfo(np.float16).max


def test_windows_are_the_packages_and_short_clips_are_repeated():
    frames = np.arange(2 * WINDOW_FRAMES + 100, dtype=np.float32)[:, None]
    assert [int(w[0, 0]) for w in cut_frames(frames)] == [0, WINDOW_FRAMES]
    (short,) = cut_frames(frames[:100])
    np.testing.assert_array_equal(short[:, 0], np.r_[np.arange(100), np.arange(87)])


def test_an_eight_second_clip_gives_two_vectors_of_two_hundred(encoders):
    embeddings = encoders["musicnn"].embed([make_loud("a", 8.0), make_loud("b", 1.0)])
    assert embeddings.values.shape == (3, 200)
    assert embeddings.clip_index.tolist() == [0, 0, 1]
    assert encoders["musicnn"].dim == 200


def test_vectors_do_not_depend_on_the_neighbours(encoders):
    clips = [make_loud(name) for name in "abc"]
    together = encoders["musicnn"].embed(clips).values
    alone = encoders["musicnn"].embed(clips[2:]).values
    np.testing.assert_allclose(together[2:], alone, atol=1e-4)


def test_tags_name_simple_sounds(encoders):
    t = np.arange(4 * 16_000) / 16_000
    rng = np.random.default_rng(0)
    beat = rng.normal(0, 0.5, len(t)) * np.exp(-(t % 0.5) * 27)
    clips = [
        AudioClip(name, name, wave[None].astype(np.float32), 16_000)
        for name, wave in (("flute-like", 0.5 * np.sin(2 * np.pi * 440 * t)), ("beat", beat))
    ]
    encoder = encoders["musicnn-mtt"]
    best = [encoder.tags[row.argmax()] for row in encoder.embed_and_tag(clips)[1]]
    assert best == ["flute", "drums"]


def test_tags_are_probabilities_under_the_packages_names(encoders):
    encoder = encoders["musicnn"]
    tags = encoder.embed_and_tag([make_loud("a")])[1]
    assert tags.shape == (1, 50)
    assert ((tags > 0) & (tags < 1)).all()
    assert encoder.tags == read_tags("MSD_musicnn")
    assert (encoder.tags[0], encoders["musicnn-mtt"].tags[0]) == ("rock", "guitar")


def render_music(seed, wave, root_hz):
    """Return 4 s of a tune of 8 notes per second over a bass, at 16 kHz; `wave` maps phases to samples."""
    t = np.arange(4 * 16_000) / 16_000
    steps = np.random.default_rng(seed).choice([0, 2, 4, 7, 9, 12], size=32)
    tune_hz = root_hz * 2.0 ** (np.repeat(steps, 2_000) / 12)
    fade = np.exp(-(t % 0.125) * 12)
    sound = wave(2 * np.pi * np.cumsum(tune_hz) / 16_000) * fade + 0.5 * wave(np.pi * root_hz * t)
    return AudioClip(f"m{seed}", "music", (0.1 * sound)[None].astype(np.float32), 16_000)


@pytest.fixture(scope="module")
def tag_sets():
    """Distributions over tags of two sets of chiptunes, of soft tunes, and of white noise."""
    encoder = get_encoder("musicnn-tags", device="cpu")
    noise = np.random.default_rng(0).normal(0.0, 0.1, (4, 1, 4 * 16_000)).astype(np.float32)
    sets = {
        "chiptunes": [render_music(seed, lambda p: np.sign(np.sin(p)), 220.0) for seed in range(4)],
        "other chiptunes": [render_music(seed, lambda p: np.sign(np.sin(p)), 220.0) for seed in range(4, 8)],
        "soft tunes": [render_music(seed, np.sin, 330.0) for seed in range(4)],
        "noise": [AudioClip(f"n{i}", "noise", row, 16_000) for i, row in enumerate(noise)],
    }
    return {name: encoder.embed(clips) for name, clips in sets.items()}


def test_distributions_over_tags_are_the_shares_of_their_odds(encoders, tag_sets):
    found = tag_sets["chiptunes"]
    assert found.values.shape == (4, 50)  # 4 s hold one window
    np.testing.assert_allclose(found.values.sum(axis=1), 1.0, rtol=1e-5)
    clips = [render_music(seed, lambda p: np.sign(np.sin(p)), 220.0) for seed in range(4)]
    tags = encoders["musicnn"].embed_and_tag(clips)[1].astype(np.float64)
    odds = tags / (1.0 - tags)
    np.testing.assert_allclose(found.values, odds / odds.sum(axis=1, keepdims=True), rtol=1e-3)
    assert get_encoder("musicnn-tags", device="cpu").dim == 50
    assert found.provenance["weights_hash"] == encoders["musicnn"].provenance["weights_hash"]
    assert found.provenance["layer"] != encoders["musicnn"].provenance["layer"]


def test_the_divergence_of_tags_is_scipys_of_the_references_from_the_clips(tag_sets):
    def measure(clips, references):
        return score_embeddings(parse_metric("label-kl/musicnn-tags"), tag_sets[clips], tag_sets[references])

    p, q = (tag_sets[name].values.mean(axis=0, dtype=np.float64) + 1e-6 for name in ("chiptunes", "noise"))
    forward, backward = measure("noise", "chiptunes"), measure("chiptunes", "noise")
    assert forward.value == pytest.approx(entropy(p, q), rel=1e-3)
    assert backward.value == pytest.approx(entropy(q, p), rel=1e-3)
    assert abs(entropy(p, q) - entropy(q, p)) > 0.1 * entropy(p, q)
    assert measure("chiptunes", "chiptunes").value == pytest.approx(0.0, abs=1e-9)


def test_noise_is_further_from_music_in_tags_than_other_music_is(tag_sets):
    alike, other, noise = (
        score_embeddings(parse_metric("label-kl/musicnn-tags"), tag_sets[name], tag_sets["chiptunes"]).value
        for name in ("other chiptunes", "soft tunes", "noise")
    )
    assert alike < other < noise


def test_provenance_names_checkpoint_hash_and_windows(encoders):
    first, second = (encoders[name].provenance for name in ("musicnn", "musicnn-mtt"))
    assert first["weights"] == "MSD_musicnn of musicnn==0.1.0"
    assert len(first["weights_hash"]) == 64
    assert first["weights_hash"] != second["weights_hash"]
    assert first["window_frames"] == 187


def test_without_the_package_it_is_unscored_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    with pytest.raises(UnscoredError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        get_encoder("musicnn")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("dense/bias"), "has no variable 'dense/bias'"),
        (lambda v: v.update({"conv2d_8/bias": v["dense/bias"]}), r"that no layer takes: conv2d_8/bias"),
        (
            lambda v: v.update({"dense/bias": v["dense_1/bias"]}),
            r"'dense/bias' has shape \(50,\), expected \(200,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, words):
    variables = read_bundle(find_checkpoint("MSD_musicnn"), "")
    change(variables)
    with pytest.raises(ModelError, match=words):
        build_network(variables)
