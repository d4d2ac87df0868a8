"""False positives: how often a LoRA adapter without effect is called better or worse, on generated clips.

    python benchmarks/noop_adapter.py --work WORK    # writes benchmarks/results/calibration/noop_adapter.md

The zero-shot model generates clips of one prompt; so does the same model with a LoRA adapter as it is before
the first training step (A random, B zero), from *other* noise, so that not one clip is the same.  What is
known then is that the true difference is zero.  Clips are written, read and embedded as in a run, against
the genre's held-out tracks.  Experiments draw `--pairs` clips of each side at random, again and again, as those of one
adapter or of three training seeds.  They share `pairs / clips` of their clips, so they are only nearly independent.

A verdict is wrong if it says better or worse.  With the *same* noise the adapter's clips must equal the base's bit
for bit; that is checked first.  Everything in `--work` is kept, and the same command resumes.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from heavy_tails import Tally, excludes_zero, replicate

from lora_bench.artifacts import Embeddings, Manifest
from lora_bench.evaluation.encoding import embed_reference, load_clips, prepare_encoder
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.contrast import add_seed_errors, subtract
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import generate_codes
from lora_bench.models.loading import load_model
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import DatasetSpec, GenerationSpec, LoraSpec, ModelSpec
from lora_bench.stages.dataset import prepare_dataset
from lora_bench.stages.embed import embed_clips
from lora_bench.stages.generate import generate_clips
from lora_bench.store import Store, hash_json

RESULT = Path(__file__).parent / "results" / "calibration" / "noop_adapter.md"
SIDES = ("zero-shot", "adapter")
LORA = LoraSpec(rank=16, targets="attention")
N_SAME_NOISE = 16
N_SEEDS = (1, 3)


@dataclass(frozen=True)
class Sides:
    """Clips of both sides and the recordings, as one encoder sees them."""

    base: Embeddings
    adapter: Embeddings
    recordings: Embeddings


def add_noop_adapter(model: MusicModel) -> int:
    """Put in an untrained adapter; returns how many numbers it has.

    Raises:
        SystemExit: the adapter would change something.
    """
    injected = model.inject_lora(LORA, seed=0)
    parameters = model.adapter_parameters()
    ups = [value for name, value in parameters.items() if "lora_B" in name]
    downs = [value for name, value in parameters.items() if "lora_A" in name]
    if not ups or any(bool(value.any()) for value in ups) or not all(bool(value.any()) for value in downs):
        raise SystemExit("an untrained adapter should have zeros in every B and numbers in every A")
    return injected.trainable_params


def count_same_clips(model: MusicModel, arguments: argparse.Namespace) -> int:
    """Of `N_SAME_NOISE` clips, how many have the same codes with and without the adapter; leaves it in."""
    generation = plan_generation(arguments, 0)
    n_frames = model.info.count_frames(round(arguments.clip_s * model.info.audio_format.sample_rate_hz))
    wanted = (model, arguments.prompt, range(N_SAME_NOISE), n_frames, generation, SilentProgress())
    base = generate_codes(*wanted)
    add_noop_adapter(model)
    return int((generate_codes(*wanted) == base).flatten(1).all(1).sum())


def plan_generation(arguments: argparse.Namespace, seed: int) -> GenerationSpec:
    return GenerationSpec(n_clips=arguments.clips, clip_s=arguments.clip_s, seed=seed)


def make_sides(arguments: argparse.Namespace) -> tuple[dict[str, Sides], Manifest, list[str]]:
    """Generate, embed, and say what was made."""
    model, store, told = (
        load_model(ModelSpec(id=arguments.model)),
        Store(arguments.work / "cache"),
        SilentProgress(),
    )
    manifest = prepare_dataset(DatasetSpec(builtin="chiptune"), model.info.audio_format, store, told)
    same = (model.info.weights_hash, arguments.prompt, arguments.clip_s)
    clips, walls_s = {}, []
    for seed, side in enumerate(SIDES):
        if side == "adapter":
            n_same = count_same_clips(model, arguments)
        folder = arguments.work / f"{side}-{hash_json([*same, seed])[:8]}"
        clips[side] = generate_clips(model, arguments.prompt, plan_generation(arguments, seed), folder, told)
        walls_s.append(clips[side].wall_s)
        print(f"{side}: {arguments.clips} clips in {walls_s[-1]:.0f} s", flush=True)
    found: dict[str, Sides] = {}
    for name in dict.fromkeys(parse_metric(metric).encoder for metric in arguments.metrics):
        encoder = prepare_encoder(name, model, manifest, arguments.clip_s, store)
        made = [embed_clips(encoder, load_clips(clips[side]), store) for side in SIDES]
        found[name] = Sides(*made, embed_reference(encoder, manifest, arguments.clip_s, store))
        print(f"{name}: embedded", flush=True)
    facts = [
        f"- model `{model.info.name}`; prompt *{arguments.prompt}*",
        f"- {arguments.clips} clips of {arguments.clip_s:g} s on each side, generation seeds 0 and 1",
        f"- adapter: rank {LORA.rank}, {LORA.targets}, A random, B zero",
        f"- with the same noise {n_same} of {N_SAME_NOISE} clips have the same codes with and without the adapter",
    ]
    return found, manifest, facts


def draw_clips(embeddings: Embeddings, rng: np.random.Generator, n: int) -> Embeddings:
    """Some clips of a set."""
    return take_clips(embeddings, rng.permutation(len(embeddings.clip_names))[:n].tolist())


def count_false(metric: Metric, sides: Sides, n_seeds: int, n_pairs: int, n_trials: int) -> Tally:
    """How often an adapter without effect gets a verdict."""
    tally = Tally()
    for trial in range(n_trials):
        rng = np.random.default_rng([trial, n_seeds])
        base = replicate(metric, [draw_clips(sides.base, rng, n_pairs)], sides.recordings)
        tuned = [
            replicate(metric, [draw_clips(sides.adapter, rng, n_pairs)], sides.recordings)
            for _ in range(n_seeds)
        ]
        tally.count(excludes_zero(add_seed_errors([subtract([(made, base) for made in tuned])])[0]))
    return tally


def write_result(rows: list[str], facts: list[str], command: str, wall_s: float) -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    lines = [
        "# Verdicts on an adapter without effect, on generated clips",
        "",
        f"`{command}` ({wall_s / 60.0:.0f} min, {machine}); its docstring says what the experiments are.",
        "",
        *facts,
        "",
        "| metric | " + " | ".join(f"{n} training seed{'s' * (n > 1)}" for n in N_SEEDS) + " |",
        "|:---|" + "---:|" * len(N_SEEDS),
        *rows,
        "",
        "Share of experiments called better or worse, in percent, with its standard error; at most 5 should be.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="clips, embeddings; kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--model", default="pocket")
    parser.add_argument(
        "--prompt", default="chiptune, 8-bit game loop, square lead, triangle bass, noise drums"
    )
    parser.add_argument("--clips", type=int, default=300, help="of each side")
    parser.add_argument("--clip-s", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--metrics", nargs="+", default=["mfcc20-seed", "mfcc20", "encodec"])
    arguments = parser.parse_args()
    begin = time.monotonic()
    made, manifest, facts = make_sides(arguments)
    rows: list[str] = []
    for name in arguments.metrics:
        metric = parse_metric(name)
        cells = [
            str(count_false(metric, made[metric.encoder], n, arguments.pairs, arguments.trials))
            for n in N_SEEDS
        ]
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    recordings = next(iter(made.values())).recordings
    facts.append(
        f"- recordings: {len(recordings.clip_names)} excerpts of {len(set(recordings.groups))} held-out tracks of "
        f"`{manifest.name}`"
    )
    command = (
        f"python benchmarks/noop_adapter.py --work WORK --clips {arguments.clips} --pairs {arguments.pairs}"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = write_result(rows, facts, command, time.monotonic() - begin)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
