"""Accompaniment patterns: harmony, bass and drums of one section, in steps of a sixteenth note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lora_bench.genres.theory import Key, chord_steps, fold_into

LOWEST_HARMONY = 57  # A3
LOWEST_BASS = 40  # E2
DrumKind = Literal["kick", "snare", "hat", "open"]


@dataclass(frozen=True)
class Meter:
    """`steps` sixteenths a bar, `beat` of them a counted beat."""

    name: str
    steps: int
    beat: int


METERS = {"4/4": Meter("4/4", 16, 4), "3/4": Meter("3/4", 12, 4), "6/8": Meter("6/8", 12, 6)}


@dataclass(frozen=True)
class Note:
    """A tone: `start` and `length` in steps; several pitches are played as a fast arpeggio."""

    start: int
    length: float
    midis: tuple[int, ...]
    level: float = 1.0


@dataclass(frozen=True)
class Hit:
    """A drum stroke at step `start`."""

    start: int
    kind: DrumKind
    level: float = 1.0


Event = TypeVar("Event", Note, Hit)


def _voice_chord(key: Key, root: int) -> tuple[int, int, int]:
    """Return the triad within one octave from A3 up, low to high, so that chords move by small steps."""
    low, middle, high = sorted(fold_into(key.midi(step), LOWEST_HARMONY) for step in chord_steps(root))
    return low, middle, high


def _broken(key: Key, root: int, meter: Meter) -> list[Note]:
    low, middle, high = _voice_chord(key, root)
    order = (low, middle, high, middle)
    return [Note(start, 2, (order[start // 2 % 4],), 0.8) for start in range(0, meter.steps, 2)]


def _run(key: Key, root: int, meter: Meter) -> list[Note]:
    low, middle, high = _voice_chord(key, root)
    order = (low, middle, high, low + 12, high, middle)
    return [Note(start, 1, (order[start % len(order)],), 0.75) for start in range(meter.steps)]


def _stabs(key: Key, root: int, meter: Meter) -> list[Note]:
    chord = _voice_chord(key, root)
    half = meter.beat // 2
    return [Note(start + half, half, chord, 0.85) for start in range(0, meter.steps, meter.beat)]


def _held(key: Key, root: int, meter: Meter) -> list[Note]:
    return [Note(0, meter.steps, _voice_chord(key, root), 0.7)]


def _oom_pah(key: Key, root: int, meter: Meter) -> list[Note]:
    chord = _voice_chord(key, root)
    return [Note(start, 2, chord, 0.8) for start in range(meter.beat, meter.steps, meter.beat)]


def _rolling(key: Key, root: int, meter: Meter) -> list[Note]:
    low, middle, high = _voice_chord(key, root)
    return [Note(start, 2, ((low, middle, high)[start // 2 % 3],), 0.8) for start in range(0, meter.steps, 2)]


HARMONIES: dict[str, Callable[[Key, int, Meter], list[Note]]] = {
    "broken chords": _broken,
    "arpeggio runs": _run,
    "chord stabs": _stabs,
    "fast arpeggios": _held,
    "waltz chords": _oom_pah,
    "rolling arpeggios": _rolling,
}
"""Patterns of the second pulse voice in a bar; captions use their names."""


def _bass_note(key: Key, step: int) -> int:
    return fold_into(key.midi(step), LOWEST_BASS)


def _bass_octaves(key: Key, root: int, meter: Meter) -> list[Note]:
    low = _bass_note(key, root)
    return [Note(start, 1.7, (low + 12 * (start // 2 % 2),)) for start in range(0, meter.steps, 2)]


def _bass_drive(key: Key, root: int, meter: Meter) -> list[Note]:
    low = _bass_note(key, root)
    return [Note(start, 1.6, (low,)) for start in range(0, meter.steps, 2)]


def _bass_gallop(key: Key, root: int, meter: Meter) -> list[Note]:
    low = _bass_note(key, root)
    gaps = ((0, 1.8), (2, 0.8), (3, 0.8))
    return [
        Note(beat + at, length, (low,)) for beat in range(0, meter.steps, meter.beat) for at, length in gaps
    ]


def _bass_fifths(key: Key, root: int, meter: Meter) -> list[Note]:
    low = _bass_note(key, root)
    fifth = low + key.midi(root + 4) - key.midi(root)  # of the scale: diminished where it must be
    beats = range(0, meter.steps, meter.beat)
    return [Note(start, meter.beat * 0.8, ((low, fifth)[n % 2],)) for n, start in enumerate(beats)]


def _bass_long(key: Key, root: int, meter: Meter) -> list[Note]:
    low = _bass_note(key, root)
    return [Note(0, meter.steps * 0.95, (low,))]


def _bass_walk(key: Key, root: int, meter: Meter) -> list[Note]:
    steps = (root, root + 2, root + 4, root + 2)
    low = _bass_note(key, root)
    offsets = [key.midi(step) - key.midi(root) for step in steps]
    beats = range(0, meter.steps, meter.beat)
    return [Note(start, meter.beat * 0.85, (low + offsets[n % 4],)) for n, start in enumerate(beats)]


def _bass_first(key: Key, root: int, meter: Meter) -> list[Note]:
    return [Note(0, meter.beat * 1.2, (_bass_note(key, root),))]


BASSES: dict[str, Callable[[Key, int, Meter], list[Note]]] = {
    "octaves": _bass_octaves,
    "drive": _bass_drive,
    "gallop": _bass_gallop,
    "fifths": _bass_fifths,
    "long": _bass_long,
    "walk": _bass_walk,
    "first": _bass_first,
}

# One character per step: K kick, S snare, h hat, o open hat, . nothing.
DRUMS: dict[str, tuple[str, ...]] = {
    "rock": ("K.h.S.h.K.K.S.h.",),
    "busy": ("KhhhShhhKhKhShhh",),
    "four": ("K.o.K.o.K.o.K.o.", "h.h.S.h.h.h.S.h."),
    "march": ("K...S.S.K...S...", "..h...h...h...h."),
    "soft": ("h...h...h...h...",),
    "sparse": ("K.......S.....h.",),
    "half": ("K...h...S...h...",),
    "swing": ("K.h.S.hhK.h.S.h.",),
    "waltz": ("K...h...h...",),
    "waltz full": ("K...S.h.S.h.",),
    "jig": ("K.h.h.S.h.h.",),
    "none": ("",),
}
KINDS: dict[str, DrumKind] = {"K": "kick", "S": "snare", "h": "hat", "o": "open"}


def drum_bar(pattern: str, meter: Meter, *, fill: bool = False) -> list[Hit]:
    """Return the strokes of one bar; `fill` puts a snare roll over its last beat."""
    hits = [
        Hit(step, KINDS[sign], 1.0 if step % meter.beat == 0 else 0.75)
        for line in DRUMS[pattern]
        for step, sign in enumerate(line[: meter.steps])
        if sign != "."
    ]
    if fill and hits:
        start = meter.steps - 4
        hits = [hit for hit in hits if hit.start < start]
        hits += [Hit(start + step, "snare", 0.6 + 0.13 * step) for step in range(4)]
    return hits


def shift(events: Sequence[Event], by: int) -> list[Event]:
    """Return the same notes or strokes, `by` steps later."""
    return [replace(event, start=event.start + by) for event in events]
