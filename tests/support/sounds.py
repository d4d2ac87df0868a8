"""Small synthetic clips for the encoders' tests."""

from __future__ import annotations

import numpy as np

from lora_bench.artifacts import AudioClip


def make_tone(
    name: str,
    *,
    hz: float = 440.0,
    rate_hz: int = 16_000,
    seconds: float = 1.0,
    channels: int = 1,
    seed: int = 0,
) -> AudioClip:
    """A decaying tone with a little noise; different for every name and seed."""
    n = int(rate_hz * seconds)
    t = np.arange(n) / rate_hz
    noise = np.random.default_rng([seed, *name.encode()]).normal(0, 0.02, (channels, n))
    wave = 0.4 * np.sin(2 * np.pi * hz * t) * (0.4 + 0.6 * np.exp(-3 * (t % 0.5))) + noise
    return AudioClip(name, name, wave.astype(np.float32), rate_hz)


def make_tones(n: int, **settings: float) -> list[AudioClip]:
    """`n` tones a third apart."""
    return [make_tone(f"tone{i}", hz=220.0 * 2 ** (i / 4), **settings) for i in range(n)]  # type: ignore[arg-type]
