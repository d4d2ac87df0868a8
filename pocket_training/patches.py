"""Random synthetic notes over silence, which the codec is trained on in addition to music.

A codec trained on dense music is worst at sharp harmonics over silence.  Nothing here comes from the built-in genre:
no song, scale, rhythm or wave table.
"""

import numpy as np
import torch

from pocket_training.shapes import SAMPLE_RATE_HZ

TABLE_SIZE = 2048
HIGHEST_HZ = 0.47 * SAMPLE_RATE_HZ
KINDS = ("additive", "pulse", "saw", "triangle", "fm", "noise")


class PatchSampler:
    """Crops of one to four voices, each a row of notes of one random timbre, with silence between."""

    def __init__(self, crop: int, rng: np.random.Generator) -> None:
        """Args: `crop` is in samples; `rng` decides everything."""
        self.crop, self.rng = crop, rng

    def draw(self, n: int) -> torch.Tensor:
        """Draw `n` crops: float32, shape (n, 1, crop), peak -26 to -1 dBFS."""
        crops = np.stack([self._draw_one() for _ in range(n)])
        return torch.from_numpy(crops.astype(np.float32))[:, None]

    def _draw_one(self) -> np.ndarray:
        rng, out = self.rng, np.zeros(self.crop)
        for _ in range(rng.choice([1, 1, 2, 3, 4])):
            self._add_voice(out)
        peak = np.abs(out).max()
        return out * (10 ** (rng.uniform(-26, -1) / 20) / peak) if peak > 1e-6 else out

    def _add_voice(self, out: np.ndarray) -> None:
        """Add a voice with one timbre and envelope for all notes, and often repeated pitches."""
        rng = self.rng
        kind, level = KINDS[rng.integers(len(KINDS))], 10 ** (rng.uniform(-18, 0) / 20)
        spacing_s = 2 ** rng.uniform(-4, 1)  # 1/16 s to 2 s
        held = rng.uniform(0.15, 1.3)  # part of the spacing; above 1 notes overlap
        attack_s, half_s = 10 ** rng.uniform(-3.3, -1.3), 10 ** rng.uniform(-1.7, 0.7)
        pitches = 2 ** rng.uniform(np.log2(40), np.log2(2500)) * 2 ** (rng.integers(-12, 13, 4) / 12)
        shape = rng.random(4)
        start_s = -rng.uniform(0, spacing_s)
        while start_s < self.crop / SAMPLE_RATE_HZ:
            if rng.random() < 0.8:  # else a rest
                time = np.arange(int(held * spacing_s * SAMPLE_RATE_HZ) + 16) / SAMPLE_RATE_HZ
                envelope = np.minimum(time / attack_s, 1) * 0.5 ** (time / half_s)
                envelope *= np.minimum((time[-1] - time) / 0.004, 1)
                note = level * envelope * self._make_tone(kind, rng.choice(pitches), time, shape)
                self._put(out, note, round(start_s * SAMPLE_RATE_HZ))
            start_s += spacing_s

    def _put(self, out: np.ndarray, note: np.ndarray, start: int) -> None:
        skip, end = max(0, -start), min(len(note), self.crop - start)
        if end > skip:
            out[start + skip : start + end] += note[skip:end]

    def _make_tone(self, kind: str, pitch_hz: float, time: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Make a tone of about unit level; `shape` holds the four numbers of its timbre, each in 0..1."""
        if kind == "noise":
            held = 1 + int(40 * shape[0] ** 3)  # the longer each value is held, the darker
            return np.repeat(self.rng.uniform(-1, 1, len(time) // held + 1), held)[: len(time)]
        vibrato = 0.02 * max(0.0, shape[3] - 0.5) * np.sin(2 * np.pi * (3 + 5 * shape[2]) * time)
        phase = pitch_hz * np.cumsum(1 + vibrato) / SAMPLE_RATE_HZ
        if kind == "fm":
            ratio = [0.5, 1, 1.41, 2, 3, 3.5, 5, 7][int(8 * shape[0])]
            index = 5 * shape[1] ** 2 * 0.5 ** (time / (0.05 + shape[2]))
            return np.sin(2 * np.pi * phase + index * np.sin(2 * np.pi * ratio * phase))
        n = max(1, min(int(HIGHEST_HZ / pitch_hz), TABLE_SIZE // 2 - 1))
        order = np.arange(1, n + 1)
        spectrum = np.zeros(TABLE_SIZE // 2 + 1, complex)
        spectrum[1 : n + 1] = -1j * self._make_harmonics(kind, order, shape)
        table = np.fft.irfft(spectrum)
        table /= np.abs(table).max() + 1e-9
        return np.interp(phase % 1.0 * TABLE_SIZE, np.arange(TABLE_SIZE + 1), np.append(table, table[0]))

    def _make_harmonics(self, kind: str, order: np.ndarray, shape: np.ndarray) -> np.ndarray:
        if kind == "pulse":
            return np.sin(np.pi * order * (0.05 + 0.45 * shape[0])) / order
        if kind == "saw":
            return 1 / order
        if kind == "triangle":
            return np.where(order % 2 == 1, 1 / order**2, 0)
        return self.rng.uniform(-1, 1, len(order)) * order ** -(2.5 * shape[0])
