"""Render notes with the voices of a console's sound chip, without aliasing.

Pulse waves and the 32-step triangle are wavetables with only the harmonics below `BAND_FRAC` of the sample rate; noise
is the output of a 15-bit shift register, averaged over each sample.  All arithmetic is float64, so that last-bit
differences between machines vanish in 16-bit files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.genres.chip_parts import DrumKind, Hit, Note
from lora_bench.genres.composer import Song
from lora_bench.genres.theory import frequency_hz

if TYPE_CHECKING:
    from numpy.typing import NDArray

BAND_FRAC = 0.45
TABLE_SIZE = 4096
FRAME_HZ = 60  # consoles change volume and arpeggio pitch once per picture
TAIL_S = 0.6  # room for the last echo
FADE_S = 0.3
TARGET_RMS_DBFS = -18.0
MAX_PEAK = 0.89  # -1 dBFS

DUTIES = {"square": 0.5, "pulse 25": 0.25, "pulse 12.5": 0.125}
LEVELS = {"lead": 1.0, "harmony": 0.5, "bass": 0.9, "drums": 0.85}
# (seconds to half volume, held volume): a voice falls towards its held volume
ENVELOPES = {"lead": (0.12, 0.55), "harmony": (0.08, 0.35), "bass": (0.25, 0.7)}


def measure_song(song: Song) -> float:
    """Return the length of a song in seconds."""
    return song.n_bars * song.meter.steps * song.step_s + TAIL_S


def render_song(song: Song, sample_rate_hz: int) -> NDArray[np.float64]:
    """Render a song to mono samples [S], at about -18 dBFS RMS and below -1 dBFS peak."""
    n_samples = round(measure_song(song) * sample_rate_hz)
    clock = _StepClock(song, sample_rate_hz)
    lead = _render_voice(song.lead, song.lead_wave, "lead", clock, n_samples)
    harmony = _render_voice(song.harmony, song.harmony_wave, "harmony", clock, n_samples)
    bass = _render_voice(song.bass, "triangle", "bass", clock, n_samples)
    drums = _render_drums(song.hits, clock, n_samples)
    delay = clock.sample_at(song.meter.beat // 2 + song.meter.beat // 4)
    lead = _add_echo(lead, delay, song.style.echo)
    mix = lead + harmony + bass + drums
    n_fade = round(FADE_S * sample_rate_hz)
    mix[-n_fade:] *= np.linspace(1.0, 0.0, n_fade)
    return _set_level(mix)


class _StepClock:
    """Sample positions of steps, with the swing of the song."""

    def __init__(self, song: Song, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._step_s = song.step_s
        self._beat = song.meter.beat
        self._swing = song.style.swing

    def sample_at(self, step: float) -> int:
        if self._swing:
            beats, within = divmod(step, self._beat)
            half = self._beat / 2  # the first half of a beat takes two thirds of it
            long, short = 4.0 / 3.0, 2.0 / 3.0
            within = within * long if within <= half else half * long + (within - half) * short
            step = beats * self._beat + within
        return round(step * self._step_s * self.sample_rate_hz)


def _render_voice(
    notes: Sequence[Note], wave: str, voice: str, clock: _StepClock, n_samples: int
) -> NDArray[np.float64]:
    out = np.zeros(n_samples)
    rate_hz = clock.sample_rate_hz
    half_s, held = ENVELOPES[voice]
    for note in notes:
        start = clock.sample_at(note.start)
        n_note = clock.sample_at(note.start + note.length) - start
        pitches = [frequency_hz(midi) for midi in note.midis]
        increments = _pitch_increments(pitches, n_note, rate_hz, vibrato=voice == "lead")
        table = _make_table(wave, int(BAND_FRAC * rate_hz / max(pitches)))
        tone = _read_table(table, np.cumsum(increments))
        tone *= _make_envelope(n_note, rate_hz, half_s, held)
        out[start : start + n_note] += (LEVELS[voice] * note.level) * tone
    return out


def _pitch_increments(
    pitches_hz: Sequence[float], n_note: int, rate_hz: int, *, vibrato: bool
) -> NDArray[np.float64]:
    """Return cycles per sample: arpeggios step every second frame, long lead notes get vibrato after 0.25 s."""
    time_s = np.arange(n_note) / rate_hz
    if len(pitches_hz) > 1:
        index = (np.arange(n_note) * (FRAME_HZ // 2) // rate_hz) % len(pitches_hz)
        return np.asarray(pitches_hz)[index] / rate_hz
    increments = np.full(n_note, pitches_hz[0] / rate_hz)
    if vibrato:
        swing = 1.0 - 4.0 * np.abs((time_s * 5.5) % 1.0 - 0.5)  # triangle of 5.5 Hz
        increments *= 1.0 + 0.006 * swing * np.clip((time_s - 0.25) / 0.1, 0.0, 1.0)
    return increments


def _read_table(table: NDArray[np.float64], phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly in a table of one cycle (with its first value repeated at the end)."""
    position = (phase % 1.0) * TABLE_SIZE
    index = np.minimum(position.astype(np.int64), TABLE_SIZE - 1)
    below = table[index]
    return below + (table[index + 1] - below) * (position - index)


