"""Time profile of a whole trial.

    python benchmarks/trial_profile.py specs/quickstart.yaml
    python benchmarks/trial_profile.py specs/quickstart.yaml -o generation.n_clips=16 --trial r16-all

One trial, fine-tuned, from nothing: an empty cache and an empty folder, in one process without Ray.  The stages are
those that a trial records; below them, what the largest are made of.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lora_bench.models.base import MusicModel
from lora_bench.models.decoding import decoder as decoding
from lora_bench.planning.plan import plan_file
from lora_bench.progress import SilentProgress
from lora_bench.runner.trial import execute_trial
from lora_bench.spec.loading import load_spec
from lora_bench.stages import generate, wav_writer
from lora_bench.stages.train import loop
from lora_bench.store import Store


def watch(place: Any, name: str, spent: dict[str, list[float]], words: str) -> None:
    """Count calls of a function and their time."""
    original: Callable[..., Any] = getattr(place, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            spent.setdefault(words, []).append(time.perf_counter() - begin)

    setattr(place, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--trial", help="name of the configuration; the first fine-tuned one if left out")
    arguments = parser.parse_args()
    plan = plan_file(load_spec(arguments.spec, arguments.overrides))
    tuned = [trial for trial in plan.trials if trial.kind == "fine-tuned"]
    trial = next((item for item in tuned if arguments.trial in {None, item.name}), None)
    if trial is None:
        parser.error(f"no trial {arguments.trial}; there are {', '.join(item.name for item in tuned)}")
    spent: dict[str, list[float]] = {}
    watch(decoding.Decoder, "decode", spent, "generate: codes, by batches")
    watch(MusicModel, "decode_audio", spent, "generate: sound")
    watch(wav_writer, "save_wav", spent, "generate: writing wav files, in parallel")
    watch(generate, "save_codes", spent, "generate: writing codes")
    watch(loop, "take_step", spent, "train: steps")
    watch(loop, "measure_eval_loss", spent, "train: held-out loss")
    watch(MusicModel, "encode_audio", spent, "train: encoding audio")
    load = os.getloadavg()[0]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        figures = execute_trial(trial, place / "trial", Store(place / "cache"), SilentProgress())
    all_s = time.perf_counter() - begin
    parts = {"all": all_s, **figures["wall_s"]}
    print(f"| {trial.name} | s | share | calls |\n|---|---:|---:|---:|")
    for words, wall_s in parts.items():
        print(f"| {words} | {wall_s:.1f} | {wall_s / all_s:.0%} | |")
        for part, times in spent.items():
            if part.startswith(f"{words}:"):
                print(f"| &nbsp;&nbsp;{part} | {sum(times):.1f} | {sum(times) / all_s:.0%} | {len(times)} |")
    print(f"\n{os.cpu_count()} CPUs, {torch.get_num_threads()} threads, load {load:.1f} before")


if __name__ == "__main__":
    main()
