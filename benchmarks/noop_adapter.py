"""False positives: how often a LoRA adapter without effect is called better or worse, on generated clips.

    python benchmarks/noop_adapter.py --work WORK    # writes benchmarks/results/calibration/noop_adapter.md

The zero-shot model generates clips of one prompt; so does the same model with a LoRA adapter as it is before
the first training step (A random, B zero), from *other* noise, so that not one clip is the same.  What is
known then is that the true difference is zero.  Clips are written, read and embedded as in a run, against
the genre's held-out tracks.  Experiments are then made of them in two ways:

    draws   `--pairs` clips of each side, drawn and paired at random again and again; experiments share
            `pairs / clips` of their clips, so they are only nearly independent
    blocks  all clips in disjoint blocks of `--block` pairs: few but independent experiments

The kernel distance is tested on every `--kernel-every`-th vector of a clip, which leaves the test as it is (clips
stay whole) and takes a twentieth of the time.

A comparison is wrong if its p-value is at most 0.05; its verdict is wrong if it says better or worse, which
also needs the interval to leave out zero.  With the *same* noise the adapter's clips must equal the base's bit
for bit; that is checked first.  Everything in `--work` is kept, and the same command resumes.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from calibration_report import share, write_table

from lora_bench.artifacts import Embeddings, Manifest
from lora_bench.comparison.paired_test import Comparison, compare_paired
from lora_bench.evaluation.encoding import embed_reference, load_clips, prepare_encoder
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.metrics.verdicts import ALPHA, Verdict
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
COLUMNS = {
    "metric": "metric",
    "way": "experiments",
    "n": "how many",
    "n_pairs": "pairs",
    "rejected": "p <= 0.05",
    "rejected_se": "+-",
    "told": "better or worse",
    "told_se": "+-",
    "misses": "interval leaves out 0",
    "misses_se": "+-",
}


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


def thin_windows(embeddings: Embeddings, every: int) -> Embeddings:
    """Every so manieth vector of each clip."""
    index = np.asarray(embeddings.clip_index)
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    kept = (np.arange(len(index)) - np.repeat(starts, np.bincount(index))) % every == 0
    return replace(embeddings, values=np.asarray(embeddings.values)[kept], clip_index=index[kept])


def pair(
    one: Embeddings, ones: Sequence[int], other: Embeddings, others: Sequence[int]
) -> tuple[Embeddings, ...]:
    """Some clips of two sets under common names, which is how clips are paired."""
    names = tuple(f"{place:04d}" for place in range(len(ones)))
    return tuple(
        Embeddings(part.values, part.clip_index, names, names, part.provenance)
        for part in (take_clips(one, ones), take_clips(other, others))
    )


def draw_experiments(
    way: str, sides: Sides, arguments: argparse.Namespace
) -> Iterator[tuple[Embeddings, ...]]:
    """Pairs of equally named sets, see the top of this file."""
    n = len(sides.base.clip_names)
    if way == "blocks":
        for start in range(0, n - arguments.block + 1, arguments.block):
            block = range(start, start + arguments.block)
            yield pair(sides.base, block, sides.adapter, block)
        return
    for trial in range(arguments.trials):
        rng = np.random.default_rng([trial, 3])
        ones, others = (rng.permutation(n)[: arguments.pairs].tolist() for _ in range(2))
        yield pair(sides.base, ones, sides.adapter, others)


def test_experiments(
    metric: Metric, way: str, sides: Sides, arguments: argparse.Namespace
) -> list[Comparison]:
    if metric.distance == "mmd":
        every = arguments.kernel_every
        thinned = [thin_windows(part, every) for part in (sides.base, sides.adapter, sides.recordings)]
        sides = Sides(*thinned)
    return [
        compare_paired(
            metric, base, tuned, sides.recordings, n_permutations=arguments.permutations, seed=trial
        )
        for trial, (base, tuned) in enumerate(draw_experiments(way, sides, arguments))
    ]


def summarize(metric: str, way: str, found: list[Comparison]) -> dict[str, object]:
    rejected, rejected_se, n = share(item.p_value <= ALPHA for item in found)
    told, told_se, _ = share(item.verdict != Verdict.NO_DIFFERENCE for item in found)
    misses, misses_se, _ = share(
        item.ci_low is not None and item.ci_high is not None and not item.ci_low <= 0.0 <= item.ci_high
        for item in found
    )
    return {
        "metric": f"`{metric}`", "way": way, "n": n, "n_pairs": found[0].n_pairs,
        "rejected": rejected, "rejected_se": rejected_se, "told": told, "told_se": told_se,
        "misses": misses, "misses_se": misses_se,
    }  # fmt: skip


def write_result(rows: list[dict[str, object]], facts: list[str], command: str, wall_s: float) -> str:
    last = (
        "`+-` is the binomial standard error. A verdict needs the test and the interval, so it is wrong less often "
        "than either."
    )
    worst = max(rows, key=lambda row: float(str(row["told"])))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    lines = [
        "# False positives of an adapter without effect, on generated clips",
        "",
        f"`{command}` ({wall_s / 60.0:.0f} min, {machine}); its docstring says what the experiments are.",
        "",
        *facts,
        "",
        *write_table(rows, COLUMNS),
        "",
        f"The largest rate of wrong verdicts is {float(str(worst['told'])):.3f} +- "
        f"{float(str(worst['told_se'])):.3f} ({worst['metric']}, {worst['way']}); at most 0.05 is right. "
        + last,
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
    parser.add_argument("--clips", type=int, default=1000, help="of each side")
    parser.add_argument("--clip-s", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kernel-every", type=int, default=5)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--metrics", nargs="+", default=["mfcc20", "mmd/mfcc20", "encodec", "mmd/encodec"])
    parser.add_argument("--ways", nargs="+", default=["draws", "blocks"])
    arguments = parser.parse_args()
    begin = time.monotonic()
    made, manifest, facts = make_sides(arguments)
    rows: list[dict[str, object]] = []
    for name in arguments.metrics:
        metric = parse_metric(name)
        sides = made[metric.encoder]
        for way in arguments.ways:
            rows.append(summarize(name, way, test_experiments(metric, way, sides, arguments)))
            print(rows[-1], flush=True)
    recordings = next(iter(made.values())).recordings
    facts.append(
        f"- recordings: {len(recordings.clip_names)} excerpts of {len(set(recordings.groups))} held-out tracks of "
        f"`{manifest.name}`"
    )
    command = f"python benchmarks/noop_adapter.py --work WORK --clips {arguments.clips}"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = write_result(rows, facts, command, time.monotonic() - begin)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
