"""Codes to sound: seconds of audio per second by clips at once, and whether a clip's bits depend on its batch.

    python benchmarks/codec.py --model small
    python benchmarks/codec.py --model small --device cuda

Batches take turns, and the best round of each counts.  Random codes; the codec's weights are those of the model.
"""

from __future__ import annotations

import argparse
import os

import devices
import numpy as np
import torch
from models import NAMES, make_model

from lora_bench.models.base import MusicModel


def compare_bits(model: MusicModel, codes: torch.Tensor) -> tuple[float, bool]:
    """The largest difference between clips of a batch and the same alone, and whether neighbours change a clip."""
    alone = np.concatenate([model.decode_audio(clip[None]) for clip in codes])
    together = model.decode_audio(codes)
    turned = model.decode_audio(codes.flip(0))[::-1]
    return float(np.abs(together - alone).max()), bool((together != turned).any())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="small")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a clip")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8], help="clips at once")
    parser.add_argument("--rounds", type=int, default=3)
    devices.add_device_options(parser)
    arguments = parser.parse_args()
    devices.check_device(arguments)
    device = devices.find_device(arguments)
    model = make_model(arguments.model, device=device, dtype=devices.find_dtype(arguments))
    info, load = model.info, os.getloadavg()[0]
    n_frames = round(arguments.seconds * info.frame_rate_hz)
    draw = torch.Generator().manual_seed(0)
    shape = (max(arguments.batch), info.n_codebooks, n_frames)
    codes = torch.randint(info.codebook_size, shape, generator=draw)
    best_s: dict[int, float] = {}
    for number in range(arguments.rounds + 1):  # the first warms up
        for size in arguments.batch:
            begin_s = devices.read_clock_s(device)
            model.decode_audio(codes[:size])
            took_s = devices.read_clock_s(device) - begin_s
            if number:
                best_s[size] = min(took_s, best_s.get(size, np.inf))
    first = best_s[arguments.batch[0]] / arguments.batch[0]
    print(
        "| clips at once | audio seconds per second | ratio to the first | largest difference | by neighbours |"
    )
    print("|---:|---:|---:|---:|---|")
    for size, took_s in best_s.items():
        difference, is_changed = compare_bits(model, codes[:size])
        speed, ratio = size * arguments.seconds / took_s, first / (took_s / size)
        changed = "other bits" if is_changed else "the same"
        print(f"| {size} | {speed:.1f} | {ratio:.2f} | {difference:.1e} | {changed} |")
    print(
        f"\n{devices.describe_device(arguments)}, {torch.get_num_threads()} threads, load {load:.1f} before"
    )


if __name__ == "__main__":
    main()
