"""Contrasts of another system with the model: independent sets of clips, never pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.embedded_trials import make_group, write_trial

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.across_runs import TrialFiles, compare_pair
from lora_bench.comparison.contrasts import Group, Trained, contrast_groups
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric, parse_metric
from lora_bench.results.records import Contrast
from lora_bench.results.run_files import TrialSettings

KERNEL, TEXT = parse_metric("mmd/mfcc20"), parse_metric("clap_score")
DIM = 4


def wrap(values: np.ndarray, **about: str) -> Embeddings:
    names = tuple(f"{clip:03d}" for clip in range(len(values)))
    return Embeddings(
        values.astype(np.float32), np.arange(len(values)), names, names, {"encoder": "mfcc20", **about}
    )


def draw(n_clips: int, centre: float, seed: int) -> Embeddings:
    return wrap(centre + np.random.default_rng(seed).normal(size=(n_clips, DIM)))


REFERENCE = draw(30, 0.0, 99)
TEXT_VECTOR = wrap(np.ones((1, DIM)))


def write(
    run: Path, name: str, clips: Embeddings, encoder: str = "mfcc20", *, is_external: bool = False
) -> EmbeddedTrial:
    made = write_trial(run, name, {"p": clips}, REFERENCE, TEXT_VECTOR, encoder=encoder)
    return replace(made, is_external=is_external)


def group(external: EmbeddedTrial, *bases: EmbeddedTrial) -> Group:
    trainings = tuple(Trained(external, base, seed) for seed, base in enumerate(bases))
    return Group("other", "zero-shot", "source", trainings, {}, is_paired=False)


def compare(groups: list[Group], metric: Metric) -> list[Contrast]:
    return contrast_groups(groups, [metric], {None: ("p",)}, (metric.name, frozenset({None})))


def cosines(clips: Embeddings) -> np.ndarray:
    values = np.asarray(clips.values, dtype=np.float64)
    return values.sum(axis=1) / np.linalg.norm(values, axis=1) / np.sqrt(DIM)


def test_the_text_score_is_compared_as_by_welch_s_test_of_two_independent_samples(tmp_path: Path) -> None:
    other, base = draw(9, 1.5, 1), draw(14, 1.0, 2)
    sides = write(tmp_path, "e", other, "clap", is_external=True), write(tmp_path, "b", base, "clap")
    [found] = compare([group(*sides)], TEXT)
    expected: Any = stats.ttest_ind(cosines(other), cosines(base), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.delta == pytest.approx(cosines(other).mean() - cosines(base).mean(), rel=1e-6)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-4)
    assert found.df == pytest.approx(expected.df, rel=1e-4)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.1)  # the family's is simulated


def test_the_record_says_that_clips_are_no_pairs_and_how_many_either_side_has(tmp_path: Path) -> None:
    sides = write(tmp_path, "e", draw(9, 1.5, 1), is_external=True), write(tmp_path, "b", draw(14, 1.0, 2))
    [found] = compare([group(*sides)], KERNEL)
    assert found.paired is False
    assert (found.n_pairs, found.n_clips) == (None, (9, 14))
    assert "without pairs" in str(found.provenance["estimator"])
    assert "partner" not in str(found.note)  # no clip was left out for want of one


def test_a_paired_record_has_no_new_field(tmp_path: Path) -> None:
    base = write(tmp_path, "b", draw(9, 1.0, 2))
    [found] = compare([make_group("r16", [write(tmp_path, "t", draw(9, 0.8, 3))], base)], KERNEL)
    assert {"paired", "n_clips"}.isdisjoint(found.model_dump(exclude_unset=True))
    assert found.n_pairs == 9


def test_a_system_whose_clips_equal_the_model_s_has_a_wide_interval_where_a_pair_has_none(
    tmp_path: Path,
) -> None:
    base = draw(20, 1.0, 2)
    sides = write(tmp_path, "e", base, is_external=True), write(tmp_path, "b", base)
    [unpaired] = compare([group(*sides)], KERNEL)
    [paired] = compare([make_group("r16", [sides[0]], sides[1])], KERNEL)
    assert unpaired.delta == paired.delta == pytest.approx(0.0, abs=1e-12)
    assert paired.se == pytest.approx(0.0, abs=1e-12)
    assert unpaired.se is not None
    assert unpaired.se > 0.0


def test_systems_and_trainings_share_a_family_and_the_base_model_s_clips(tmp_path: Path) -> None:
    base = write(tmp_path, "b", draw(16, 1.0, 2))
    tuned = make_group("r16", [write(tmp_path, "t", draw(16, 0.8, 3))], base)
    others = [
        replace(group(write(tmp_path, name, draw(16, 1.1, seed), is_external=True), base), configuration=name)
        for name, seed in (("one", 4), ("two", 5))
    ]
    found = compare([tuned, *others], KERNEL)
    assert [item.paired for item in found] == [True, False, False]
    assert [item.provenance["family_size"] for item in found] == [3, 3, 3]
    alpha = found[0].provenance["family_alpha"]
    assert isinstance(alpha, float)
    assert 0.05 / 3 < alpha < 0.05  # shared clips and tracks: less strict than Bonferroni


def test_a_system_is_compared_with_all_trainings_of_a_baseline(tmp_path: Path) -> None:
    external = write(tmp_path, "e", draw(16, 1.2, 1), is_external=True)
    bases = [write(tmp_path, f"b{seed}", draw(16, 1.0, seed)) for seed in (2, 3, 4)]
    [found] = compare([group(external, *bases)], KERNEL)
    singles = [compare([group(external, base)], KERNEL)[0].delta for base in bases]
    assert found.delta == pytest.approx(np.mean(singles))
    assert found.variance.seeds == pytest.approx(np.var(singles, ddof=1) / 3)


def test_a_codec_matched_metric_compares_a_system_s_clips_after_the_codec(tmp_path: Path) -> None:
    metric = parse_metric("mmd/mfcc20@codec")
    base, external = (
        write(tmp_path, "b", draw(9, 1.0, 2)),
        write(tmp_path, "e", draw(9, 9.0, 1), is_external=True),
    )
    for trial in (base, external):
        trial.folder.embeddings("mfcc20").coded_reference.write_bytes(
            trial.folder.embeddings("mfcc20").reference.read_bytes()
        )
    told: list[UnscoredError] = []
    rows: dict[str | None, tuple[str, ...]] = {None: ("p",)}
    options = ([metric], rows, (metric.name, frozenset[str | None]({None})))
    assert contrast_groups([group(external, base)], *options, told=lambda *facts: told.append(facts[3])) == []
    assert "mfcc20@codec" in str(told[0])  # never the clips before the codec
    write_trial(tmp_path, "e", {"p": draw(9, 1.0, 2)}, REFERENCE, encoder="mfcc20@codec")
    [found] = contrast_groups([group(external, base)], *options)
    assert found.delta == pytest.approx(0.0, abs=1e-9)  # the same clips as the base's, after the codec


def test_trials_of_two_runs_are_compared_without_pairs_if_one_is_another_system_s(tmp_path: Path) -> None:
    base, external = (
        write(tmp_path, "b", draw(9, 1.0, 2)),
        write(tmp_path, "e", draw(7, 1.0, 1), is_external=True),
    )
    generation = {"seed": 0, "clip_s": 2.0}
    sides = [
        TrialFiles(
            trial.folder,
            TrialSettings(
                id=trial.id, prompts=("p",), generation={**generation, "seed": seed}, external=external
            ),
        )
        for seed, (trial, external) in enumerate(((base, None), (external, {"clips": "/x"})))
    ]
    found, reasons = compare_pair(sides[0], sides[1], ["mmd/mfcc20"], "mmd/mfcc20")
    assert reasons == []
    assert found["mmd/mfcc20", None].paired is False
    assert found["mmd/mfcc20", None].n_clips == (7, 9)
