from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bench.audio.librosa_import import load_librosa
from lora_bench.genres.theory import (
    CONTRASTS,
    PROGRESSIONS,
    SCALES,
    Key,
    chord_steps,
    fold_into,
    frequency_hz,
    nearest_chord_step,
)

librosa = load_librosa()


def test_frequencies_agree_with_librosa():
    for midi in range(21, 109):
        assert frequency_hz(midi) == pytest.approx(librosa.midi_to_hz(midi), rel=1e-12)


@pytest.mark.parametrize(
    ("mode", "thaat"),
    [("major", "bilaval"), ("minor", "asavari"), ("dorian", "kafi"), ("mixolydian", "khamaj"),
     ("lydian", "kalyan"), ("phrygian", "bhairavi")],
)  # fmt: skip
def test_scales_agree_with_the_thaats_of_the_same_notes_in_librosa(mode, thaat):
    assert list(SCALES[mode]) == librosa.thaat_to_degrees(thaat).tolist()


def test_harmonic_minor_is_minor_with_a_leading_tone():
    assert SCALES["harmonic minor"] == (*SCALES["minor"][:6], 11)


def test_every_mode_has_progressions_that_begin_at_home():
    assert set(PROGRESSIONS) == set(CONTRASTS) == set(SCALES)
    assert all(progression[0] == 0 for every in PROGRESSIONS.values() for progression in every)


def test_no_progression_rests_on_a_diminished_or_augmented_chord():
    for table in (PROGRESSIONS, CONTRASTS):
        for mode, progressions in table.items():
            key = Key(0, mode)
            for root in {root for progression in progressions for root in progression}:
                low, _, high = (key.midi(step) for step in chord_steps(root))
                assert high - low == 7, (mode, root)


def test_scale_steps_cross_octaves_in_both_directions():
    key = Key(2, "major")
    assert [key.midi(step) for step in (-7, -1, 0, 2, 7, 9)] == [50, 61, 62, 66, 74, 78]


def test_keys_are_named_as_musicians_write_them():
    assert [Key(1, "major").name, Key(1, "minor").name, Key(8, "dorian").name] == [
        "Db major", "C# minor", "G# dorian",
    ]  # fmt: skip


@given(step=st.integers(-14, 21), root=st.integers(0, 6), lean=st.sampled_from([-1, 1]))
def test_the_nearest_chord_step_is_in_the_chord_and_none_is_nearer(step, root, lean):
    degrees = {part % 7 for part in chord_steps(root)}
    found = nearest_chord_step(step, root, lean=lean)
    assert found % 7 in degrees
    distances = [abs(other - step) for other in range(step - 7, step + 8) if other % 7 in degrees]
    assert abs(found - step) == min(distances)
    if 2 * step - found != found and (2 * step - found) % 7 in degrees:
        assert (found - step) * lean > 0


@given(midi=st.integers(0, 127), lowest=st.integers(0, 100))
def test_folding_keeps_the_name_of_the_note(midi, lowest):
    folded = fold_into(midi, lowest)
    assert lowest <= folded < lowest + 12
    assert (folded - midi) % 12 == 0
