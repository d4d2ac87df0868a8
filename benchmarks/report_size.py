"""Time and size of a report over many cells, of invented runs.

    python benchmarks/report_size.py

A study of 200 configurations, 5 metrics and 9 prompts (and all prompts together) is 10,000 cells.  The limits are
10 s for a whole report and 20 MB for its page; the exit code says whether they were kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lora_bench.report.render import render_report

MAX_S = 10.0
MAX_PAGE_BYTES = 20_000_000
METRICS = ("mfcc20-seed", "mfcc20", "encodec", "vggish", "clap")
TARGETS = ("attention", "ffn", "all", "self_attention")


def write_run(folder: Path, n_trials: int, n_prompts: int) -> Path:
    """A run's files with random scores, contrasts and curves; no clips."""
    noise = np.random.default_rng(0)
    prompts = [
        f"invented prompt {index}, in words enough to fill a line of a table" for index in range(n_prompts)
    ]
    ranks = [2 ** (1 + index) for index in range(max(1, n_trials // len(TARGETS)))][:50]
    trials: list[dict[str, Any]] = [make_trial("zero-shot", "zero-shot", None, prompts)]
    for index in range(1, n_trials):
        rank, target = 1 + index // len(TARGETS), TARGETS[index % len(TARGETS)]
        trials.append(make_trial(f"r{rank}-{target}", "fine-tuned", (rank, target), prompts))
    spec = {
        "schema": 1, "name": "many", "prompts": prompts, "metrics": list(METRICS),
        "generation": {"n_clips": 10, "clip_s": 8.0}, "model": {"id": "pocket"},
        "trials": {"grid": {"axes": {"lora.rank": ranks, "lora.targets": list(TARGETS)}}},
    }  # fmt: skip
    run = folder / "many"
    save(run / "plan.json", {"name": "many", "spec": spec, "trials": trials})
    compared: list[dict[str, Any]] = []
    for trial in trials:
        place = run / "trials" / trial["id"]
        scores: list[dict[str, Any]] = []
        for metric in METRICS:
            for prompt in (*prompts, None):
                value = float(noise.uniform(1, 20))
                scores.append(
                    {
                        "metric": metric, "prompt": prompt, "value": value, "n_generated": 10, "n_reference": 20,
                        "dim": 20, "se": 0.1, "ci_low": value - 0.2, "ci_high": value + 0.2, "corrected": value - 0.1,
                        "note": None, "provenance": {"encoder": metric, "weights": "none"},
                    }
                )  # fmt: skip
                if trial["kind"] == "fine-tuned":
                    delta = float(noise.normal(-0.1, 0.2))
                    verdict = "better" if delta < -0.2 else "worse" if delta > 0.2 else "inconclusive"
                    compared.append(
                        {
                            "metric": metric, "prompt": prompt, "configuration": trial["name"],
                            "delta": delta, "se": 0.1, "ci_low": delta - 0.2, "ci_high": delta + 0.2, "detectable": 0.3,
                            "primary": metric == METRICS[0], "n_pairs": 10, "n_tracks": 10,
                            "verdict": verdict if metric == METRICS[0] else None,
                            "seeds": [{"trial": trial["id"], "train_seed": 0, "delta": delta}],
                        }
                    )  # fmt: skip
        save(place / "scores.json", {"scores": scores, "unscored": []})
        save(place / "state.json", {"state": "done", "wall_s": {"train": 10.0, "generate": 5.0}})
        if trial["kind"] == "fine-tuned":
            curve = [
                {"step": step, "train_loss": 5 - step / 400, "eval_loss": None, "lr": 1e-4, "wall_s": 1.0}
                for step in range(1, 200)
            ]
            record = {"trainable_params": 1000, "matched_modules": {}, "curve": curve, "wall_s": 10.0}
            save(place / "train.json", record | {"peak_memory_gib": 1.0})
    save(run / "contrasts.json", {"contrasts": compared})
    return run


def make_trial(name: str, kind: str, settings: tuple[int, str] | None, prompts: list[str]) -> dict[str, Any]:
    """A planned trial."""
    changes = {} if settings is None else {"lora.rank": settings[0], "lora.targets": settings[1]}
    lora = None if settings is None else {"rank": settings[0], "alpha": 2.0, "targets": settings[1]}
    return {
        "id": f"{name}-00000000", "name": name, "configuration": name, "kind": kind, "changes": changes,
        "train_seed": None if settings is None else 0, "lora": lora, "train": None, "prompts": prompts,
        "metrics": list(METRICS),
    }  # fmt: skip


def save(path: Path, value: Any) -> None:
    """JSON, without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def main() -> int:
    """Render and print; 1 if a limit was passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = write_run(Path(place), arguments.trials, arguments.prompts)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        files = render_report(run, Path(place) / "reports")
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        sizes = {path.name: path.stat().st_size for path in files}
    n_cells = arguments.trials * len(METRICS) * (arguments.prompts + 1)
    print(f"{n_cells:,} cells: {wall_s:.2f} s of wall time, {cpu_s:.2f} s of processor time")
    for name, size in sizes.items():
        if not name.endswith(".svg"):
            print(f"{name}: {size / 1e6:.2f} MB")
    n_plots = sum(name.endswith(".svg") for name in sizes)
    print(f"{n_plots} plots: {sum(s for n, s in sizes.items() if n.endswith('.svg')) / 1e6:.2f} MB")
    return int(cpu_s > MAX_S or sizes["report.html"] > MAX_PAGE_BYTES)


if __name__ == "__main__":
    sys.exit(main())
