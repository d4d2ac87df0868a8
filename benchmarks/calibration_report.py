"""Tables and report of the calibration study."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from populations import Design, World

from lora_bench.metrics import parse_metric
from lora_bench.metrics.verdicts import ALPHA, Verdict

FRECHET, KERNEL = parse_metric("encodec"), parse_metric("mmd/encodec")
DESIGNS = {"50 tracks x 3 clips": Design(), "150 tracks x 1 clip": Design(n_tracks=150, n_track_clips=1)}
COVERAGE_PROGRESS = 0.3
POWER_DIM = 20
POWER_PROGRESS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16)
LESS_VARIETY = "delta FD, less variety"
COLLAPSE_SPREAD = 0.93
TARGET = (0.93, 0.97)
COVERAGE_COLUMNS = (
    "dim",
    "design",
    "trial",
    "quantity",
    "truth",
    "plugin",
    "estimate",
    "se",
    "low",
    "high",
    "wall_s",
)
POWER_COLUMNS = ("metric", "progress", "trial", "truth", "delta", "p_value", "verdict")
Row = dict[str, str]


def read_rows(folder: Path, kind: str) -> list[Row]:
    """Rows of all files `<kind>*.csv`."""
    found: list[Row] = []
    for path in sorted(folder.glob(f"{kind}*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            found += csv.DictReader(stream)
    return found


def share(flags: Iterable[bool]) -> tuple[float, float, int]:
    """A rate, its standard error, and of how many."""
    array = np.asarray(list(flags), dtype=float)
    rate = float(array.mean())
    return rate, float(np.sqrt(max(rate * (1 - rate), 1 / len(array) / 4) / len(array))), len(array)


def summarize_coverage(rows: list[Row]) -> list[dict[str, object]]:
    groups: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((int(row["dim"]), row["design"], row["quantity"]), []).append(row)
    table: list[dict[str, object]] = []
    for (dim, design, quantity), members in sorted(
        groups.items(), key=lambda item: (item[0][2], item[0][1], item[0][0])
    ):
        number = {name: np.asarray([float(row[name]) for row in members]) for name in COVERAGE_COLUMNS[4:]}
        truth, reach = number["truth"], number["high"] - number["estimate"]
        rate, error, n = share((number["low"] <= truth) & (truth <= number["high"]))
        plain, _, _ = share(np.abs(number["plugin"] - truth) <= reach)
        table.append(
            {
                "quantity": quantity,
                "design": design,
                "dim": dim,
                "trials": n,
                "coverage": rate,
                "coverage_se": error,
                "plugin_coverage": plain,
                "truth": float(truth[0]),
                "plugin_bias": float((number["plugin"] - truth).mean()),
                "bias": float((number["estimate"] - truth).mean()),
                "sd": float(number["estimate"].std(ddof=1)) if n > 1 else float("nan"),
                "mean_se": float(number["se"].mean()),
                "wall_s": float(np.median(number["wall_s"])),
            }
        )
    return table


def summarize_power(rows: list[Row], decay: float) -> list[dict[str, object]]:
    world = World(POWER_DIM, 0.0, decay=decay)
    distances = {FRECHET.name: world.frechet(world.base), KERNEL.name: world.kernel(world.base)}
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["metric"], float(row["progress"])), []).append(row)
    table: list[dict[str, object]] = []
    for (metric, progress), members in sorted(groups.items()):
        rejected, error, n = share(float(row["p_value"]) <= ALPHA for row in members)
        told, told_error, _ = share(row["verdict"] != Verdict.NO_DIFFERENCE for row in members)
        table.append(
            {
                "metric": metric,
                "progress": progress,
                "trials": n,
                "true_difference": float(members[0]["truth"]),
                "of_distance": -float(members[0]["truth"]) / distances[metric] + 0.0,
                "rejected": rejected,
                "rejected_se": error,
                "verdicts": told,
                "verdicts_se": told_error,
                "wrong_way": share(row["verdict"] == "worse" for row in members)[0]
                if progress
                else float("nan"),
            }
        )
    return table


def write_table(rows: list[dict[str, object]], columns: dict[str, str]) -> list[str]:
    def cell(value: object) -> str:
        if isinstance(value, float) and np.isnan(value):
            return "-"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows]


def judge_coverage(coverage: list[dict[str, object]]) -> list[str]:
    """List the intervals that miss the target, and say whether by more than two standard errors."""
    lines: list[str] = []
    for row in coverage:
        rate, error = float(str(row["coverage"])), float(str(row["coverage_se"]))
        miss = max(TARGET[0] - rate, rate - TARGET[1])
        if miss > 0.0:
            kind = "too narrow" if rate < TARGET[0] else "wider than needed"
            sure = "by more than" if miss > 2.0 * error else "within"
            spread = f"mean SE {row['mean_se']:.3g}, true SD {row['sd']:.3g}"
            lines.append(
                f"- {row['quantity']}, {row['design']}, D = {row['dim']}: {rate:.3f} +- {error:.3f}, {kind}, "
                f"{sure} two standard errors ({spread})"
            )
    n_fine = len(coverage) - len(lines)
    return [f"{n_fine} of {len(coverage)} are on target. The others:", "", *lines]


def write_report(out: Path, rows: Path, decay: float) -> None:
    """Write `calibration.md` and the `summary_*.csv` files from the rows on disk."""
    coverage = summarize_coverage(read_rows(rows, "coverage"))
    power = summarize_power(read_rows(rows, "power"), decay)
    for name, table in (("coverage", coverage), ("power", power)):
        with (out / f"summary_{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]) if table else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    design = Design()
    lines = [
        "# Calibration of intervals and tests",
        "",
        "Written by `python benchmarks/calibration.py`; the `.csv` files hold the same figures.",
        f"Simulated: {design.n_clips} generated clips of {design.n_windows} windows",
        f"({design.clip_share:.0%} of the variance common to a clip, half of that common to base and tuned);",
        f"recordings in tracks ({design.track_share:.0%} of the variance common to a track,",
        f"{design.track_clip_share:.0%} more to a clip); the k-th largest variance falls as k^-{decay:g}.",
        "Differences are between a base generator and one that went",
        f"{COVERAGE_PROGRESS:.0%} of the way to the recordings; *less variety*: and then shrank by the factor",
        f"{COLLAPSE_SPREAD:g}. Target for the 95 % intervals: 93 to 97 %.",
        "",
        "## Coverage of the 95 % intervals",
        "",
        *write_table(
            coverage,
            {
                "quantity": "quantity",
                "design": "recordings",
                "dim": "D",
                "trials": "trials",
                "coverage": "coverage",
                "coverage_se": "+-",
                "plugin_coverage": "same interval around the plug-in",
                "truth": "truth",
                "plugin_bias": "bias of plug-in",
                "bias": "bias left",
                "sd": "true SD",
                "mean_se": "mean SE",
                "wall_s": "seconds",
            },
        ),
        "",
        *judge_coverage(coverage),
        "",
        "## Paired label-swap test",
        "",
        f"D = {POWER_DIM}, {next(iter(DESIGNS))}. `rejected` is p <= {ALPHA:g}; a verdict also needs",
        "the interval of the corrected difference on one side of zero. Progress 0 is an adapter without",
        "effect, with newly drawn clips: the rate there is that of false positives.",
        "",
        *write_table(
            power,
            {
                "metric": "metric",
                "progress": "progress",
                "trials": "trials",
                "true_difference": "true difference",
                "of_distance": "of the base's distance",
                "rejected": "rejected",
                "rejected_se": "+-",
                "verdicts": "verdicts",
                "verdicts_se": "+-",
                "wrong_way": "called worse",
            },
        ),
        "",
        "The rate on really generated clips is in [noop_adapter.md](noop_adapter.md); what all this shows in",
        "[notes.md](notes.md).",
        "",
    ]
    (out / "calibration.md").write_text("\n".join(lines), encoding="utf-8")