@cache
def _make_table(wave: str, n_harmonics: int) -> NDArray[np.float64]:
    """Compute one cycle of a waveform with `n_harmonics` partials, [TABLE_SIZE + 1]."""
    order = np.arange(1, max(1, min(n_harmonics, TABLE_SIZE // 2 - 1)) + 1)
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    if wave == "triangle":
        # the chip's triangle has 16 levels in 32 equal stairs: spectrum of the stairs times that of one
        stairs = np.concatenate([np.arange(16), np.arange(16)[::-1]]) / 7.5 - 1.0
        stair_spectrum = np.fft.fft(stairs) / 32
        one_stair = np.sinc(order / 32) * np.exp(-1j * np.pi * order / 32)
        spectrum[order] = stair_spectrum[order % 32] * one_stair
    else:
        # a pulse of width d between -1 and 1: c_h = 2 sin(pi h d) / (pi h), without its mean
        spectrum[order] = 2.0 * np.sin(np.pi * order * DUTIES[wave]) / (np.pi * order)
    cycle = np.fft.irfft(spectrum, TABLE_SIZE) * TABLE_SIZE
    return np.append(cycle, cycle[0])


def _make_envelope(n_note: int, rate_hz: int, half_s: float, held: float) -> NDArray[np.float64]:
    """Compute a volume of 16 levels at 60 frames per second, interpolated, with fades of 2 and 5 ms against clicks."""
    time_s = np.arange(n_note) / rate_hz
    frames_s = np.arange(int(n_note / rate_hz * FRAME_HZ) + 2) / FRAME_HZ
    volume = np.rint(15.0 * (held + (1.0 - held) * 0.5 ** (frames_s / half_s))) / 15.0
    envelope = np.interp(time_s, frames_s, volume)
    fade_in = np.minimum(1.0, time_s / 0.002)
    fade_out = np.minimum(1.0, time_s[::-1] / 0.005)
    return envelope * fade_in * fade_out


def _add_echo(voice: NDArray[np.float64], delay: int, level: float) -> NDArray[np.float64]:
    """Add two repeats, each `delay` samples later and fainter."""
    out = voice.copy()
    for repeat in (1, 2):
        by = repeat * delay
        out[by:] += level**repeat * voice[:-by]
    return out


@cache
def _shift_register() -> NDArray[np.float64]:
    """Compute the running sum of one period of the 15-bit noise register (taps 0 and 1; values -1 and 1)."""
    state = 1
    bits = np.empty(2**15 - 1)
    for index in range(len(bits)):
        bits[index] = 1.0 if state & 1 else -1.0
        state = (state >> 1) | (((state ^ (state >> 1)) & 1) << 14)
    return np.concatenate([[0.0], np.cumsum(bits)])


def _make_noise(n_samples: int, rate_hz: int, clock_hz: float) -> NDArray[np.float64]:
    """Compute noise of a register clocked at `clock_hz`; each sample is the mean over its length."""
    total = _shift_register()
    edges = np.arange(n_samples + 1) * (clock_hz / rate_hz)
    if edges[-1] > len(total) - 1:
        raise ValueError(f"a noise of {n_samples} samples is longer than the register's period")
    return np.diff(np.interp(edges, np.arange(len(total)), total)) * (rate_hz / clock_hz)


@cache
def _make_drum(kind: DrumKind, rate_hz: int) -> NDArray[np.float64]:
    """Render one stroke."""
    duration_s, half_s, clock_hz, gain = {
        "kick": (0.14, 0.03, 600.0, 0.25),
        "snare": (0.18, 0.035, 9000.0, 1.0),
        "hat": (0.05, 0.012, 30000.0, 0.8),
        "open": (0.16, 0.05, 30000.0, 0.7),
    }[kind]
    n_samples = round(duration_s * rate_hz)
    time_s = np.arange(n_samples) / rate_hz
    sound = gain * _make_noise(n_samples, rate_hz, clock_hz)
    if kind == "kick":
        # the triangle voice falls from 180 to 45 Hz, as games did it
        falling_hz = 45.0 + 135.0 * 0.5 ** (time_s / 0.02)
        sound += 1.6 * _read_table(_make_table("triangle", 20), np.cumsum(falling_hz) / rate_hz)
    shape = 0.5 ** (time_s / half_s) * np.minimum(1.0, time_s[::-1] / 0.005)
    sound *= shape
    return sound - shape * (sound.sum() / shape.sum())  # equal strokes must not add up to a constant offset


def _render_drums(hits: Sequence[Hit], clock: _StepClock, n_samples: int) -> NDArray[np.float64]:
    out = np.zeros(n_samples)
    for hit in hits:
        sound = _make_drum(hit.kind, clock.sample_rate_hz)
        start = clock.sample_at(hit.start)
        part = out[start : start + len(sound)]
        part += LEVELS["drums"] * hit.level * sound[: len(part)]
    return out


def _set_level(mix: NDArray[np.float64]) -> NDArray[np.float64]:
    rms, peak = float(np.sqrt(np.mean(mix**2))), float(np.abs(mix).max())
    return mix * min(10.0 ** (TARGET_RMS_DBFS / 20.0) / rms, MAX_PEAK / peak)
