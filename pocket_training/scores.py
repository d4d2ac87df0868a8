"""Write scores as MIDI, whose tempo, key and instruments are known, so that captions are correct.

A piece is a chord progression, a melody over it, a bass, an accompaniment and, in some styles, drums.  Twelve styles
choose from General MIDI's instruments.  The music is plain; it connects words such as "harp", "a minor" or "fast
tempo" with sounds.  A seed always gives the same bytes.
"""

import random
from dataclasses import dataclass
from pathlib import Path

TICKS = 480  # a quarter note
KEYS = ("c", "c sharp", "d", "e flat", "e", "f", "f sharp", "g", "a flat", "a", "b flat", "b")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = (  # scale degrees, one a bar
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (5, 3, 0, 4), (0, 3, 0, 4), (1, 4, 0, 0), (0, 2, 3, 4),
    (0, 6, 5, 4), (0, 5, 1, 4), (0, 0, 3, 4), (0, 4, 3, 3), (3, 4, 2, 5),
)  # fmt: skip
# General MIDI programs by the names that captions use
PROGRAMS = {
    "piano": (0, 1), "electric piano": (4, 5), "harpsichord": (6,), "celesta": (8,), "glockenspiel": (9,),
    "music box": (10,), "vibraphone": (11,), "marimba": (12,), "xylophone": (13,), "bells": (14,),
    "organ": (16, 17, 19), "accordion": (21,), "harmonica": (22,), "acoustic guitar": (24, 25),
    "electric guitar": (26, 27), "distorted guitar": (29, 30), "double bass": (32,),
    "bass guitar": (33, 34), "synth bass": (38, 39), "violin": (40,), "cello": (42,), "strings": (48, 49),
    "pizzicato strings": (45,), "harp": (46,), "choir": (52, 53), "trumpet": (56,), "trombone": (57,),
    "french horn": (60,), "brass": (61,), "saxophone": (65, 66), "oboe": (68,), "clarinet": (71,),
    "bassoon": (70,), "flute": (73,), "piccolo": (72,), "recorder": (74,), "pan flute": (75,),
    "whistle": (78,), "synth lead": (84, 87), "synth pad": (88, 89, 90, 94), "sitar": (104,),
    "banjo": (105,), "fiddle": (110,), "steel drums": (114,), "kalimba": (108,), "timpani": (47,),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """The choices of a style."""

    words: tuple[str, ...]
    lead: tuple[str, ...]
    chords: tuple[str, ...]
    bass: tuple[str, ...]
    tempo_bpm: tuple[int, int]
    drums: str | None
    minor_frac: float
    pattern: tuple[str, ...]
    """Patterns of the accompaniment: `block`, `arpeggio`, `offbeat`, `waltz`."""


STYLES: tuple[Style, ...] = (
    Style(
        ("orchestral", "epic", "cinematic"), ("trumpet", "french horn", "violin", "brass"),
        ("strings", "brass", "choir"), ("cello", "timpani"), (90, 150), "march", 0.6, ("block", "arpeggio"),
    ),
    Style(
        ("orchestral", "gentle", "romantic"), ("flute", "oboe", "violin", "clarinet"), ("strings", "harp"),
        ("cello", "double bass"), (60, 95), None, 0.4, ("arpeggio", "block"),
    ),
    Style(
        ("jazz", "swing"), ("saxophone", "trumpet", "clarinet", "vibraphone"), ("piano", "electric guitar"),
        ("double bass",), (90, 190), "swing", 0.4, ("offbeat",),
    ),
    Style(
        ("folk", "celtic", "village"), ("fiddle", "whistle", "recorder", "accordion", "flute"),
        ("acoustic guitar", "harp", "accordion"), ("double bass", "cello"), (90, 150), "shaker", 0.4,
        ("arpeggio", "waltz"),
    ),
    Style(
        ("rock", "band"), ("distorted guitar", "electric guitar", "organ"),
        ("distorted guitar", "organ", "electric guitar"), ("bass guitar",), (100, 170), "rock", 0.6,
        ("block",),
    ),
    Style(
        ("electronic", "dance"), ("synth lead",), ("synth pad",), ("synth bass",), (110, 150), "house", 0.6,
        ("offbeat", "arpeggio"),
    ),
    Style(
        ("ambient", "calm", "atmospheric"), ("synth pad", "choir", "pan flute", "kalimba"),
        ("synth pad", "strings"), ("synth bass", "cello"), (55, 80), None, 0.5, ("block",),
    ),
    Style(
        ("solo", "piano", "classical"), ("piano",), ("piano",), ("piano",), (60, 140), None, 0.5,
        ("arpeggio", "waltz", "block"),
    ),
    Style(
        ("cute", "playful", "happy"), ("xylophone", "glockenspiel", "marimba", "piccolo", "music box"),
        ("pizzicato strings", "marimba", "acoustic guitar"), ("pizzicato strings", "bassoon"), (100, 160),
        "shaker", 0.15, ("offbeat", "waltz"),
    ),
    Style(
        ("latin", "tropical", "summer"), ("steel drums", "trumpet", "flute", "saxophone"),
        ("acoustic guitar", "piano", "marimba"), ("bass guitar",), (95, 135), "latin", 0.3, ("offbeat",),
    ),
    Style(
        ("medieval", "fantasy"), ("recorder", "oboe", "flute", "whistle"),
        ("harpsichord", "harp", "acoustic guitar"), ("cello", "bassoon"), (70, 130), "march", 0.6,
        ("arpeggio", "waltz"),
    ),
    Style(
        ("dark", "spooky", "mysterious"), ("celesta", "bells", "music box", "violin", "organ"),
        ("strings", "choir", "organ"), ("cello", "bassoon", "timpani"), (55, 110), None, 1.0,
        ("block", "arpeggio"),
    ),
)  # fmt: skip

# (beat, General MIDI drum, velocity) in a bar of four
DRUMS: dict[str, tuple[tuple[float, int, int], ...]] = {
    "march": ((0, 36, 100), (1, 38, 70), (2, 36, 90), (3, 38, 80), (3.5, 38, 60)),
    "swing": (
        (0, 51, 80), (1, 51, 70), (1.67, 51, 60), (1, 44, 70),
        (2, 51, 80), (3, 51, 70), (3.67, 51, 60), (3, 44, 70),
    ),
    "shaker": (*((i / 2, 70, 80 - 25 * (i % 2)) for i in range(8)), (0, 41, 70), (2, 43, 60)),
    "rock": (
        *((i / 2, 42, 80) for i in range(8)),
        (0, 36, 110), (2, 36, 105), (2.5, 36, 90), (1, 38, 110), (3, 38, 110),
    ),
    "house": (
        *((float(i), 36, 115) for i in range(4)), *((i + 0.5, 46, 80) for i in range(4)),
        (1, 39, 90), (3, 39, 90),
    ),
    "latin": (
        (0, 64, 90), (0.75, 63, 80), (1.5, 63, 85), (2, 64, 90), (3, 63, 85), (3.5, 63, 80),
        *((i / 2, 70, 60) for i in range(8)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One written piece and its facts."""

    path: Path
    words: list[str]
    instruments: list[str]
    tempo_bpm: float
    key: str


Note = tuple[float, float, int, int]  # start and length in beats, pitch, velocity


def write_scores(folder: Path, n_scores: int, seed: int) -> list[Score]:
    """Write `n_scores` MIDI files into `folder`, styles in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write_score(folder / f"score_{i:03d}.mid", STYLES[i % len(STYLES)], random.Random(f"{seed}/{i}"))
        for i in range(n_scores)
    ]


def _write_score(path: Path, style: Style, rng: random.Random) -> Score:
    tonic, minor = rng.randrange(12), rng.random() < style.minor_frac
    tempo = rng.randint(*style.tempo_bpm)
    pattern = rng.choice(style.pattern)
    beats = 3 if pattern == "waltz" else 4
    n_bars = max(16, round(66 * tempo / 60 / beats / 4) * 4)  # about 66 seconds
    names = [rng.choice(style.lead), rng.choice(style.chords), rng.choice(style.bass)]
    scale = MINOR if minor else MAJOR
    sections = [rng.choice(PROGRESSIONS) for _ in range(2)]
    bars = [sections[(bar // 8) % 2][bar % 4] for bar in range(n_bars)]
    parts = [
        _write_melody(bars, beats, tonic, scale, rng),
        _write_chords(bars, beats, tonic, scale, pattern, rng),
        _write_bass(bars, beats, tonic, scale, rng),
    ]
    tracks = [
        (channel, rng.choice(PROGRAMS[name]), part)
        for channel, (name, part) in enumerate(zip(names, parts, strict=True))
    ]
    if style.drums is not None:
        hits: list[Note] = []
        for bar in range(2 if rng.random() < 0.5 else 0, n_bars):
            hits += [
                (bar * beats + b, 0.2, drum, v + rng.randint(-8, 8))
                for b, drum, v in DRUMS[style.drums]
                if b < beats
            ]
        tracks.append((9, 0, hits))
    path.write_bytes(encode_midi(tempo, tracks))
    words = [*style.words, "waltz" if beats == 3 else "game music", "drums" if style.drums else "no drums"]
    return Score(
        path,
        words,
        list(dict.fromkeys(names)),
        float(tempo),
        f"{KEYS[tonic]} {'minor' if minor else 'major'}",
    )


def _get_pitch(degree: int, tonic: int, scale: tuple[int, ...], base: int) -> int:
    return base + tonic + 12 * (degree // 7) + scale[degree % 7]


def _write_melody(
    bars: list[int], beats: int, tonic: int, scale: tuple[int, ...], rng: random.Random
) -> list[Note]:
    """Write a walk over the scale with chord notes on first beats, and two-bar motifs that return."""
    rhythms = [
        [1.0] * beats,
        [0.5] * (2 * beats),
        [1.5, 0.5, *[1.0] * (beats - 2)],
        [2.0, *[0.5] * (2 * beats - 4)],
        [float(beats)],
    ]
    motifs = [rng.choice(rhythms[:4]) for _ in range(3)]
    notes: list[Note] = []
    degree = rng.randint(0, 7)
    for bar, root in enumerate(bars):
        if bar % 8 == 7 and rng.random() < 0.5:
            rhythm = rhythms[4]
        else:
            rhythm = motifs[(bar // 2) % 3] if rng.random() < 0.8 else rng.choice(rhythms)
        at = 0.0
        for length in rhythm:
            if at == 0.0:
                degree = min(
                    (root + step + 7 * up for step in (0, 2, 4) for up in (-1, 0, 1)),
                    key=lambda d: (abs(d - degree), rng.random()),
                )
            else:
                degree += rng.choice((-2, -1, -1, 0, 1, 1, 2))
            degree = max(-2, min(11, degree))
            if rng.random() < 0.92:
                notes.append(
                    (
                        bar * beats + at,
                        length * 0.92,
                        _get_pitch(degree, tonic, scale, 60 if tonic < 7 else 48 + 12),
                        rng.randint(80, 110),
                    )
                )
            at += length
    return notes


def _write_chords(
    bars: list[int], beats: int, tonic: int, scale: tuple[int, ...], pattern: str, rng: random.Random
) -> list[Note]:
    base = 48 if tonic < 7 else 36
    notes: list[Note] = []
    for bar, root in enumerate(bars):
        chord = [_get_pitch(root + step, tonic, scale, base) for step in (0, 2, 4)]
        at = bar * beats
        if pattern == "block":
            notes += [(at, beats * 0.98, pitch, rng.randint(60, 75)) for pitch in chord]
        elif pattern == "arpeggio":
            order = [0, 1, 2, 1] * beats
            notes += [(at + i / 2, 0.5, chord[order[i]] + 12, rng.randint(60, 80)) for i in range(2 * beats)]
        else:  # offbeat and waltz: chords between the beats, or on two and three
            spots = [b + 0.5 for b in range(beats)] if pattern == "offbeat" else list(range(1, beats))
            notes += [(at + b, 0.4, pitch, rng.randint(60, 80)) for b in spots for pitch in chord]
    return notes


def _write_bass(
    bars: list[int], beats: int, tonic: int, scale: tuple[int, ...], rng: random.Random
) -> list[Note]:
    base = 36 if tonic < 7 else 24
    step = rng.choice((1, 2)) if beats == 4 else beats
    steps = rng.choice(((0, 0), (0, 4), (0, 2)))
    return [
        (
            bar * beats + b,
            step * 0.9,
            _get_pitch(root + steps[(b // step) % 2], tonic, scale, base),
            rng.randint(80, 100),
        )
        for bar, root in enumerate(bars)
        for b in range(0, beats, step)
    ]


def encode_midi(tempo_bpm: int, tracks: list[tuple[int, int, list[Note]]]) -> bytes:
    """Encode a standard MIDI file of format 1.

    Args:
        tempo_bpm: Quarter notes per minute.
        tracks: (channel, program, notes).
    """
    chunks = [_encode_track([(0, b"\xff\x51\x03" + round(60_000_000 / tempo_bpm).to_bytes(3, "big"))])]
    for channel, program, notes in tracks:
        events = [(0, bytes((0xC0 | channel, program)))]
        for start, length, wanted, velocity in notes:
            pitch = max(20, min(108, wanted))
            events.append((round(start * TICKS), bytes((0x90 | channel, pitch, max(1, min(127, velocity))))))
            events.append((round((start + length) * TICKS), bytes((0x80 | channel, pitch, 0))))
        events.sort(key=lambda event: (event[0], event[1][0] & 0x10))  # note-offs before note-ons
        chunks.append(_encode_track(events))
    head = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (1, len(chunks), TICKS))
    return head + b"".join(chunks)


def _encode_track(events: list[tuple[int, bytes]]) -> bytes:
    body, now = b"", 0
    for tick, data in events:
        delta, now = tick - now, tick
        coded = [delta & 0x7F]
        while delta := delta >> 7:
            coded.append(0x80 | (delta & 0x7F))
        body += bytes(reversed(coded)) + data
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + len(body).to_bytes(4, "big") + body
