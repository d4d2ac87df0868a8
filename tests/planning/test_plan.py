"""From a spec to trials: names, order, seeds, identities."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lora_bench.errors import SpecError, StoreError
from lora_bench.planning.plan import plan_experiment, plan_file
from lora_bench.planning.trial_plan import ExperimentPlan, TrialPlan, name_report, read_plan
from lora_bench.spec import ExperimentSpec, load_spec
from lora_bench.store import to_jsonable, write_json

BASE: dict[str, Any] = {"schema": 1, "name": "t", "dataset": {"builtin": "chiptune"}, "prompts": ["a"]}


def plan(**sections: Any) -> ExperimentPlan:
    """The plan of the base with sections replaced."""
    return plan_experiment(ExperimentSpec.model_validate(BASE | sections))


def names(found: ExperimentPlan) -> list[str]:
    """Names of all trials."""
    return [trial.name for trial in found.trials]


def variants(*changes: dict[str, Any]) -> dict[str, Any]:
    """A `trials` section."""
    return {"variants": list(changes)}


def test_zero_shot_comes_first_and_has_no_adapter() -> None:
    first, second = plan(trials=variants({"name": "a"})).trials
    assert (first.name, first.kind, first.lora, first.train, first.train_seed) == (
        "zero-shot", "zero-shot", None, None, None,
    )  # fmt: skip
    assert (second.name, second.kind, second.train_seed) == ("a", "fine-tuned", 0)


def test_a_run_with_overrides_has_a_report_of_its_own() -> None:
    assert name_report("t", ()) == name_report("t", ["name=t"]) == "t"
    few = name_report("t", ["generation.n_clips=4"])
    assert few.startswith("t-generation-n-clips-4-")
    assert few == name_report("t", [" generation.n_clips = 4", "name=t"])
    assert few != name_report("t", ["generation.n_clips=5"])
    both = ["lora.targets=a+b", "lora.rank=2"]
    assert name_report("t", both) == name_report("t", both[::-1])
    assert name_report("t", both) != name_report("t", ["lora.targets=a-b", "lora.rank=2"])


@pytest.mark.parametrize(
    ("n_clips", "metric", "said"),
    [
        (2, "mfcc20", None),
        (
            2,
            "mmd/mfcc20",
            "2 clips per prompt allow no verdict on `mmd/mfcc20`: an interval needs at least 3",
        ),
        (3, "mmd/mfcc20", None),
    ],
)
def test_a_plan_says_when_no_verdict_can_be_reached(n_clips: int, metric: str, said: str | None) -> None:
    found = plan(generation={"n_clips": n_clips}, metrics=["encodec", metric], verdict={"metric": metric})
    assert list(found.notes) == ([said] if said else [])


def test_a_plan_says_which_ratings_no_clip_can_have() -> None:
    metrics = ["mfcc20", "melody-agreement", "tag-adherence"]
    found = plan(metrics=metrics, prompts=["a waltz"]).notes
    assert found == (
        "`tag-adherence` will be unscored: no prompt names a tag of the tagger",
        "`melody-agreement` will be unscored: generation.melodies is not set",
    )
    variants = [{"name": "x", "generation.melodies": "/tunes"}, {"name": "y"}]
    found = plan(metrics=metrics, prompts=["a waltz", "a harp"], trials={"variants": variants}).notes
    assert found == ("`melody-agreement` will be unscored for y: generation.melodies is not set",)
    melodies = {"melodies": "/tunes"}
    assert plan(metrics=metrics, prompts=["a harp"], generation=melodies).notes == ()


def test_the_primary_metric_is_the_first_unless_stated_and_must_be_measured() -> None:
    assert plan(metrics=["encodec", "mfcc20"]).spec.primary_metric == "encodec"
    assert plan(metrics=["encodec", "mfcc20"], verdict={"metric": "mfcc20"}).spec.primary_metric == "mfcc20"
    with pytest.raises(
        ValidationError, match=r"verdict\.metric is `vggish`; expected one of `metrics`: `encodec`"
    ):
        plan(metrics=["encodec"], verdict={"metric": "vggish"})


def test_prompts_of_sets_that_are_named_off_genre_are_not_the_genres_own() -> None:
    found = plan(
        prompts=["a", "b"], prompt_sets={"off_genre": ["b"], "Out-of-genre": ["c"], "own": ["d"]}
    ).trials[0]
    assert (found.off_genre, found.own_prompts) == (("b",), ("a",))
    assert plan(prompts=["a"], prompt_sets={"off_genre": ["a"]}).trials[0].own_prompts == ("a",)


def test_without_trials_the_defaults_are_one_trial() -> None:
    assert names(plan(defaults={"lora": {"rank": 8, "targets": "attention+ffn"}})) == [
        "zero-shot",
        "r8-attention+ffn",
    ]


def test_variants_change_only_what_they_state() -> None:
    found = plan(
        defaults={"lora": {"rank": 8, "dropout": 0.1}, "train": {"steps": 7}},
        trials=variants({"name": "a", "lora": {"rank": 4}}, {"name": "b", "train.lr": 0.5}),
    )
    a, b = found.trials[1:]
    assert a.lora is not None
    assert b.lora is not None
    assert b.train is not None
    assert (a.lora.rank, a.lora.dropout, b.lora.rank, b.train.steps, b.train.lr) == (4, 0.1, 8, 7, 0.5)
    assert (a.changes, b.changes) == ({"lora.rank": 4}, {"train.lr": 0.5})


def test_alpha_is_filled_in() -> None:
    (_, trial) = plan(defaults={"lora": {"rank": 8}}).trials
    assert trial.lora is not None
    assert trial.lora.alpha == 16.0


def test_grid_is_the_product_with_links_and_exclusions() -> None:
    grid = {
        "name": "r{lora.rank}-{lora.targets}",
        "axes": {"lora.rank": [4, 8], "lora.targets": ["attention", "ffn"]},
        "zip": {"lora.alpha": [40, 80], "with": "lora.rank"},
        "exclude": [{"lora.rank": 8, "lora.targets": "ffn"}],
    }
    found = plan(trials={"grid": grid})
    assert names(found) == ["zero-shot", "r4-attention", "r4-ffn", "r8-attention"]
    assert [trial.lora.alpha for trial in found.trials if trial.lora] == [40.0, 40.0, 80.0]


def test_several_links_and_dotted_sections_work() -> None:
    grid = {
        "axes": {"lora.rank": [4, 8], "train.lr": [1e-3, 1e-4]},
        "zip": [
            {"lora.alpha": [4, 8], "lora.dropout": [0.0, 0.5], "with": "lora.rank"},
            {"train.steps": [10, 20], "with": "train.lr"},
        ],
    }
    found = plan(trials={"grid": grid})
    values = [
        (t.lora.rank, t.lora.alpha, t.lora.dropout, t.train.steps) for t in found.trials if t.lora and t.train
    ]
    assert values == [(4, 4, 0.0, 10), (4, 4, 0.0, 20), (8, 8, 0.5, 10), (8, 8, 0.5, 20)]


def test_names_without_a_template_put_the_axes_together() -> None:
    axes = {"lora.rank": [4], "lora.targets": [["q_proj", "v_proj"], "re:.*fc1"], "lora.use_dora": [True]}
    assert names(plan(trials={"grid": {"axes": axes}}))[1:] == [
        "r4-q_proj+v_proj-use_doratrue",
        "r4-re-.-fc1-use_doratrue",
    ]


def test_several_training_seeds_are_told_by_the_name() -> None:
    found = plan(trials=variants({"name": "a"}), repeats={"train_seeds": [3, 1]})
    assert names(found) == ["zero-shot", "a-s3", "a-s1"]
    assert [trial.configuration for trial in found.trials] == ["zero-shot", "a", "a"]
    assert [trial.train_seed for trial in found.trials] == [None, 3, 1]
    assert names(plan(trials=variants({"name": "a"}), repeats={"train_seeds": [3]})) == ["zero-shot", "a"]


def test_ablations_are_one_change_from_the_baseline() -> None:
    found = plan(
        trials=variants({"name": "a", "lora.rank": 4}, {"name": "b"}),
        baseline="a",
        ablations={"no-dropout": {"train": {"caption_dropout": 0.0}}, "wide": {"lora.targets": "all"}},
    )
    assert names(found) == ["zero-shot", "a", "b", "no-dropout", "wide"]
    assert found.baseline == "a"
    no_dropout, wide = found.trials[3:]
    assert no_dropout.lora is not None
    assert no_dropout.train is not None
    assert wide.lora is not None
    assert (no_dropout.lora.rank, no_dropout.train.caption_dropout) == (4, 0.0)
    assert (wide.lora.rank, wide.lora.targets) == (4, "all")


def test_a_baseline_may_come_from_the_grid() -> None:
    grid = {"axes": {"lora.rank": [4, 8]}}
    found = plan(trials={"grid": grid}, baseline="r8", ablations={"x": {"train.steps": 5}})
    assert found.trials[-1].changes == {"lora.rank": 8, "train.steps": 5}


def test_equal_trials_are_one_trial_with_all_its_names() -> None:
    found = plan(
        trials=variants(
            {"name": "a", "lora": {"rank": 16}},
            {"name": "b", "lora": {"rank": 16, "alpha": 32}},
            {"name": "c", "lora": {"targets": "cross_attention+self_attention"}},
            {"name": "d", "lora": {"rank": 4}},
        ),
        baseline="b",
    )
    assert names(found) == ["zero-shot", "a", "d"]
    assert found.trials[1].aliases == ("b", "c")
    assert found.baseline == "a"


@pytest.mark.parametrize(
    ("changes", "n_clips", "words"),
    [
        ({"generation.batch_size": 2}, 50, "`generation.batch_size`"),
        ({"generation.n_clips": 60}, 60, "`generation.n_clips`"),
        ({"generation.n_clips": 40}, 50, "`generation.n_clips`"),
        ({"train": {"checkpoint_every": 7}}, 50, "`train.checkpoint_every`"),
        (
            {"generation": {"n_clips": 60, "batch_size": 2}},
            60,
            "`generation.n_clips` and `generation.batch_size`",
        ),
    ],
    ids=str,
)
def test_trials_that_train_the_same_and_make_the_same_clips_are_one(
    changes: dict[str, Any], n_clips: int, words: str
) -> None:
    found = plan(
        trials=variants({"name": "a"}, {"name": "b", **changes}, {"name": "c", "lora.rank": 4}),
        generation={"n_clips": 50},
        repeats={"train_seeds": [0, 1]},
    )
    assert names(found) == ["zero-shot", "a-s0", "a-s1", "c-s0", "c-s1"]
    zero_shot, first, _, other, _ = found.trials
    assert (first.aliases, first.generation.n_clips, zero_shot.generation.n_clips) == (
        ("b",),
        n_clips,
        n_clips,
    )
    assert other.generation.n_clips == 50
    assert first.id == plan(trials=ONE, repeats={"train_seeds": [0, 1]}).trials[1].id
    (note,) = found.notes
    assert note.startswith("`a`, `b` are one trial")
    assert f"they differ only in {words}, which changes neither adapter nor clips" in note


def test_a_grid_over_the_number_of_clips_trains_each_adapter_once() -> None:
    axes = {"lora.rank": [4, 8], "generation.n_clips": [10, 30, 20], "generation.batch_size": [1, 4]}
    found = plan(trials={"grid": {"axes": axes}})
    assert [(t.lora and t.lora.rank, t.generation.n_clips) for t in found.trials] == [
        (None, 30),
        (4, 30),
        (8, 30),
    ]
    assert [len(trial.aliases) for trial in found.trials] == [0, 5, 5]


def test_other_sampling_is_another_trial_with_a_zero_shot_of_its_own() -> None:
    found = plan(
        trials=variants({"name": "a"}, {"name": "b", "generation": {"guidance": 1, "batch_size": 2}})
    )
    bases = {trial.id: trial.generation.guidance for trial in found.trials if trial.kind == "zero-shot"}
    assert [bases[trial.zero_shot] for trial in found.trials if trial.zero_shot] == [3.0, 1.0]


@pytest.mark.parametrize(
    "change",
    [{"generation.n_clips": 3}, {"generation.batch_size": 3}, {"train.checkpoint_every": 3}],
    ids=str,
)
def test_an_ablation_without_effect_is_refused(change: dict[str, Any]) -> None:
    (field,) = change
    with pytest.raises(
        SpecError, match=rf"ablation `x` has no effect: `{field}` changes neither the adapter"
    ):
        plan(trials=ONE, baseline="a", ablations={"x": change})


def test_a_name_for_two_settings_is_an_error_that_says_the_difference() -> None:
    with pytest.raises(
        SpecError, match=r"two trials are named `a` but differ in `lora\.rank`, `lora\.alpha`; choose"
    ):
        plan(trials=variants({"name": "a"}, {"name": "a", "lora.rank": 4}))


def test_models_datasets_and_sampling_have_zero_shots_of_their_own() -> None:
    found = plan(
        datasets={"own": {"path": "/music"}},
        trials=variants(
            {"name": "a"}, {"name": "b", "dataset": "own"}, {"name": "c", "generation": {"guidance": 1}}
        ),
    )
    assert names(found)[:3] == ["zero-shot-chiptune-3", "zero-shot-own-3", "zero-shot-chiptune-1"]
    assert [trial.kind for trial in found.trials] == ["zero-shot"] * 3 + ["fine-tuned"] * 3


def test_zero_shots_of_one_dataset_in_several_forms_have_names_of_their_own() -> None:
    found = plan(
        trials=variants(
            {"name": "a"},
            {"name": "b", "dataset.prepare.loudness_lufs": -16},
            {"name": "c", "dataset.clip_s": 5},
        )
    )
    assert names(found)[:3] == [
        "zero-shot-chiptune-none-clip_s10",
        "zero-shot-chiptune-loudness_lufs-16-clip_s10",
        "zero-shot-chiptune-none-clip_s5",
    ]
    assert all(trial.configuration == trial.name for trial in found.trials)
    assert {trial.id.rpartition("-")[0] for trial in found.trials[:3]} == {"zero-shot-chiptune"}


def test_trainings_with_other_captions_are_compared_with_the_baseline() -> None:
    """Captions change neither the references nor the noise, unless they also say which tracks stay together."""

    def pair(**split: str) -> list[str | None]:
        found = plan(
            dataset={"path": "/music", "split": split},
            trials=variants(
                {"name": "a", "dataset.captions": {"text": "one"}},
                {"name": "b", "dataset.captions": {"template": "{bpm}"}},
                {"name": "c", "dataset.captions": {"text": "one"}, "dataset.clip_s": 5},
            ),
            baseline="a",
        )
        by_id = {trial.id: trial.configuration for trial in found.trials}
        return [by_id.get(trial.baseline_trial or "") for trial in found.trials if trial.kind == "fine-tuned"]

    assert pair() == [None, "a", None]
    assert pair(by="folder") == [None, "a", None]
    assert pair(by="album") == [None, None, None]


def test_combinations_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(
        SpecError, match=r"with dataset\.captions\.source text: `dataset`: captions\.source is `text`"
    ):
        plan(trials={"grid": {"axes": {"dataset.captions.source": ["text"]}}})


def ids(**sections: Any) -> list[str]:
    """Hashes of all trials."""
    return [trial.hash8 for trial in plan(**sections).trials]


ONE = variants({"name": "a"})


@pytest.mark.parametrize(
    "sections",
    [
        {"prompts": ["a", "b"]},
        {"metrics": ["mfcc20"]},
        {"generation": {"n_clips": 3}},
        {"generation": {"batch_size": 3}},
        {"defaults": {"train": {"checkpoint_every": 7}}},
        {"defaults": {"lora": {"alpha": 32}}},
        {"resources": {"cpu": 2}},
        {"report": {"title": "x"}},
        {"name": "other"},
    ],
    ids=str,
)
def test_identity_does_not_depend_on(sections: dict[str, Any]) -> None:
    assert ids(trials=ONE, **sections) == ids(trials=ONE)


@pytest.mark.parametrize(
    ("sections", "n_changed"),
    [
        ({"model": {"id": "facebook/musicgen-small"}}, 2),
        ({"model": {"dtype": "float16"}}, 2),
        ({"dataset": {"builtin": "chiptune", "clip_s": 5}}, 2),
        ({"dataset": {"path": "/music"}}, 2),
        ({"generation": {"clip_s": 5}}, 2),
        ({"generation": {"guidance": 2}}, 2),
        ({"generation": {"seed": 2}}, 2),
        ({"generation": {"top_k": None}}, 2),
        ({"defaults": {"lora": {"rank": 4}}}, 1),
        ({"defaults": {"lora": {"targets": "ffn"}}}, 1),
        ({"defaults": {"train": {"lr": 0.1}}}, 1),
        ({"defaults": {"train": {"steps": 10}}}, 1),
        ({"repeats": {"train_seeds": [1]}}, 1),
    ],
    ids=str,
)
def test_identity_depends_on(sections: dict[str, Any], n_changed: int) -> None:
    before, after = ids(trials=ONE), ids(trials=ONE, **sections)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == n_changed


def test_identity_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Finished runs are found by these; a change needs a new ID_VERSION and a line in the changelog."""
    assert [trial.id for trial in plan(trials=ONE).trials] == ["zero-shot-49ae57dd", "a-82027999"]


