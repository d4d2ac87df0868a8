"""The embedding cache: what hits, what misses, what is stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.encoders.mfcc import MfccEncoder, measure_scale
from lora_bench.errors import ScoreError, StoreError
from lora_bench.progress import SilentProgress
from lora_bench.stages.embed import embed_clips, hash_clips, load_embeddings, save_embeddings
from lora_bench.store import Store


class CountingEncoder:
    """Mean and spread of a clip; counts how often it is asked."""

    name, dim, sample_rate_hz = "counting", 2, None

    def __init__(self, weights="a"):
        self.provenance = {"encoder": self.name, "weights_hash": weights, "window": 1}
        self.n_clips = 0

    def embed(self, clips):
        clips = list(clips)
        self.n_clips += len(clips)
        if any(np.isnan(clip.audio).any() for clip in clips):
            raise ScoreError("clip bad: NaN")
        return Embeddings(
            values=np.array([[clip.audio.mean(), clip.audio.std()] for clip in clips], np.float32),
            clip_index=np.arange(len(clips)),
            clip_names=tuple(clip.name for clip in clips),
            groups=tuple(clip.group for clip in clips),
            provenance=self.provenance,
        )


def make_clips(n=3, seed=0):
    rng = np.random.default_rng(seed)
    return [
        AudioClip(f"clip{i}", f"track{i // 2}", rng.normal(size=(1, 100)).astype(np.float32), 8_000)
        for i in range(n)
    ]


def assert_equal(a, b):
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.clip_index, b.clip_index)
    assert (a.clip_names, a.groups, dict(a.provenance)) == (b.clip_names, b.groups, dict(b.provenance))


def test_the_same_clips_are_embedded_once(tmp_path):
    encoder, store = CountingEncoder(), Store(tmp_path)
    first = embed_clips(encoder, iter(make_clips()), store)
    again = embed_clips(encoder, iter(make_clips()), store)
    assert encoder.n_clips == 3
    assert_equal(first, again)
    assert_equal(first, encoder.embed(make_clips()))


def change_sample(clips):
    clips[1].audio[0, 50] += 1e-6
    return clips


@pytest.mark.parametrize(
    "change",
    [
        change_sample,
        lambda clips: [dataclasses.replace(clips[0], name="x"), *clips[1:]],
        lambda clips: [dataclasses.replace(clips[0], group="x"), *clips[1:]],
        lambda clips: [dataclasses.replace(clips[0], sample_rate_hz=16_000), *clips[1:]],
        lambda clips: [dataclasses.replace(clips[0], audio=clips[0].audio.reshape(2, 50)), *clips[1:]],
        lambda clips: clips[::-1],
        lambda clips: clips[:2],
    ],
    ids=["sample", "name", "group", "rate", "channels", "order", "number"],
)
def test_any_change_of_the_clips_embeds_again(tmp_path, change):
    encoder, store = CountingEncoder(), Store(tmp_path)
    embed_clips(encoder, make_clips(), store)
    assert hash_clips(change(make_clips())) != hash_clips(make_clips())
    embed_clips(encoder, change(make_clips()), store)
    assert encoder.n_clips > 3


def test_other_weights_embed_again(tmp_path):
    store, other = Store(tmp_path), CountingEncoder("b")
    embed_clips(CountingEncoder("a"), make_clips(), store)
    embed_clips(other, make_clips(), store)
    assert other.n_clips == 3


def test_a_callers_key_spares_reading_the_clips(tmp_path):
    encoder, store = CountingEncoder(), Store(tmp_path)
    embed_clips(encoder, make_clips(), store, "manifest-1")

    def unread():
        raise AssertionError("a hit must not read the clips")
        yield

    assert len(embed_clips(encoder, unread(), store, "manifest-1").values) == 3
    embed_clips(encoder, make_clips(), store, "manifest-2")
    assert encoder.n_clips == 6


def test_a_failure_leaves_nothing_in_the_cache(tmp_path):
    encoder, store = CountingEncoder(), Store(tmp_path)
    clips = make_clips()
    clips[0].audio[0, 0] = np.nan
    with pytest.raises(ScoreError):
        embed_clips(encoder, clips, store)
    assert not [path for path in (tmp_path / "embeddings").iterdir() if path.is_dir()]


def test_progress_advances_by_one_per_clip(tmp_path):
    class Counter(SilentProgress):
        n = 0

        def advance(self, n=1, *, note=""):
            self.n += n

    counter = Counter()
    embed_clips(CountingEncoder(), make_clips(), Store(tmp_path), progress=counter)
    assert counter.n == 3


def test_what_is_saved_is_loaded(tmp_path):
    embeddings = dataclasses.replace(
        CountingEncoder().embed(make_clips()),
        clip_names=("a", "Ünïcode 音", ""),
        provenance={"x": 1, "y": 0.5, "z": "é"},
    )
    save_embeddings(embeddings, tmp_path / "deep" / "e.npz")
    assert_equal(load_embeddings(tmp_path / "deep" / "e.npz"), embeddings)


def test_stored_files_are_the_same_bytes_each_time(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_embeddings(CountingEncoder().embed(make_clips()), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"not an archive", lambda data: b""]
)
def test_damaged_embeddings_are_named_with_the_mend(tmp_path, damage):
    path = tmp_path / "e.npz"
    save_embeddings(CountingEncoder().embed(make_clips()), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=r"e\.npz: the stored embeddings are damaged .*; remove"):
        load_embeddings(path)


def test_missing_embeddings_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"none\.npz: expected stored embeddings here"):
        load_embeddings(tmp_path / "none.npz")


def test_vectors_do_not_depend_on_the_number_of_threads(tmp_path):
    noise = np.random.default_rng(0)
    clips = [
        AudioClip(str(n), str(n), noise.standard_normal((1, 32_000)).astype(np.float32), 16_000)
        for n in range(2)
    ]
    encoder = MfccEncoder(16_000, measure_scale(clips, 16_000))
    found = []
    for n_threads in (1, 3):
        with threadpool_limits(n_threads, "blas"):
            found.append(embed_clips(encoder, clips, Store(tmp_path / str(n_threads))).values)
    assert found[0].tobytes() == found[1].tobytes()
