"""Codes of the training music, in segments, with what captions need: the language model's data."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import EncodecModel

from pocket_training.captions import Captioner
from pocket_training.corpus import open_audio
from pocket_training.data import Track
from pocket_training.shapes import FRAME_RATE_HZ, HOP, N_CODEBOOKS, START_ID

SEGMENT_S = 24.0


@dataclass
class Segments:
    """Encoded pieces of tracks, each `SEGMENT_S` long."""

    track: np.ndarray
    """(N,): index of the track."""
    start_s: np.ndarray
    """(N,): of the segment, in its track."""
    codes: np.ndarray
    """(N, K, T), uint16."""

    def take(self, keep: np.ndarray) -> "Segments":
        """The segments where `keep` (N,) is true."""
        return Segments(self.track[keep], self.start_s[keep], self.codes[keep])


def encode_segments(
    work: Path, tracks: list[Track], codec: EncodecModel, minutes: float, seed: int
) -> Segments:
    """Encode segments of all tracks in turn until the time is up; keep them in `WORK/segments.npz`.

    The first segments of all tracks come before the second ones of any, so that a short time
    costs length of the long tracks, not tracks.
    """
    rng = random.Random(seed)
    n_samples = int(SEGMENT_S * FRAME_RATE_HZ) * HOP
    rounds: list[tuple[int, int, int]] = []
    for i, track in enumerate(tracks):
        n = track.length // n_samples
        order = rng.sample(range(n), n)
        rounds += [(turn, i, j) for turn, j in enumerate(order)]
    rounds.sort(key=lambda spot: (spot[0], rng.random()))
    audio = open_audio(work)
    began, done, codes = time.monotonic(), [], []
    with torch.no_grad():
        for at in range(0, len(rounds), 4):
            if time.monotonic() - began > minutes * 60:
                break
            spots = rounds[at : at + 4]
            starts = [tracks[i].start + j * n_samples for _, i, j in spots]
            batch = np.stack([audio[s : s + n_samples].astype(np.float32) / 32768 for s in starts])
            codes.append(
                codec.encode(torch.from_numpy(batch)[:, None]).audio_codes[0].numpy().astype(np.uint16)
            )
            done += spots
    segments = Segments(
        np.array([i for _, i, _ in done]),
        np.array([j * n_samples / (HOP * FRAME_RATE_HZ) for _, _, j in done]),
        np.concatenate(codes),
    )
    np.savez(work / "segments.npz", track=segments.track, start_s=segments.start_s, codes=segments.codes)
    return segments


def load_segments(work: Path) -> Segments:
    """Read what `encode_segments` kept."""
    with np.load(work / "segments.npz") as file:
        return Segments(file["track"], file["start_s"], file["codes"])


def delay_codes(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and targets in MusicGen's delay pattern: codebook k comes k positions late, no frame is lost.

    Args:
        codes: (B, K, T).

    Returns:
        Inputs (B, K, T + K - 1): the start token, then the delayed codes but the last column.
        Targets (B, K, T + K - 1): the delayed codes.
        Mask (K, T + K - 1): where a target is a code.
    """
    B, K, T = codes.shape
    targets = codes.new_full((B, K, T + K - 1), START_ID)
    mask = torch.zeros(K, T + K - 1, dtype=torch.bool)
    for k in range(K):
        targets[:, k, k : k + T] = codes[:, k]
        mask[k, k : k + T] = True
    inputs = torch.cat([codes.new_full((B, K, 1), START_ID), targets[..., :-1]], dim=-1)
    return inputs, targets, mask


class CodeCrops:
    """Random crops of segments with fresh captions."""

    def __init__(self, segments: Segments, captioner: Captioner, n_frames: int, seed: int) -> None:
        self.segments, self.captioner, self.n_frames = segments, captioner, n_frames
        self.rng = random.Random(seed)

    def draw(self, n: int) -> tuple[Tensor, list[str]]:
        """Codes (n, K, n_frames) and captions; the caption's own words vary from draw to draw."""
        codes, captions = [], []
        for _ in range(n):
            i = self.rng.randrange(len(self.segments.track))
            at = self.rng.randrange(self.segments.codes.shape[-1] - self.n_frames + 1)
            codes.append(self.segments.codes[i, :, at : at + self.n_frames])
            start_s = float(self.segments.start_s[i]) + at / FRAME_RATE_HZ
            captions.append(
                self.captioner.write(
                    int(self.segments.track[i]), start_s, self.n_frames / FRAME_RATE_HZ, self.rng
                )
            )
        return torch.from_numpy(np.stack(codes).astype(np.int64)), captions


def cut_codes(
    segments: Segments, captioner: Captioner, n_frames: int, n: int, seed: int
) -> tuple[Tensor, list[str], list[int]]:
    """A fixed set: at most `n` crops, one per segment, with full captions, and their tracks."""
    rng = random.Random(seed)
    picks = rng.sample(range(len(segments.track)), min(n, len(segments.track)))
    captions = [
        captioner.write(
            int(segments.track[i]), float(segments.start_s[i]), n_frames / FRAME_RATE_HZ, rng, full=True
        )
        for i in picks
    ]
    codes = torch.from_numpy(segments.codes[picks, :, :n_frames].astype(np.int64))
    assert codes.shape[1] == N_CODEBOOKS
    return codes, captions, [int(segments.track[i]) for i in picks]