def test_identity_of_a_name_that_no_folder_holds_is_a_slug() -> None:
    found = plan(trials=variants({"name": "R16-attention+FFN.x"}))
    assert found.trials[1].id.startswith("r16-attention-ffn-x-")


def test_plan_round_trips_through_json(tmp_path: Path) -> None:
    found = plan(
        datasets={"own": {"path": "/music"}},
        trials={
            "variants": [{"name": "a", "dataset": "own"}],
            "grid": {"axes": {"dataset.path": ["/x", "/y"]}},
        },
        repeats={"train_seeds": [0, 1]},
    )
    write_json(tmp_path / "plan.json", found)
    assert read_plan(tmp_path / "plan.json") == found
    for trial in found.trials:
        assert TrialPlan.model_validate_json(trial.model_dump_json()) == trial


def test_plan_of_the_resolved_spec_is_the_same_plan() -> None:
    found = plan(
        trials={"grid": {"axes": {"lora.rank": [4, 8]}, "zip": {"lora.alpha": [4, 8], "with": "lora.rank"}}}
    )
    again = ExperimentSpec.model_validate(to_jsonable(found.spec))
    assert plan_experiment(again) == found


def test_a_damaged_or_foreign_plan_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    place = tmp_path / "plan.json"
    with pytest.raises(StoreError, match=r"plan\.json"):
        read_plan(place)
    place.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="not valid JSON"):
        read_plan(place)
    place.write_text('{"name": "x"}', encoding="utf-8")
    with pytest.raises(SpecError, match="not a plan that this version"):
        read_plan(place)


