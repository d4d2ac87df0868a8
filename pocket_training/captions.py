"""Captions for crops of music, from facts about the track and from analysis of the crop.

Facts: words of package, file name and, for rendered scores, instruments, tempo and key.  Analysis: loudness against
the track's own mean, brightness and rhythm per window of five seconds; tempo and key per track.  Quantiles over all
training windows choose the words for loudness, brightness and rhythm, so that each word is used equally often.
"""

import random
from dataclasses import dataclass

import librosa
import numpy as np

from pocket_training.data import Track
from pocket_training.scores import KEYS
from pocket_training.shapes import SAMPLE_RATE_HZ

WINDOW_S = 5.0
_N_FFT, _HOP = 1024, 512
# Krumhansl and Kessler 1982: probe-tone profiles of major and minor keys
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])

LOUDNESS = (
    ("very quiet", "sparse"),
    ("quiet", "soft", "gentle"),
    (),
    ("loud", "full"),
    ("very loud", "powerful", "intense"),
)
BRIGHTNESS = (
    ("dark", "deep", "muffled"),
    ("warm", "mellow"),
    (),
    ("clear", "bright"),
    ("very bright", "brilliant", "sharp"),
)
RHYTHM = (
    ("sustained", "floating", "no beat"),
    ("smooth", "flowing"),
    (),
    ("rhythmic",),
    ("percussive", "driving beat", "energetic"),
)


@dataclass
class Heard:
    """Result of the analysis of one track."""

    tempo_bpm: float
    key: str
    windows: np.ndarray
    """(windows, 3): level in dB, log2 of the spectral centroid in Hz, onset strength."""


def analyse_track(audio: np.ndarray) -> Heard:
    """Analyse tempo, key and windows of one track.

    Args:
        audio: int16, shape (samples,), 16 kHz.
    """
    wave = np.asarray(audio, np.float32) / 32768
    power = np.abs(librosa.stft(wave, n_fft=_N_FFT, hop_length=_HOP)) ** 2  # (bins, frames)
    frequency = np.linspace(0, SAMPLE_RATE_HZ / 2, power.shape[0])
    level = power.mean(0) + 1e-10
    centroid = (power * frequency[:, None]).sum(0) / (power.sum(0) + 1e-8) + 50
    mel = librosa.feature.melspectrogram(S=power, sr=SAMPLE_RATE_HZ, n_mels=40)
    onset = librosa.onset.onset_strength(S=librosa.power_to_db(mel), sr=SAMPLE_RATE_HZ, hop_length=_HOP)
    tempo = float(
        np.atleast_1d(
            librosa.feature.tempo(onset_envelope=onset[: 31 * 90], sr=SAMPLE_RATE_HZ, hop_length=_HOP)
        )[0]
    )
    per = int(WINDOW_S * SAMPLE_RATE_HZ / _HOP)
    n = max(1, power.shape[1] // per)
    windows = np.array([
        (10 * np.log10(level[w].mean()), np.log2(np.median(centroid[w])), onset[w].std())
        for w in (slice(i * per, (i + 1) * per) for i in range(n))
    ])  # fmt: skip
    return Heard(tempo, find_key(power, frequency), windows)


def find_key(power: np.ndarray, frequency: np.ndarray) -> str:
    """Find the key whose profile fits the chroma best, for example `a minor`.

    Args:
        power: (bins, frames).
        frequency: Of each bin, Hz.
    """
    use = (frequency > 80) & (frequency < 2000)
    pitch = np.round(12 * np.log2(frequency[use] / 261.63)).astype(int) % 12
    chroma = np.bincount(pitch, weights=np.sqrt(power[use]).mean(1), minlength=12)
    chroma = chroma / np.bincount(pitch, minlength=12).clip(1)
    fits = [
        (np.corrcoef(np.roll(profile, k), chroma)[0, 1], f"{KEYS[k]} {mode}")
        for k in range(12)
        for profile, mode in ((_MAJOR, "major"), (_MINOR, "minor"))
    ]
    return max(fits)[1]


class Captioner:
    """Writes captions of crops."""

    def __init__(self, tracks: list[Track], heard: list[Heard]) -> None:
        """Args: one `Heard` per track; quantiles are taken over the training tracks."""
        self.tracks, self.heard = tracks, heard
        train = np.concatenate(
            [h.windows for track, h in zip(tracks, heard, strict=True) if track.split == "train"]
        )
        self.cuts = np.quantile(train, (0.15, 0.35, 0.65, 0.85), axis=0)  # (4, 3)

    def write(self, i: int, start_s: float, length_s: float, rng: random.Random, full: bool = False) -> str:
        """Write a caption of a crop of track `i`.

        Args:
            i: Index of the track.
            start_s: Of the crop, in the track.
            length_s: Of the crop.
            rng: Picks words, order and template.
            full: Use all words, in a fixed order: for evaluation.
        """
        track, heard = self.tracks[i], self.heard[i]
        first = min(int(start_s / WINDOW_S + 0.5), len(heard.windows) - 1)
        last = max(first + 1, min(int((start_s + length_s) / WINDOW_S + 0.5), len(heard.windows)))
        ranks = [int(np.searchsorted(self.cuts[:, j], heard.windows[first:last, j].mean())) for j in range(3)]
        sensed = [
            rng.choice(words[rank])
            for words, rank in zip((LOUDNESS, BRIGHTNESS, RHYTHM), ranks, strict=True)
            if words[rank]
        ]
        tempo = track.tempo_bpm or heard.tempo_bpm
        pace = "slow tempo" if tempo < 90 else "medium tempo" if tempo < 125 else "fast tempo"
        measured = [pace, f"{round(tempo / 10) * 10:.0f} bpm", f"in {track.key or heard.key}"]
        if full:
            return ", ".join([*track.words, *track.instruments, *sensed, *measured])
        words = [word for word in track.words if rng.random() < 0.6]
        tools = [tool for tool in track.instruments if rng.random() < 0.85]
        sensed = [word for word in sensed if rng.random() < 0.7]
        measured = [
            word for word, frac in zip(measured, (0.5, 0.3, 0.35), strict=True) if rng.random() < frac
        ]
        return _join_words(words, tools, sensed, measured, rng)


def _join_words(
    words: list[str], tools: list[str], sensed: list[str], measured: list[str], rng: random.Random
) -> str:
    rng.shuffle(words)
    style = rng.random()
    if style < 0.5:
        parts = [*words, *tools, *sensed, *measured]
        rng.shuffle(parts)
        return ", ".join(parts) or "music"
    head = " ".join([*sensed[:2], *words[:2]]) or "instrumental"
    noun = rng.choice(("music", "piece", "track", "background music", "theme"))
    text = f"{rng.choice(('', 'a ', 'a '))}{head} {noun}"
    if tools:
        text += f" with {' and '.join(tools)}"
    rest = [*words[2:], *sensed[2:], *measured]
    if rest:
        text += ", " + ", ".join(rest)
    return text[0].upper() + text[1:] if style > 0.9 else text
