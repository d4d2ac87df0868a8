"""Are the intervals and tests what they say?  Coverage, false positives and power on simulated clips.

    python benchmarks/calibration.py --out reports/calibration [--trials 200] [--dims 20 128 200]

Every trial draws a base and a tuned generator's clips (paired) and recordings in tracks, all with correlated
windows, from populations whose distances are known.  Results are appended trial by trial to `coverage.csv`
and `power.csv`; the same command goes on where it stopped, then writes `calibration.md`, `summary.csv` and
`calibration.svg`.  With `--generated` and `--reference` (embeddings as a run stores them) the false-positive
rate is also measured on really generated clips: one generator's clips are divided at random into two.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from populations import Design, World
from svg_plot import Chart, render_charts

from lora_bench.comparisons import ALPHA, NO_DIFFERENCE, Comparison, compare_paired
from lora_bench.metrics import Metric, parse_metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.stages.embed import load_embeddings
from lora_bench.stages.score import score_embeddings

FRECHET, KERNEL = parse_metric("encodec"), parse_metric("mmd/encodec")
DESIGNS = {"50 tracks x 3 clips": Design(), "150 tracks x 1 clip": Design(n_tracks=150, n_track_clips=1)}
COVERAGE_PROGRESS = 0.3
POWER_DIM = 20
POWER_PROGRESS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
QUANTITIES = {"FD": "FD", "delta FD": "difference of FD", "MMD": "MMD (KAD)"}
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


def read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def append_rows(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{item:.6g}" if isinstance(item, float) else item for item in row])


def cover_once(world: World, dim: int, design: str, trial: int) -> Iterator[tuple[object, ...]]:
    """One simulated experiment: an interval for the distance, for the paired difference, and for the MMD."""
    rng = np.random.default_rng([dim, trial, 1])
    base, tuned = world.sample_generators(rng, DESIGNS[design])
    recordings = world.sample_recordings(rng, DESIGNS[design])
    head, start = (dim, design, trial), time.perf_counter()
    score = score_embeddings(FRECHET, base, recordings)
    truth = world.frechet(world.base)
    spent = time.perf_counter() - start
    yield (*head, "FD", truth, score.value, score.corrected, score.se, score.ci_low, score.ci_high, spent)
    start = time.perf_counter()
    found = compare_paired(FRECHET, base, tuned, recordings, n_permutations=1)
    truth, spent = world.frechet(world.tuned) - truth, time.perf_counter() - start
    estimate = (found.delta_plugin, found.delta, found.se, found.ci_low, found.ci_high)
    yield (*head, "delta FD", truth, *estimate, spent)
    start = time.perf_counter()
    score = score_embeddings(KERNEL, base, recordings)
    estimate = (score.value, score.corrected, score.se, score.ci_low, score.ci_high)
    yield (*head, "MMD", world.kernel(world.base), *estimate, time.perf_counter() - start)


def run_coverage(path: Path, dims: list[int], trials: int, decay: float) -> None:
    done = {(row["dim"], row["design"], row["trial"]) for row in read_rows(path)}
    for dim in dims:
        world = World(dim, COVERAGE_PROGRESS, decay=decay)
        for trial in range(trials):
            for design in DESIGNS:
                if (str(dim), design, str(trial)) not in done:
                    append_rows(path, COVERAGE_COLUMNS, list(cover_once(world, dim, design, trial)))


def run_power(path: Path, trials: int, n_permutations: int, decay: float) -> None:
    done = {(row["metric"], float(row["progress"]), row["trial"]) for row in read_rows(path)}
    for progress in POWER_PROGRESS:
        world = World(POWER_DIM, progress, decay=decay)
        truths = {
            FRECHET: world.frechet(world.tuned) - world.frechet(world.base),
            KERNEL: world.kernel(world.tuned) - world.kernel(world.base),
        }
        for trial in range(trials):
            rng = np.random.default_rng([trial, 2])
            base, tuned = world.sample_generators(rng, Design())
            recordings = world.sample_recordings(rng, Design())
            for metric, truth in truths.items():
                if (metric.name, progress, str(trial)) in done:
                    continue
                found = compare_paired(
                    metric, base, tuned, recordings, n_permutations=n_permutations, seed=trial
                )
                row = (metric.name, progress, trial, truth, found.delta, found.p_value, found.verdict)
                append_rows(path, POWER_COLUMNS, [row])


def run_real(
    generated: Path, reference: Path, metric: Metric, trials: int, n_permutations: int
) -> list[Comparison]:
    """Comparisons of a generator with itself: its clips, divided at random and paired at random."""
    clips, recordings = load_embeddings(generated), load_embeddings(reference)
    half = len(clips.clip_names) // 2
    names = tuple(f"{place:03d}" for place in range(half))
    found: list[Comparison] = []
    for trial in range(trials):
        order = [int(place) for place in np.random.default_rng([trial, 3]).permutation(2 * half)]
        one, other = (take_clips(clips, order[part]) for part in (slice(0, half), slice(half, 2 * half)))
        renamed = [
            type(item)(item.values, item.clip_index, names, names, item.provenance) for item in (one, other)
        ]
        found.append(compare_paired(metric, *renamed, recordings, n_permutations=n_permutations, seed=trial))
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


def summarize_power(rows: list[Row]) -> list[dict[str, object]]:
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["metric"], float(row["progress"])), []).append(row)
    table: list[dict[str, object]] = []
    for (metric, progress), members in sorted(groups.items()):
        rejected, error, n = share(float(row["p_value"]) <= ALPHA for row in members)
        told, told_error, _ = share(row["verdict"] != NO_DIFFERENCE for row in members)
        table.append(
            {
                "metric": metric,
                "progress": progress,
                "trials": n,
                "true_difference": float(members[0]["truth"]),
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


def draw_charts(coverage: list[dict[str, object]], power: list[dict[str, object]]) -> str:
    def number(row: dict[str, object], name: str) -> float:
        value = row[name]
        assert isinstance(value, int | float)
        return float(value)

    dims = sorted({number(row, "dim") for row in coverage})
    charts: list[Chart] = []
    for design in DESIGNS:
        series = {
            label: [
                (number(row, "dim"), number(row, "coverage"), number(row, "coverage_se"))
                for row in coverage
                if row["quantity"] == quantity and row["design"] == design
            ]
            for quantity, label in QUANTITIES.items()
        }
        title, ticks = f"Coverage, {design}", {dim: f"{dim:.0f}" for dim in dims}
        charts.append(
            Chart(title, "dimensions", "truth in interval", series, ticks, (0.5, 1.0), (0.93, 0.97))
        )
    lines = {
        name: [
            (number(row, "progress"), number(row, "rejected"), number(row, "rejected_se"))
            for row in power
            if row["metric"] == metric.name
        ]
        for name, metric in (("FD", FRECHET), ("MMD (KAD)", KERNEL))
    }
    ticks = {progress: f"{progress:g}" for progress in POWER_PROGRESS if progress not in {0.02, 0.05}}
    title = f"p <= 0.05, D = {POWER_DIM}"
    charts.append(
        Chart(title, "way from base to recordings", "rejected", lines, ticks, (0.0, 1.0), (0.0, 0.05))
    )
    return render_charts(charts)


def write_table(rows: list[dict[str, object]], columns: dict[str, str]) -> list[str]:
    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows]


def write_report(out: Path, decay: float, real: list[str]) -> None:
    """`calibration.md`, `summary.csv` and `calibration.svg` from the rows on disk."""
    coverage = summarize_coverage(read_rows(out / "coverage.csv"))
    power = summarize_power(read_rows(out / "power.csv"))
    (out / "calibration.svg").write_text(draw_charts(coverage, power), encoding="utf-8")
    with (out / "summary.csv").open("w", encoding="utf-8", newline="") as stream:
        for table in (coverage, power):
            if table:
                writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
    design = Design()
    lines = [
        "# Calibration of intervals and tests",
        "",
        f"Simulated: {design.n_clips} generated clips of {design.n_windows} windows",
        f"({design.clip_share:.0%} of the variance common to a clip, half of that common to base and tuned);",
        f"recordings in tracks ({design.track_share:.0%} of the variance common to a track,",
        f"{design.track_clip_share:.0%} more to a clip); the k-th largest variance falls as k^-{decay:g}.",
        "Differences are between a base generator and one that went",
        f"{COVERAGE_PROGRESS:.0%} of the way to the recordings. Target for the 95 % intervals: 93 to 97 %.",
        "",
        "![coverage and power](calibration.svg)",
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
        "## Paired label-swap test",
        "",
        f"D = {POWER_DIM}, {next(iter(DESIGNS))}. `rejected` is p <= {ALPHA:g}; a verdict also needs",
        "the interval of the corrected difference on one side of zero. Progress 0 is an adapter without",
        "effect, its clips drawn anew: the rate there is that of false positives.",
        "",
        *write_table(
            power,
            {
                "metric": "metric",
                "progress": "progress",
                "trials": "trials",
                "true_difference": "true difference",
                "rejected": "rejected",
                "rejected_se": "+-",
                "verdicts": "verdicts",
                "verdicts_se": "+-",
                "wrong_way": "told worse",
            },
        ),
        *real,
        "",
    ]
    (out / "calibration.md").write_text("\n".join(lines), encoding="utf-8")


def describe_real(arguments: argparse.Namespace) -> list[str]:
    lines = ["", "## False positives on generated clips", ""]
    for name in arguments.metrics:
        found = run_real(
            arguments.generated,
            arguments.reference,
            parse_metric(name),
            arguments.trials,
            arguments.permutations,
        )
        rejected, error, n = share(item.p_value <= ALPHA for item in found)
        told, _, _ = share(item.verdict != NO_DIFFERENCE for item in found)
        lines.append(
            f"- `{name}`: {rejected:.3f} +- {error:.3f} of {n} random divisions of "
            f"{2 * found[0].n_pairs} clips have p <= {ALPHA:g}; {told:.3f} get a verdict other than "
            f"*{NO_DIFFERENCE}*."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 128, 200])
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--decay", type=float, default=0.7, help="how fast variances fall with their rank")
    parser.add_argument("--generated", type=Path, help="embeddings of one generator's clips (.npz)")
    parser.add_argument("--reference", type=Path, help="embeddings of the recordings (.npz)")
    parser.add_argument("--metrics", nargs="+", default=["mfcc20", "mmd/mfcc20"], help="for --generated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run_power(arguments.out / "power.csv", arguments.trials, arguments.permutations, arguments.decay)
    run_coverage(arguments.out / "coverage.csv", arguments.dims, arguments.trials, arguments.decay)
    real = describe_real(arguments) if arguments.generated and arguments.reference else []
    write_report(arguments.out, arguments.decay, real)
    print(arguments.out / "calibration.md")


if __name__ == "__main__":
    main()
