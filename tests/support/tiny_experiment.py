"""A small experiment on the embedded model, run through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lora_bench.cli.main import main

SPEC = """
schema: 1
name: tiny
model: {id: pocket}
dataset: {path: music, captions: {text: "chiptune game loop"}, clip_s: 2, split: {by: track, eval_frac: 0.5, seed: 0}}
prompts: ["chiptune game loop"]
generation: {n_clips: 3, clip_s: 2}
metrics: [mfcc20-seed, mfcc20, encodec]
defaults:
  lora: {rank: 2, targets: self_attention, dropout: 0.0}
  train: {steps: 2, batch_size: 2, lr: 1.0e-3, eval_every: 2, checkpoint_every: 2}
trials:
  variants:
    - {name: r2}
"""


N_TRACKS = 6
RATE_HZ = 16_000


def write_music(folder: Path) -> None:
    """Six tunes of 5 s: square waves over random walks on a pentatonic scale."""
    folder.mkdir()
    for track in range(N_TRACKS):
        noise = np.random.default_rng(track)
        steps = np.cumsum(noise.integers(-2, 3, 40)) % 15
        tone_hz = 220.0 * 2.0 ** (np.array([0, 2, 4, 7, 9])[steps % 5] / 12 + steps // 5 - 1)
        phase = np.cumsum(np.repeat(tone_hz, RATE_HZ // 8)) / RATE_HZ
        audio = 0.2 * np.sign(np.sin(2 * np.pi * phase)) + 0.01 * noise.standard_normal(len(phase))
        soundfile.write(folder / f"tune{track}.wav", audio, RATE_HZ)


def run(place: Path, *options: str, spec: str = SPEC) -> int:
    if not (place / "music").exists():
        write_music(place / "music")
    file = place / "tiny.yaml"
    file.write_text(spec, encoding="utf-8")
    return main(
        [
            "run",
            str(file),
            "--runs-dir",
            str(place / "runs"),
            "--reports-dir",
            str(place / "reports"),
            *options,
        ]
    )


def results(place: Path) -> dict[str, Any]:
    return json.loads((place / "runs" / "tiny" / "results.json").read_text(encoding="utf-8"))
