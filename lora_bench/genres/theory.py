"""Scales, chords and chord progressions, in scale steps and MIDI notes."""

from __future__ import annotations

from dataclasses import dataclass

MAJOR_KEY_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR_KEY_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
"""Semitones above the tonic."""

PROGRESSIONS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "major": ((0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 3, 4), (0, 3, 1, 4), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 6, 0), (0, 6, 5, 6), (0, 5, 3, 6), (0, 2, 6, 3)),
    "harmonic minor": ((0, 3, 4, 0), (0, 5, 3, 4), (0, 0, 5, 4), (0, 4, 0, 4)),
    "dorian": ((0, 3, 0, 3), (0, 6, 3, 0), (0, 3, 6, 0), (0, 2, 3, 0)),
    "mixolydian": ((0, 6, 3, 0), (0, 3, 6, 0), (0, 6, 0, 4), (0, 0, 6, 3)),
    "lydian": ((0, 1, 0, 4), (0, 1, 5, 4), (0, 4, 1, 0), (0, 2, 1, 0)),
    "phrygian": ((0, 1, 0, 6), (0, 1, 2, 1), (0, 6, 1, 0), (0, 0, 1, 0)),
}
"""Roots of four bars as scale steps above the tonic; every first bar is the tonic."""

CONTRASTS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "major": ((3, 4, 2, 5), (5, 3, 0, 4), (1, 4, 0, 4), (3, 0, 1, 4)),
    "minor": ((5, 6, 0, 0), (3, 0, 5, 6), (2, 6, 0, 6)),
    "harmonic minor": ((3, 0, 4, 0), (5, 3, 4, 4), (3, 3, 0, 4)),
    "dorian": ((2, 6, 3, 0), (3, 3, 0, 0), (6, 3, 0, 0)),
    "mixolydian": ((3, 0, 6, 0), (4, 3, 6, 0), (6, 6, 3, 3)),
    "lydian": ((1, 4, 0, 0), (5, 1, 4, 4), (4, 1, 0, 0)),
    "phrygian": ((1, 2, 1, 0), (5, 6, 1, 0), (6, 6, 1, 1)),
}
"""Roots of four bars of a contrasting section."""


@dataclass(frozen=True)
class Key:
    """A tonic (0 is C) and a mode (a key of `SCALES`)."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """Such as `F# minor`."""
        names = MAJOR_KEY_NAMES if 4 in SCALES[self.mode] else MINOR_KEY_NAMES
        return f"{names[self.tonic]} {self.mode}"

    def midi(self, step: int, octave: int = 5) -> int:
        """Return the MIDI note of a scale step, which may be negative; step 0 is the tonic from 12 * `octave` up."""
        scale = SCALES[self.mode]
        return 12 * (octave + step // 7) + self.tonic + scale[step % 7]


def chord_steps(root: int) -> tuple[int, int, int]:
    """Return the triad on a scale step, as scale steps."""
    return root, root + 2, root + 4


def nearest_chord_step(step: int, root: int, *, lean: int = 0) -> int:
    """Return the scale step nearest to `step` that belongs to the triad on `root`, in any octave.

    `lean` (+1 or -1) decides between two that are equally near.
    """
    degrees = {part % 7 for part in chord_steps(root)}
    candidates = [step + shift for shift in range(-3, 4) if (step + shift) % 7 in degrees]
    return min(candidates, key=lambda other: (abs(other - step), -(other - step) * lean))


def fold_into(midi: int, lowest: int) -> int:
    """Return the note of the same name in the octave that starts at `lowest`."""
    return lowest + (midi - lowest) % 12


def frequency_hz(midi: float) -> float:
    """Return the frequency in equal temperament, A4 (69) at 440 Hz."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)
