"""Measure the figures of the card: codec, language model, samples, speed.  `card.py` writes the text."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio
from transformers import EncodecModel, MusicgenForConditionalGeneration, T5Tokenizer

from pocket_training.lm_parts import evaluate_model
from pocket_training.shapes import FRAME_RATE_HZ, N_CODEBOOKS, SAMPLE_RATE_HZ
from pocket_training.tokens import Segments

SAMPLE_PROMPTS = (
    "upbeat orchestral piece with jazz influences",
    "maplestory background music",
    "calm piano music, slow tempo",
    "rock, electric guitar, drums, loud, fast tempo",
    "dark ambient, sustained, deep",
    "electronic, dance, driving beat, 130 bpm",
    "folk, village, acoustic guitar and flute",
    "epic orchestral battle theme, brass, percussion",
)


def compute_log_mel(audio: Tensor) -> Tensor:
    """Compute the log10 mel spectrogram, 80 bands, floor 1e-5: (N, 1, samples) -> (N, 80, frames)."""
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(SAMPLE_RATE_HZ, n_fft=1024, hop_length=256, n_mels=80, normalized=True)
    return (transform(audio[:, 0]) + 1e-5).log10()


def compute_si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Compute the scale-invariant signal-to-distortion ratio in dB: (N, 1, samples) -> (N,)."""
    return scale_invariant_signal_distortion_ratio(estimate[:, 0], target[:, 0])


def measure_reconstruction(codec: EncodecModel, audio: Tensor, train_audio: Tensor) -> dict[str, Any]:
    """Measure mel distance and SI-SDR of the codec and of three baselines.

    Args:
        codec: In eval mode.
        audio: Held-out crops (N, 1, samples).
        train_audio: Training crops, for the mean spectrum.
    """
    with torch.no_grad():
        codes = torch.cat([codec.encode(a).audio_codes[0] for a in audio.split(4)])  # (N, K, T)
        fake = torch.cat([codec.decode(c[None], [None]).audio_values for c in codes.split(4)])[
            ..., : audio.shape[-1]
        ]
    real = compute_log_mel(audio)
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0)) * audio.std(-1, keepdim=True)
    mean = compute_log_mel(train_audio).mean((0, 2))[None, :, None]

    def distance(mel: Tensor) -> dict[str, float]:
        per_clip = (mel - real).abs().mean((1, 2))
        return {
            "mean": round(float(per_clip.mean()), 4),
            "se": round(float(per_clip.std() / len(per_clip) ** 0.5), 4),
        }

    sdr = compute_si_sdr(fake, audio)
    return {
        "n_clips": len(audio), "clip_s": audio.shape[-1] / SAMPLE_RATE_HZ,
        "log_mel_l1": {
            "codec": distance(compute_log_mel(fake)), "silence": distance(torch.full_like(real, -5.0)),
            "noise_of_equal_level": distance(compute_log_mel(noise)),
            "mean_spectrum": distance(mean.expand_as(real)),
        },
        "si_sdr_db": {
            "codec": round(float(sdr.mean()), 2), "se": round(float(sdr.std() / len(sdr) ** 0.5), 2),
            "noise": round(float(compute_si_sdr(noise, audio).mean()), 1),
        },
        "level_db_change": round(float(20 * (fake.std(-1) / audio.std(-1)).log10().mean()), 1),
        "perplexity": [round(p, 1) for p in compute_perplexity(codes)],
        "codes_used": [len(codes[:, k].unique()) for k in range(N_CODEBOOKS)],
    }  # fmt: skip


def compute_perplexity(codes: Tensor) -> list[float]:
    """Compute the exponential of the entropy of each codebook's use: (N, K, T) -> K values, at most its size."""
    result = []
    for k in range(codes.shape[1]):
        p = torch.bincount(codes[:, k].flatten()).double()
        p = p[p > 0] / p.sum()
        result.append(float(torch.exp(-(p * p.log()).sum())))
    return result


def measure_baselines(train: Segments, codes: Tensor, size: int) -> dict[str, list[float]]:
    """Measure the cross-entropy (nats) of held-out codes (N, K, T) under models that count training codes.

    The unigram adds one to each count.  The bigram of codebook k conditions on its own previous code,
    smoothed by the unigram: (count + w x unigram) / (total + w), with the best w of 5, 20, 80, 320.
    `size` is the codebooks'.
    """
    unigram, bigram = [], []
    for k in range(N_CODEBOOKS):
        known = train.codes[:, k].astype(np.int64)  # (S, T)
        p = np.bincount(known.ravel(), minlength=size) + 1.0
        p /= p.sum()
        pairs = np.bincount((known[:, :-1] * size + known[:, 1:]).ravel(), minlength=size**2)
        pairs = pairs.reshape(size, size).astype(np.float64)
        asked = codes[:, k].numpy()
        first = -np.log(p[asked])
        unigram.append(round(float(first.mean()), 4))
        weights = []
        for weight in (5.0, 20.0, 80.0, 320.0):
            q = (pairs[asked[:, :-1], asked[:, 1:]] + weight * p[asked[:, 1:]]) / (
                pairs.sum(1)[asked[:, :-1]] + weight
            )
            weights.append(float((first[:, :1].sum() - np.log(q).sum()) / asked.size))
        bigram.append(round(min(weights), 4))
    return {"unigram": unigram, "bigram": bigram}


