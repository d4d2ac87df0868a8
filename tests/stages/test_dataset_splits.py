from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lora_bench.artifacts import Track
from lora_bench.errors import DatasetError
from lora_bench.genres.chiptune import N_TRACKS
from lora_bench.spec.schema import SplitSpec
from lora_bench.spec.sides import BUILTIN_TRACKS, count_sides
from lora_bench.stages.dataset.splits import assign_sides, cut_slices

RATE_HZ = 1000


def make_contents(n):
    return [hashlib.sha256(str(index).encode()).hexdigest() for index in range(n)]


def choose_side(contents, spec, side="eval"):
    return frozenset(content for content, found in assign_sides(contents, spec).items() if found == side)


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
            choose_side(contents, spec)
        return
    held_out = choose_side(contents, spec)
    assert len(held_out) == n_eval
    assert held_out < set(contents)
    assert choose_side(data.draw(st.permutations(contents)), spec) == held_out


def test_another_seed_holds_out_other_tracks():
    sides = {choose_side(make_contents(20), SplitSpec(seed=seed)) for seed in range(10)}
    assert len(sides) == 10


def test_every_track_is_held_out_by_some_seed_about_equally_often():
    contents = make_contents(10)
    counts = dict.fromkeys(contents, 0)
    for seed in range(500):
        for content in choose_side(contents, SplitSpec(seed=seed)):
            counts[content] += 1
    # 500 draws of 2 in 10: 100 each, standard deviation 9
    assert all(60 < count < 140 for count in counts.values())


def test_three_tracks_are_one_to_train_on_and_two_held_out():
    assert len(choose_side(make_contents(3), SplitSpec(eval_frac=0.01))) == 2


@given(
    n=st.integers(4, 80),
    eval_frac=st.floats(0.01, 0.6),
    selection_frac=st.floats(0.01, 0.39),
    seed=st.integers(0, 99),
)
def test_a_selection_side_is_taken_from_the_training_side_and_the_scored_tracks_stay(
    n, eval_frac, selection_frac, seed
):
    contents = make_contents(n)
    without = SplitSpec(eval_frac=eval_frac, seed=seed)
    spec = SplitSpec(eval_frac=eval_frac, selection_frac=selection_frac, seed=seed)
    n_selection = max(1, round(selection_frac * n))
    if n - max(2, round(eval_frac * n)) - n_selection < 1:
        with pytest.raises(
            DatasetError, match=f"takes {n_selection} to select by, which leaves 0 to train on"
        ):
            assign_sides(contents, spec)
        return
    train, selection, test = (choose_side(contents, spec, side) for side in ("train", "selection", "eval"))
    assert test == choose_side(contents, without)
    assert len(selection) == n_selection
    assert train
    assert not train & selection
    assert not train & test
    assert not selection & test
    assert train | selection | test == set(contents)


def test_three_tracks_are_too_few_for_three_sides_and_the_error_says_what_to_do():
    with pytest.raises(DatasetError, match="add recordings, lower the fractions, or set selection_frac to 0"):
        count_sides(3, SplitSpec(selection_frac=0.1))
    assert count_sides(4, SplitSpec(selection_frac=0.1)).selection == 1


def test_fractions_that_leave_nothing_to_train_on_are_refused_by_the_spec():
    with pytest.raises(ValidationError, match="add up to 1 or more"):
        SplitSpec(eval_frac=0.6, selection_frac=0.4)


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


def test_the_spec_knows_how_many_tracks_the_built_in_genre_has() -> None:
    assert BUILTIN_TRACKS == {"chiptune": N_TRACKS}
