"""The language model's data: codes of the training music in segments, with the facts for captions."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import EncodecModel

from lora_bench.models import delay_pattern
from pocket_training.captions import Captioner
from pocket_training.corpus import open_audio
from pocket_training.data import Track
from pocket_training.shapes import FRAME_RATE_HZ, HOP, N_CODEBOOKS, SAMPLE_RATE_HZ

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
        """Return the segments where `keep` (N,) is true."""
        return Segments(self.track[keep], self.start_s[keep], self.codes[keep])


def encode_segments(work: Path, tracks: list[Track], codec: EncodecModel) -> None:
    """Encode all tracks on the codec's device; keep their segments in `WORK/segments.npz`."""
    n_samples = int(SEGMENT_S * FRAME_RATE_HZ) * HOP
    spots: list[tuple[int, int]] = []
    for i, track in enumerate(tracks):
        if track.length >= n_samples:
            # the last one ends with the track, and may overlap the previous one
            spots += [(i, start) for start in range(0, track.length - n_samples, n_samples)]
            spots.append((i, track.length - n_samples))
    audio, codes = open_audio(work), []
    with torch.no_grad():
        for at in range(0, len(spots), 4):
            starts = [tracks[i].start + start for i, start in spots[at : at + 4]]
            batch = np.stack([audio[s : s + n_samples].astype(np.float32) / 32768 for s in starts])
            found = codec.encode(torch.from_numpy(batch)[:, None].to(codec.device)).audio_codes[0]
            codes.append(found.cpu().numpy().astype(np.uint16))
    fresh = work / "segments.new.npz"
    np.savez(
        fresh,
        track=np.array([i for i, _ in spots]),
        start_s=np.array([start / SAMPLE_RATE_HZ for _, start in spots]),
        codes=np.concatenate(codes),
    )
    fresh.replace(work / "segments.npz")


def load_segments(work: Path) -> Segments:
    """Load the segments that `encode_segments` wrote."""
    with np.load(work / "segments.npz") as file:
        return Segments(file["track"], file["start_s"], file["codes"])


def delay_codes(codes: Tensor, start_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs and targets in MusicGen's delay pattern.

    Args:
        codes: (B, K, T).
        start_id: Of the start token.

    Returns:
        Inputs (B, K, T + K - 1): the start token, then the targets but the last column.
        Targets (B, K, T + K - 1): codebook k comes k positions late, so that no frame is lost.
        Mask (K, T + K - 1): where a target is a code.
    """
    n_clips, n_codebooks, n_frames = codes.shape
    valid = torch.full((n_clips,), n_frames, device=codes.device)
    targets = delay_pattern.delay_codes(codes, valid, range(n_codebooks), start_id)
    return delay_pattern.decoder_inputs(targets, start_id), targets, targets[0] != start_id


class CodeCrops:
    """Random crops of segments with fresh captions."""

    def __init__(self, segments: Segments, captioner: Captioner, n_frames: int, seed: int) -> None:
        self.segments, self.captioner, self.n_frames = segments, captioner, n_frames
        self.rng = random.Random(seed)

    def draw(self, n: int) -> tuple[Tensor, list[str]]:
        """Draw codes (n, K, n_frames) and captions, whose words vary between draws."""
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
    """Cut a fixed set of at most `n` crops, one per segment; return codes, full captions and tracks."""
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
