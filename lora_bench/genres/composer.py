"""Compose a song from a style and a seed: sections with a returning melody, chords, bass and drums.

All choices come from `random.Random`, whose `random()` gives the same numbers on every machine and Python.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lora_bench.genres.chip_parts import BASSES, HARMONIES, METERS, Hit, Meter, Note, drum_bar, shift
from lora_bench.genres.theory import CONTRASTS, PROGRESSIONS, Key, fold_into, nearest_chord_step

T = TypeVar("T")

BARS_A_SECTION = 4
TARGET_S = 35.0
FORMS = {3: "ABA", 4: "AABA", 5: "AABCA", 6: "AABBCA", 7: "AABACBA", 8: "AABBCCAA"}
"""Letters of the sections by their number; a letter that returns repeats its melody, varied."""

# Rhythms of one beat as lengths in steps, thin to dense.
CELLS: dict[int, tuple[tuple[tuple[int, ...], ...], ...]] = {
    4: (((4,), (4,), (2, 2)), ((2, 2), (4,), (3, 1)), ((2, 2), (2, 1, 1), (1, 1, 2), (3, 1))),
    6: (((6,), (4, 2)), ((4, 2), (2, 2, 2), (6,)), ((2, 2, 2), (4, 2), (2, 2, 1, 1))),
}
LOWEST_STEP, HIGHEST_STEP = -2, 10  # of the melody, in scale steps around its tonic
LOWEST_TONIC = 64  # the melody's tonic is E4 to Eb5


@dataclass(frozen=True)
class Style:
    """The character of a group of songs.

    Attributes:
        mood, scene: words of the caption.
        meter: key of `METERS`.
        bpms: tempo of each song of the group, in counted beats per minute.
        modes: scales to choose from, one per song.
        leads: waveforms of the melody, one per song.
        density: 0 long notes, 1 medium, 2 quick.
        harmonies, basses, drums: patterns to choose from.
        echo: level of the first repeat of the melody.
        legato: sounding part of a melody note.
        swing: whether the second half of a beat comes late.
    """

    mood: str
    scene: str
    meter: str
    bpms: tuple[int, ...]
    modes: tuple[str, ...]
    leads: tuple[str, ...]
    density: int
    harmonies: tuple[str, ...]
    basses: tuple[str, ...]
    drums: tuple[str, ...]
    echo: float = 0.3
    legato: float = 0.92
    swing: bool = False


@dataclass(frozen=True)
class Song:
    """Notes of all voices, in steps; `lead_wave` and `harmony_wave` name waveforms."""

    style: Style
    key: Key
    bpm: int
    meter: Meter
    n_bars: int
    lead_wave: str
    harmony_wave: str
    harmony_name: str
    lead: tuple[Note, ...]
    harmony: tuple[Note, ...]
    bass: tuple[Note, ...]
    hits: tuple[Hit, ...]

    @property
    def step_s(self) -> float:
        """Length of a step in seconds."""
        return 60.0 / self.bpm / self.meter.beat


@dataclass(frozen=True)
class _Tone:
    start: int
    length: int
    step: int


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Pick one of the options with one draw of `random()`."""
    return options[int(rng.random() * len(options))]


def compose_song(style: Style, number: int, tonic: int) -> Song:
    """Compose song `number` of a style in the key of `tonic`; equal arguments give equal songs."""
    rng = random.Random(f"{style.mood}-{number}")
    meter = METERS[style.meter]
    key = Key(tonic, style.modes[number % len(style.modes)])
    bpm = style.bpms[number % len(style.bpms)]
    section_s = BARS_A_SECTION * meter.steps * 60.0 / bpm / meter.beat
    form = FORMS[min(max(FORMS), max(min(FORMS), round(TARGET_S / section_s)))]
    harmony_name = style.harmonies[number % len(style.harmonies)]
    bass_name, drum_name = pick(rng, style.basses), pick(rng, style.drums)
    lift = fold_into(tonic, LOWEST_TONIC) - key.midi(0)
    lead: list[Note] = []
    harmony: list[Note] = []
    bass: list[Note] = []
    hits: list[Hit] = []
    themes = {letter: _invent_theme(rng, style, meter, key, letter) for letter in sorted(set(form))}
    for place, letter in enumerate(form):
        chords, tones = themes[letter]
        offset = place * BARS_A_SECTION * meter.steps
        is_last = place == len(form) - 1
        if letter in form[:place]:
            tones = _vary(rng, tones, chords)
        if is_last:
            chords = (*chords[:-1], 0)
            tones = [*tones[:-1], _Tone(tones[-1].start, tones[-1].length, _nearest_tonic(tones[-1].step))]
        lead += [
            Note(tone.start + offset, tone.length * style.legato, (key.midi(tone.step) + lift,))
            for tone in tones
        ]
        for bar, root in enumerate(chords):
            by = offset + bar * meter.steps
            bass += shift(BASSES[bass_name](key, root, meter), by)
            if place > 0 or style.density == 0:  # the first section of a quick song enters in two stages
                harmony += shift(HARMONIES[harmony_name](key, root, meter), by)
            is_fill = bar == BARS_A_SECTION - 1 and style.density > 0
            hits += shift(drum_bar(drum_name, meter, fill=is_fill), by)
    return Song(
        style=style,
        key=key,
        bpm=bpm,
        meter=meter,
        n_bars=BARS_A_SECTION * len(form),
        lead_wave=style.leads[number % len(style.leads)],
        harmony_wave="pulse 12.5" if style.leads[number % len(style.leads)] != "pulse 12.5" else "pulse 25",
        harmony_name=harmony_name,
        lead=tuple(lead),
        harmony=tuple(harmony),
        bass=tuple(bass),
        hits=tuple(hits),
    )


