"""Effect of threads and instruction sets on a trained result: the same small spec, run repeatedly.

    python benchmarks/reproducibility.py --work /tmp/reproducibility --out benchmarks/results/reproducibility.md

Every run is a process of its own with a setting in its environment; prepared audio and codes are shared.  The first
run of the first setting is what the others are compared with, and its second run is the control.  Differences are
in units of the standard error of a score, which is what a report shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lora_bench.runner.environment import cpu_name

SETTINGS: dict[str, dict[str, str]] = {
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, ATEN_CPU_CAPABILITY=default": {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default"},
    "2 threads, MKL_CBWR=COMPATIBLE": {"OMP_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"},
}
SPEC = """schema: 1
name: reproducibility
model: {{id: pocket}}
dataset: {{builtin: chiptune, clip_s: 4}}
prompts: ["chiptune, 8-bit game loop, square lead, triangle bass, noise drums"]
generation: {{n_clips: {clips}, clip_s: 4, seed: 0}}
metrics: [mfcc20, encodec]
defaults:
  lora: {{rank: 16, alpha: 32, targets: attention, dropout: 0.05}}
  train: {{steps: {steps}, lr: 2.0e-3, batch_size: 2, eval_every: {steps}, checkpoint_every: {steps}}}
trials:
  variants: [{{name: r16}}]
"""


@dataclass(frozen=True)
class Run:
    """Result of a run.

    Attributes:
        weights: of the adapter, one vector.
        loss: held-out, after the last step.
        scores: value and standard error by kind of trial and metric.
    """

    setting: str
    weights: torch.Tensor
    loss: float
    scores: dict[tuple[str, str], tuple[float, float]]


def run_once(setting: str, repeat: int, spec: Path, work: Path) -> Run:
    """Run the spec under a setting."""
    name = f"{list(SETTINGS).index(setting)}-{repeat}"
    options = [
        "-o",
        f"name=run-{name}",
        "--runs-dir",
        str(work / "runs"),
        "--reports-dir",
        str(work / "reports"),
    ]
    subprocess.run(
        [sys.executable, "-m", "lora_bench", "run", str(spec), "--quiet", *options],
        check=True,
        env={**os.environ, **SETTINGS[setting]},
    )
    results: dict[str, Any] = json.loads(
        (work / f"reports/run-{name}/results.json").read_text(encoding="utf-8")
    )
    scores = {
        (trial["kind"], score["metric"]): (score["value"], score["se"])
        for trial in results["trials"]
        for score in trial["scores"]
        if score["prompt"] is not None
    }
    (tuned,) = (trial for trial in results["trials"] if trial["kind"] == "fine-tuned")
    weights = load_file(work / f"runs/run-{name}" / tuned["adapter"] / "adapter_model.safetensors")
    vector = torch.cat([weights[key].flatten() for key in sorted(weights)])
    return Run(setting, vector, tuned["losses"]["last_eval"], scores)


def write_page(runs: Sequence[Run], arguments: argparse.Namespace, load: float) -> str:
    """The differences from the first run as a page."""
    first = runs[0]
    metrics = list(first.scores)
    command = f"`python benchmarks/reproducibility.py --steps {arguments.steps} --clips {arguments.clips}`"
    about = (
        f"{command}: the pocket model, rank 16, {arguments.steps} steps, {arguments.clips} clips of 4 s. Differences "
        "from the first run: of the adapter's weights as a vector (relative), of the held-out loss, and of scores in "
        "standard errors of the score."
    )
    lines = [
        "# What a repeated run moves",
        "",
        about,
        "",
        "| | weights | loss | " + " | ".join(f"{kind}, {metric}" for kind, metric in metrics) + " |",
        "|:---|" + "---:|" * (2 + len(metrics)),
        f"| {first.setting}: values | {float(first.weights.norm()):.3g} (norm) | {first.loss:.4f} | "
        + " | ".join(f"{value:.3f} ± {se:.3f}" for value, se in first.scores.values())
        + " |",
    ]
    for run in runs[1:]:
        weights = float((run.weights - first.weights).norm() / first.weights.norm())
        moved = [
            f"{(run.scores[metric][0] - first.scores[metric][0]) / first.scores[metric][1]:+.2f} SE "
            f"({run.scores[metric][0] / first.scores[metric][0] - 1:+.1%})"
            for metric in metrics
        ]
        lines.append(
            f"| {run.setting} | {weights:.1e} | {run.loss - first.loss:+.1e} | {' | '.join(moved)} |"
        )
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return "\n".join([*lines, "", f"{machine}, torch {torch.__version__}; load {load:.1f} before.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each setting")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, after the first")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs; kept")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    arguments.work.mkdir(parents=True, exist_ok=True)
    spec = arguments.work / "spec.yaml"
    spec.write_text(SPEC.format(steps=arguments.steps, clips=arguments.clips), encoding="utf-8")
    pending = [(setting, repeat) for setting in SETTINGS for repeat in range(arguments.repeats)]
    runs = [run_once(*pending[0], spec, arguments.work)]  # fills the cache that the others share
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs += pool.map(lambda item: run_once(*item, spec, arguments.work), pending[1:])
    page = write_page(runs, arguments, load)
    print(page)
    if arguments.out is not None:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
