"""Forecast of the smallest differences that verdicts find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lora_bench.cli.main import main
from lora_bench.errors import UsageError
from lora_bench.forecast.detectable import Design
from lora_bench.forecast.power import PowerForecast, forecast_power
from lora_bench.metrics.contrast import Difference
from lora_bench.metrics.jackknife import Jackknife
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.reading import write_record
from lora_bench.results.records import Contrast, ErrorParts, ScoreRecord, SeedDifference
from lora_bench.results.run_records import Planned, RunResults, TrialResult
from lora_bench.spec.experiment import ExperimentSpec

VARIANCES = {"clips": 4.0, "tracks": 1.0, "seeds": 0.03}
EARLIER = Design(clips=30, tracks=12, seeds=3)


def draw(rng: np.random.Generator, design: Design, effect: float = 0.0) -> Difference:
    """A difference of a world where clips, tracks and seeds add up."""
    numbers = {"clips": design.clips, "tracks": design.tracks, "seeds": design.seeds}
    drawn = {cause: rng.normal(0.0, VARIANCES[cause] ** 0.5, n) for cause, n in numbers.items() if n > 1}
    errors = {
        cause: Jackknife(0.0, float(values.var(ddof=1)) / len(values), len(values) - 1)
        for cause, values in drawn.items()
    }
    delta = effect + sum(float(values.mean()) for values in drawn.values())
    by_seed = tuple(float(value) for value in drawn.get("seeds", np.zeros(1)))
    return Difference(delta, delta, by_seed, errors, {})  # pyright: ignore[reportArgumentType]


@cache
def make_earlier(n: int = 400, design: Design = EARLIER) -> RunResults:
    """An earlier run with many configurations, so that its variances are known well."""
    rng = np.random.default_rng(0)
    contrasts: list[Contrast] = []
    for _ in range(n):
        found = draw(rng, design)
        contrasts.append(
            Contrast(
                metric="mfcc20",
                configuration="plain",
                delta=found.delta,
                se=found.se,
                df=found.freedom,
                variance=ErrorParts(**{cause: part.variance for cause, part in found.errors.items()}),
                n_pairs=design.clips,
                n_tracks=design.tracks,
                seeds=tuple(SeedDifference(trial=f"plain-s{n}", delta=0.0) for n in range(design.seeds)),
            )
        )
    zero_shot = TrialResult(
        id="z", name="zero-shot", configuration="zero-shot", kind="zero-shot",
        scores=(ScoreRecord(metric="mfcc20", value=5.0),),
    )  # fmt: skip
    return RunResults(
        schema=1,
        name="earlier",
        trials=(zero_shot,),
        planned=Planned(prompts=("march",)),
        contrasts=tuple(contrasts),
    )


def make_plan(design: Design, prompts: Sequence[str] = ("march",), metric: str = "mfcc20") -> ExperimentPlan:
    return plan_experiment(
        ExperimentSpec.model_validate(
            {
                "schema": 1,
                "name": "next",
                "dataset": {"builtin": "chiptune"},
                "prompts": list(prompts),
                "generation": {"n_clips": design.clips},
                "metrics": [metric],
                "repeats": {"train_seeds": list(range(design.seeds))},
                "trials": {"variants": [{"name": "plain", "lora": {"rank": 4}}]},
            }
        )
    )


def forecast(design: Design, detect: str | None = None) -> PowerForecast:
    return forecast_power(make_plan(design), make_earlier(), detect)


@pytest.mark.parametrize("design", [Design(60, 12, 3), Design(15, 12, 5), Design(40, 12, 1)])
def test_the_forecast_difference_is_found_in_four_of_five_simulated_runs(design: Design) -> None:
    expected = forecast(design).detectable
    rng = np.random.default_rng(1)
    runs = [draw(rng, design, expected).interval() for _ in range(800)]
    found = np.mean([run.low > 0.0 or run.high < 0.0 for run in runs])
    assert found == pytest.approx(0.8, abs=0.05)


def test_more_clips_help_until_the_tracks_part_is_left() -> None:
    need = forecast(Design(40, 12, 3), "1.1").need
    assert need is not None
    clips = need.alone["clips"]
    assert clips is not None
    at, below = forecast(Design(clips, 12, 3)), forecast(Design(clips - 1, 12, 3))
    assert at.detectable <= 1.1 < below.detectable
    short = forecast(Design(40, 12, 3), "0.5")
    assert short.need is not None
    assert short.need.alone["clips"] is None
    assert short.need.limits["clips"] > 0.5
    assert any("clips alone cannot" in line and "the tracks" in line for line in short.describe())
    cheapest = short.need.cheapest
    assert cheapest is not None
    assert cheapest.tracks > 12
    assert forecast(replace(cheapest, tracks=12)).detectable > 0.5


def test_no_limit_is_named_that_the_planned_design_is_below() -> None:
    """With two tracks alone, an interval has one degree of freedom; that of a few noisy clips is narrower."""
    design = Design(clips=6, tracks=2, seeds=1)
    found = forecast_power(make_plan(design), make_earlier(40, design), "0.5")
    assert found.need is not None
    assert found.need.limits["clips"] > found.detectable
    said = "  clips alone cannot: more of them lower nothing next to so few reference tracks"
    assert said in found.describe()


def test_the_cheapest_design_keeps_the_tracks_where_they_suffice() -> None:
    need = forecast(Design(40, 12, 3), "1.1").need
    assert need is not None
    assert need.cheapest is not None
    assert need.cheapest.tracks == 12
    assert need.cheapest.clips * need.cheapest.seeds <= (need.alone["clips"] or 0) * 3


def test_a_single_seed_has_no_part_and_speaks_of_this_adapter() -> None:
    found = forecast(Design(40, 12, 1))
    assert set(found.shares) == {"clips", "tracks"}
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert "one training seed: the figures are about this adapter" in found.notes


def test_a_larger_family_needs_larger_differences() -> None:
    plan = make_plan(Design(40, 12, 3))
    variants = [{"name": f"r{rank}", "lora": {"rank": rank}} for rank in (2, 4, 8)]
    spec = ExperimentSpec.model_validate(
        {
            **plan.spec.model_dump(by_alias=True, mode="json", exclude_unset=True),
            "trials": {"variants": variants},
        }
    )
    wide = forecast_power(plan_experiment(spec), make_earlier())
    assert wide.alpha == pytest.approx(0.05 / 3)
    assert wide.detectable > forecast(Design(40, 12, 3)).detectable


def test_a_share_of_the_zero_shot_score_is_a_difference() -> None:
    need = forecast(Design(40, 12, 3), "20%").need
    assert need is not None
    assert need.difference == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["0", "much", "-", "nan", "inf", "%"])
def test_a_difference_that_is_no_number_above_zero_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected a difference above 0"):
        forecast(Design(40, 12, 3), text)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_rating_has_no_part_of_the_tracks(n_seeds: int) -> None:
    earlier = make_earlier()
    rated = {"metric": "tag-adherence", "n_tracks": None}
    contrasts = tuple(
        item.model_copy(update={**rated, "variance": item.variance.model_copy(update={"tracks": None})})
        for item in earlier.contrasts
    )
    earlier = earlier.model_copy(update={"contrasts": contrasts})
    plan = make_plan(Design(40, 12, n_seeds), ["a march for piano", "a march"], "tag-adherence")
    found = forecast_power(plan, earlier, "0.1")
    assert found.n_prompts == 1  # of which the tagger knows a word
    assert found.detectable > 0.0
    assert set(found.shares) == {"clips", *(["seeds"] if n_seeds > 1 else [])}
    assert "track" not in "\n".join(found.describe())
    assert "however many" in "\n".join(forecast_power(plan, earlier, "1e-9").describe())
    with pytest.raises(UsageError, match="--power: tag-adherence: the prompt names none of the tagger's"):
        forecast_power(make_plan(Design(40, 12, 1), ["a march"], "tag-adherence"), earlier)


def test_an_earlier_run_without_the_primary_metric_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"earlier has no difference from zero-shot on `mfcc20`"):
        forecast_power(make_plan(EARLIER), make_earlier().model_copy(update={"contrasts": ()}))


def test_plan_prints_the_power_and_writes_it_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, earlier = tmp_path / "next.yaml", tmp_path / "earlier"
    spec.write_text(
        "schema: 1\ndataset: {builtin: chiptune}\nprompts: [march]\nmetrics: [mfcc20]\n"
        "trials: {variants: [{name: plain}]}\n"
    )
    write_record(earlier / "results.json", make_earlier(3))
    words = [
        "plan",
        str(spec),
        "--runs-dir",
        str(tmp_path / "runs"),
        "--power",
        str(earlier),
        "--detect",
        "20%",
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "power on `mfcc20`: by the variances of earlier, a difference of" in shown
    assert "to detect 1 with the same probability:" in shown
    assert main([*words, "--json"]) == 0
    power = json.loads(capsys.readouterr().out)["power"]
    assert power["metric"] == "mfcc20"
    assert set(power["need"]["alone"]) == {"clips", "tracks"}


def test_the_power_of_a_spec_that_tunes_is_that_of_its_second_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier"
    told: list[object] = []
    write_record(earlier / "results.json", make_earlier(3))
    for name, tune in (
        ("plain", "defaults: {train: {lr: 0.001}}"),
        ("tuned", "tune: {train.lr: [0.001, 0.01]}"),
    ):
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(
            "schema: 1\ndataset: {builtin: chiptune}\nprompts: [march]\nmetrics: [mfcc20]\n"
            f"trials: {{variants: [{{name: plain}}]}}\nrepeats: {{train_seeds: [0, 1, 2]}}\n{tune}\n"
        )
        words = ["plan", str(spec), "--runs-dir", str(tmp_path / "runs"), "--power", str(earlier), "--json"]
        assert main(words) == 0
        told.append(json.loads(capsys.readouterr().out)["power"])
    assert told[0] == told[1]


def test_detect_without_power_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "quickstart", "--detect", "1"]) == 2
    assert "add `--power RUN`" in capsys.readouterr().err