def _invent_theme(
    rng: random.Random, style: Style, meter: Meter, key: Key, letter: str
) -> tuple[tuple[int, ...], list[_Tone]]:
    """Invent chords (roots of four bars) and a melody: motif, answer, motif again, cadence."""
    chords = pick(rng, (PROGRESSIONS if letter == "A" else CONTRASTS)[key.mode])
    density = style.density if letter == "A" else max(0, min(2, style.density + pick(rng, (-1, 0, 1))))
    motif, answer = (_invent_bar(rng, meter, density) for _ in range(2))
    cadence = _invent_rhythm(rng, meter, density)[: 2 if density else 1]
    while sum(cadence) > meter.steps - meter.beat:  # the last note lasts a beat or more
        cadence.pop()
    cadence.append(meter.steps - sum(cadence))
    bars = (motif, answer, motif, (cadence, _invent_contour(rng, len(cadence))))
    centre = {"A": 2, "B": 5, "C": 0}[letter] + pick(rng, (-1, 0, 1, 2))
    tones: list[_Tone] = []
    step = centre
    for bar, ((rhythm, contour), root) in enumerate(zip(bars, chords, strict=True)):
        step = nearest_chord_step((step + centre) // 2, root, lean=1)
        start = 0
        for length, interval in zip(rhythm, contour, strict=True):
            step = _keep_in_range(step + interval, interval)
            if start % meter.beat == 0:
                step = nearest_chord_step(step, root, lean=1 if interval > 0 else -1)
            tones.append(_Tone(bar * meter.steps + start, length, step))
            start += length
    return chords, tones


def _invent_bar(rng: random.Random, meter: Meter, density: int) -> tuple[list[int], list[int]]:
    rhythm = _invent_rhythm(rng, meter, density)
    return rhythm, _invent_contour(rng, len(rhythm))


def _invent_rhythm(rng: random.Random, meter: Meter, density: int) -> list[int]:
    """Invent lengths in steps that fill a bar; sometimes a note is held over the next beat."""
    beats = [list(pick(rng, CELLS[meter.beat][density])) for _ in range(meter.steps // meter.beat)]
    lengths: list[int] = []
    for beat in beats:
        if lengths and rng.random() < 0.2 and len(lengths) > 1:
            lengths[-1] += beat[0]
            lengths += beat[1:]
        else:
            lengths += beat
    return lengths


def _invent_contour(rng: random.Random, n_notes: int) -> list[int]:
    """Invent scale steps from each note to the next: mostly neighbours, in runs of one direction."""
    direction = pick(rng, (1, -1))
    contour = [0]
    while len(contour) < n_notes:
        if rng.random() < 0.35:
            direction = -direction
        contour.append(direction * pick(rng, (0, 1, 1, 1, 1, 2, 2, 3)))
    return contour[:n_notes]


def _keep_in_range(step: int, interval: int) -> int:
    if LOWEST_STEP <= step <= HIGHEST_STEP:
        return step
    return step - 2 * interval


def _nearest_tonic(step: int) -> int:
    return 0 if step < 4 else 7


def _vary(rng: random.Random, tones: Sequence[_Tone], chords: Sequence[int]) -> list[_Tone]:
    """Vary a melody: some long notes get a neighbour note, and the cadence ends on another note."""
    varied: list[_Tone] = []
    for tone in tones:
        if tone.length >= 4 and tone.length % 2 == 0 and rng.random() < 0.35:
            half = tone.length // 2
            varied.append(_Tone(tone.start, half, tone.step))
            varied.append(_Tone(tone.start + half, half, _keep_in_range(tone.step + pick(rng, (1, -1)), 0)))
        else:
            varied.append(tone)
    last = varied[-1]
    varied[-1] = _Tone(
        last.start, last.length, nearest_chord_step(last.step + pick(rng, (-2, 2)), chords[-1])
    )
    return varied