def measure_captions(
    model: MusicgenForConditionalGeneration,
    tokenizer: T5Tokenizer,
    codes: Tensor,
    captions: list[str],
    tracks: list[int],
    seed: int,
) -> dict[str, Any]:
    """Measure held-out losses with the right caption and with another track's, and the gain with its error.

    Args:
        model: In eval mode.
        tokenizer: The text encoder's.
        codes: (N, K, T).
        captions: N of them.
        tracks: Their tracks: a shuffled caption comes from another track; errors are clustered by track.
        seed: Of the shuffle.
    """
    rng = np.random.default_rng(seed)
    order = np.arange(len(captions))
    for i in range(len(order)):
        order[i] = rng.choice([j for j in range(len(order)) if tracks[j] != tracks[i]])
    right = evaluate_model(model, tokenizer, codes, captions)
    wrong = evaluate_model(model, tokenizer, codes, [captions[j] for j in order])
    gain = (wrong - right).mean(1).numpy()
    by_track = np.array([gain[np.array(tracks) == t].mean() for t in sorted(set(tracks))])
    return {
        "n_clips": len(captions), "n_tracks": len(by_track),
        "right": [round(float(v), 4) for v in right.mean(0)],
        "shuffled": [round(float(v), 4) for v in wrong.mean(0)],
        "right_mean": round(float(right.mean()), 4), "shuffled_mean": round(float(wrong.mean()), 4),
        "gain": round(float(by_track.mean()), 4),
        "gain_se": round(float(by_track.std(ddof=1) / math.sqrt(len(by_track))), 4),
    }  # fmt: skip


def measure_samples(
    model: MusicgenForConditionalGeneration,
    tokenizer: T5Tokenizer,
    reference: Tensor,
    seed: int,
    clip_s: float = 8.0,
) -> tuple[dict[str, Any], Tensor]:
    """Sample one clip per prompt in one batch (top-k 250, T=1, guidance 3), and describe the clips.

    Args:
        model: In eval mode.
        tokenizer: The text encoder's.
        reference: Held-out music (N, 1, samples), for comparison.
        seed: Of the sampling.
        clip_s: Of each clip.

    Returns:
        The figures, and the clips (N, 1, samples).
    """
    text = tokenizer(list(SAMPLE_PROMPTS), return_tensors="pt", padding=True)
    n_new = int(clip_s * FRAME_RATE_HZ) + N_CODEBOOKS - 1
    torch.manual_seed(seed)
    start = time.perf_counter()
    with torch.no_grad():
        clips: Any = model.generate(
            **text, max_new_tokens=n_new, do_sample=True, top_k=250, temperature=1.0, guidance_scale=3.0
        )
        wall_s = time.perf_counter() - start
        codes = torch.cat([model.audio_encoder.encode(c).audio_codes[0] for c in clips.split(4)])
    figures = {
        "n_clips": len(clips), "clip_s": clips.shape[-1] / SAMPLE_RATE_HZ, "wall_s": round(wall_s, 1),
        "audio_s_per_s": round(clips.shape[0] * clips.shape[-1] / SAMPLE_RATE_HZ / wall_s, 2),
        "threads": torch.get_num_threads(),
        "sampled": describe_clips(clips), "heldout_music": describe_clips(reference),
        "distinct_codes_per_clip": [
            round(float(np.mean([len(c[k].unique()) for c in codes])), 1) for k in range(N_CODEBOOKS)
        ],
        "prompts": list(SAMPLE_PROMPTS),
    }  # fmt: skip
    return figures, clips


def describe_clips(clips: Tensor) -> dict[str, Any]:
    """Measure level (dBFS), centroid (Hz), share of 50 ms frames below -60 dBFS and flatness of (N, 1, samples)."""
    frames = clips[:, 0].unfold(-1, 800, 800)
    level = 10 * torch.log10(frames.pow(2).mean(-1) + 1e-12)
    spectrum = torch.fft.rfft(clips[:, 0].unfold(-1, 1024, 512) * torch.hann_window(1024)).abs()
    frequency = torch.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[-1])
    centroid = (spectrum * frequency).sum((-1, -2)) / spectrum.sum((-1, -2)).clamp_min(1e-8)
    flatness = torch.exp((spectrum.pow(2) + 1e-10).log().mean(-1)) / (spectrum.pow(2).mean(-1) + 1e-10)
    rms = 10 * torch.log10(clips[:, 0].pow(2).mean(-1) + 1e-12)
    return {
        "level_dbfs": [round(float(v), 1) for v in rms], "centroid_hz": [round(float(v)) for v in centroid],
        "silent_frac": round(float((level < -60).float().mean()), 4),
        "flatness": round(float(flatness.mean()), 4),
    }  # fmt: skip
