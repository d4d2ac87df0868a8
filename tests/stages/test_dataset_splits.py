from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bench.artifacts import Track
from lora_bench.errors import DatasetError
from lora_bench.spec.schema import SplitSpec
from lora_bench.stages.dataset.splits import choose_eval, cut_slices

RATE_HZ = 1000


def make_contents(n):
    return [hashlib.sha256(str(index).encode()).hexdigest() for index in range(n)]


def cut(n_samples, clip_s):
    track = Track("0123", "a.wav", Path("audio.npy"), "a genre", "train", n_samples / RATE_HZ)
    return cut_slices(track, n_samples, RATE_HZ, clip_s)


@given(n=st.integers(3, 60), frac=st.floats(0.01, 0.9), seed=st.integers(0, 9), data=st.data())
def test_the_held_out_side_depends_on_contents_and_seed_only(n, frac, seed, data):
    spec = SplitSpec(eval_frac=frac, seed=seed)
    contents = make_contents(n)
    n_eval = max(2, round(frac * n))
    if n_eval == n:
        with pytest.raises(DatasetError, match="leaves 0 to train on"):
            choose_eval(contents, spec)
        return
    held_out = choose_eval(contents, spec)
    assert len(held_out) == n_eval
    assert held_out < set(contents)
    assert choose_eval(data.draw(st.permutations(contents)), spec) == held_out


def test_another_seed_holds_out_other_tracks():
    sides = {choose_eval(make_contents(20), SplitSpec(seed=seed)) for seed in range(10)}
    assert len(sides) == 10


def test_every_track_is_held_out_by_some_seed_about_equally_often():
    contents = make_contents(10)
    counts = dict.fromkeys(contents, 0)
    for seed in range(500):
        for content in choose_eval(contents, SplitSpec(seed=seed)):
            counts[content] += 1
    # 500 draws of 2 in 10: 100 each, standard deviation 9
    assert all(60 < count < 140 for count in counts.values())


def test_three_tracks_are_one_to_train_on_and_two_held_out():
    assert len(choose_eval(make_contents(3), SplitSpec(eval_frac=0.01))) == 2


@given(n_samples=st.integers(500, 50_000), clip_s=st.floats(1.0, 30.0))
def test_slices_lie_side_by_side_and_only_a_tail_below_a_second_is_lost(n_samples, clip_s):
    slices = cut(n_samples, clip_s)
    n_clip = round(clip_s * RATE_HZ)
    assert [part.offset for part in slices] == [index * n_clip for index in range(len(slices))]
    assert all(part.n_samples == n_clip for part in slices)
    assert all(part.n_valid == n_clip for part in slices[:-1])
    n_lost = n_samples - sum(part.n_valid for part in slices)
    assert 0 <= n_lost < RATE_HZ
    assert all((part.track_id, part.split, part.caption) == ("0123", "train", "a genre") for part in slices)


def test_a_track_of_exactly_the_slice_length_is_one_full_slice():
    (only,) = cut(30_000, 30.0)
    assert (only.offset, only.n_samples, only.n_valid) == (0, 30_000, 30_000)


def test_a_tail_of_a_second_is_kept_with_its_valid_length_and_a_shorter_one_is_not():
    assert [part.n_valid for part in cut(11_000, 10.0)] == [10_000, 1000]
    assert [part.n_valid for part in cut(10_999, 10.0)] == [10_000]


def test_a_track_shorter_than_a_slice_is_one_padded_slice():
    (only,) = cut(600, 10.0)
    assert (only.n_samples, only.n_valid) == (10_000, 600)