def test_problems_of_a_plan_have_places_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "schema: 1\ndataset: {builtin: chiptune}\nprompts: [a]\ntrials:\n  variants:\n    - name: a\n"
        "    - {name: a, lora.rank: 2}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError) as caught:
        plan_file(load_spec(path))
    assert caught.value.problems[0].place.endswith("t.yaml:7:7")


RANKS, TARGETS, RATES = [1, 2, 4, 8], ["attention", "ffn", "heads"], [1e-3, 1e-4]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(RANKS), unique=True, min_size=1),
    st.lists(st.sampled_from(TARGETS), unique=True, min_size=1),
    st.lists(st.sampled_from(RATES), unique=True, min_size=1),
    st.sets(st.tuples(st.sampled_from(RANKS), st.sampled_from(TARGETS)), max_size=4),
)
def test_a_grid_has_every_combination_once_but_the_excluded(
    ranks: list[int], targets: list[str], rates: list[float], excluded: set[tuple[int, str]]
) -> None:
    wanted = [c for c in itertools.product(ranks, targets, rates) if (c[0], c[1]) not in excluded]
    grid = {
        "axes": {"lora.rank": ranks, "lora.targets": targets, "train.lr": rates},
        "exclude": [{"lora.rank": rank, "lora": {"targets": target}} for rank, target in excluded],
    }
    if not wanted:
        with pytest.raises(SpecError, match="every combination is excluded"):
            plan(trials={"grid": grid})
        return
    trials = plan(trials={"grid": grid}).trials[1:]
    assert [(t.lora.rank, t.lora.targets, t.train.lr) for t in trials if t.lora and t.train] == wanted
    assert len({trial.id for trial in trials}) == len({trial.name for trial in trials}) == len(wanted)


def test_strengths_share_zero_shot_and_training_and_full_strength_changes_no_identity() -> None:
    scales = [0.0, 0.5, 1.0]
    made = plan(trials={"grid": {"axes": {"lora.rank": [4], "generation.adapter_scale": scales}}})
    assert [trial.name for trial in made.trials] == ["zero-shot", "r4-scale0", "r4-scale0.5", "r4-scale1"]
    base, *tuned = made.trials
    assert base.generation.adapter_scale == 1.0
    assert {trial.zero_shot for trial in tuned} == {base.id}
    assert {trial.training for trial in tuned} == {tuned[0].id}
    plain = plan(trials={"variants": [{"name": "r4-scale1", "lora": {"rank": 4}}]})
    assert [trial.id for trial in plain.trials] == [base.id, tuned[2].id]
    assert "adapter_scale" not in tuned[2].model_dump_json(exclude={"changes"})
