"""The choice of the best configuration on halves of the held-out tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.repeated_choice import repeat_choice, write_repeated_choice
from lora_bench.metrics import parse_metric
from lora_bench.metrics.clusters import Clusters, cluster_embeddings
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.results.gather import gather_results
from lora_bench.slugs import prompt_slugs
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.embed import save_embeddings
from lora_bench.store import read_json, write_json

DIM, CLIPS_A_TRACK = 3, 4


def make_embeddings(values: np.ndarray, groups: list[str]) -> Embeddings:
    names = tuple(f"{group}-{index}" for index, group in enumerate(groups))
    return Embeddings(
        np.asarray(values, dtype=np.float32), np.arange(len(groups)), names, tuple(groups), {"encoder": "e"}
    )


def make_clips(shift: float, seed: int = 0, n: int = 20) -> Embeddings:
    values = np.random.default_rng(seed).normal(shift, 1.0, (n, DIM))
    return make_embeddings(values, [str(index) for index in range(n)])


def make_reference(n_tracks: int, spread: float = 0.0) -> Embeddings:
    """Tracks around zero, whose means differ by `spread`."""
    rng = np.random.default_rng(9)
    means = np.repeat(rng.normal(0.0, spread, (n_tracks, DIM)), CLIPS_A_TRACK, axis=0)
    groups = [f"t{index // CLIPS_A_TRACK}" for index in range(n_tracks * CLIPS_A_TRACK)]
    return make_embeddings(means + rng.normal(0.0, 1.0, means.shape), groups)


def as_clusters(*sets: Embeddings) -> list[Clusters]:
    return [cluster_embeddings(one, "generated") for one in sets]


@pytest.mark.parametrize("metric", ["mfcc20", "mmd/mfcc20"])
def test_a_clearly_better_configuration_is_chosen_on_every_half(metric: str) -> None:
    sets = {"near": as_clusters(make_clips(0.1)), "far": as_clusters(make_clips(4.0))}
    found = repeat_choice(parse_metric(metric), sets, as_clusters(make_clips(8.0)), make_reference(10))
    assert found is not None
    assert [(share.configuration, share.n_chosen) for share in found.configurations] == [("near", 20)]
    assert (found.n_repeats, found.n_tracks) == (20, 10)
    assert found.zero_shot is not None
    assert found.sealed < found.zero_shot


def test_a_choice_among_equals_depends_on_the_half_and_looks_better_than_it_is() -> None:
    sets = {str(seed): as_clusters(make_clips(0.0, seed)) for seed in range(12)}
    found = repeat_choice(parse_metric("mfcc20"), sets, [], make_reference(6, spread=2.0))
    assert found is not None
    assert len(found.configurations) > 1
    assert sum(share.n_chosen for share in found.configurations) == 20
    assert found.seen < found.sealed
    assert found.sealed_sd > 0.0
    assert found.zero_shot is None


def test_configurations_count_by_their_mean_over_seeds_and_halves_by_their_seed() -> None:
    sets = {"one": as_clusters(make_clips(0.0), make_clips(9.0)), "two": as_clusters(make_clips(2.0))}
    metric, reference = parse_metric("mfcc20"), make_reference(8, spread=1.0)
    found = repeat_choice(metric, sets, [], reference)
    assert found is not None
    assert found.configurations[0].configuration == "two"
    assert repeat_choice(metric, sets, [], reference) == found
    assert repeat_choice(metric, sets, [], reference, seed=1) != found


def test_three_tracks_have_no_halves() -> None:
    assert repeat_choice(parse_metric("mfcc20"), {}, [], make_reference(3)) is None


def write_run(folder: Path, **split: Any) -> ExperimentPlan:
    """A finished run of two configurations with embeddings, and no audio."""
    spec = {
        "schema": 1,
        "name": "t",
        "dataset": {"builtin": "chiptune", "split": split},
        "prompts": ["a", "b"],
        "metrics": ["clap_score", "mfcc20"],
        "trials": {"variants": [{"name": "near", "lora.rank": 1}, {"name": "far", "lora.rank": 2}]},
    }
    plan = plan_experiment(ExperimentSpec.model_validate(spec))
    run = RunFolder(folder)
    write_json(run.plan, plan)
    save_embeddings(make_reference(8), run.reference_embeddings / "r.npz")
    for trial in plan.trials:
        files = run.trial(trial.id)
        write_json(files.state, {"state": "done"})
        write_json(files.scores, {"scores": []})
        write_json(files.guards, {})
        place = files.embeddings("mfcc20")
        write_json(place.reference, {"file": "r.npz"})
        for slug in prompt_slugs(trial.prompts).values():
            save_embeddings(make_clips({"near": 0.0, "far": 5.0}.get(trial.name, 9.0)), place.prompt(slug))
    return plan


def test_a_run_tells_how_often_each_configuration_is_chosen_on_its_first_distance(tmp_path: Path) -> None:
    plan = write_run(tmp_path)
    write_repeated_choice(plan, tmp_path)
    found = gather_results(tmp_path).repeated_choice
    assert found is not None
    assert (found.metric, found.configurations[0].configuration) == ("mfcc20", "near")
    place = RunFolder(tmp_path).choice
    before = place.stat().st_mtime_ns, read_json(place)
    write_repeated_choice(plan, tmp_path)
    assert (place.stat().st_mtime_ns, read_json(place)) == before


def test_a_run_with_tracks_to_select_by_repeats_no_choice(tmp_path: Path) -> None:
    write_repeated_choice(write_run(tmp_path, selection_frac=0.2), tmp_path)
    assert gather_results(tmp_path).repeated_choice is None
