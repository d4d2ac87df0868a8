"""The section `external`: what a spec may say, where paths lead, and what leaves identities alone."""

from pathlib import Path

import pytest

from lora_bench.comparison.pairs import find_pairs
from lora_bench.errors import SpecError
from lora_bench.planning.plan import plan_experiment, plan_file
from lora_bench.planning.trial_plan import ExperimentPlan
from lora_bench.runner.freshness import inputs_key
from lora_bench.spec import load_spec
from lora_bench.store import to_jsonable

HEAD = """
schema: 1
name: other
dataset: {builtin: chiptune}
prompts: [warm lofi]
generation: {n_clips: 4, clip_s: 2}
trials:
  variants:
"""


def plan(place: Path, *variants: str, rest: str = "") -> ExperimentPlan:
    file = place / "spec.yaml"
    file.write_text(HEAD + "".join(f"    - {variant}\n" for variant in variants) + rest, encoding="utf-8")
    return plan_file(load_spec(file))


def fail(place: Path, *variants: str, rest: str = "", with_paths: bool = False) -> str:
    file = place / "spec.yaml"
    file.write_text(HEAD + "".join(f"    - {variant}\n" for variant in variants) + rest, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        plan_file(load_spec(file, with_paths=with_paths))
    return str(caught.value)


def test_an_external_variant_is_one_trial_without_training_whatever_the_seeds(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "{name: r8}",
        "{name: other, external: {clips: ../clips}}",
        rest="repeats: {train_seeds: [0, 1]}\n",
    )
    base, first, second, external = made.trials
    assert [trial.kind for trial in made.trials] == ["zero-shot", "fine-tuned", "fine-tuned", "external"]
    assert external.external is not None
    assert external.external.clips == (tmp_path.parent / "clips")
    assert (external.lora, external.train, external.train_seed) == (None, None, None)
    assert external.zero_shot == first.zero_shot == second.zero_shot == base.id


def test_a_run_of_external_variants_alone_has_a_zero_shot_trial(tmp_path: Path) -> None:
    made = plan(tmp_path, "{name: other, external: {clips: clips}, generation: {n_clips: 9}}")
    assert [(trial.kind, trial.generation.n_clips) for trial in made.trials] == [
        ("zero-shot", 9),
        ("external", 9),
    ]


def test_scripts_are_found_next_to_the_spec_and_other_words_stay(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    made = plan(tmp_path, "{name: other, external: {command: [python, my.py, tool, --fast], files: [w.bin]}}")
    found = made.trials[-1].external
    assert found is not None
    assert found.command == ["python", str(tmp_path / "my.py"), str(tmp_path / "tool"), "--fast"]
    assert found.files == [tmp_path / "w.bin"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            "{}",
            "give one of `clips` (a folder of audio) and `command` (a program that writes clips), got neither",
        ),
        ("{clips: a, command: [b]}", "got both"),
        ("{clips: a, timeout_s: 3}", "`timeout_s` is a setting of `command`, but `clips` is given"),
        ("{command: []}", "`trials.variants[0].external.command` is a list of 0"),
        ("{command: [a], per: clip}", "expected `prompt` or `run`"),
        ("{command: [a], timeout_s: 0}", "expected a number above 0"),
        ("{clip: a}", "`clip` is not a field of `trials.variants[0].external`; did you mean `clips`?"),
    ],
)
def test_a_wrong_section_says_what_is_expected_at_its_place(tmp_path: Path, section: str, words: str) -> None:
    said = fail(tmp_path, f"{{name: other, external: {section}}}")
    assert words in said
    assert "spec.yaml:9:" in said


def test_a_change_without_effect_is_refused(tmp_path: Path) -> None:
    said = fail(tmp_path, "{name: other, external: {clips: a}, lora: {rank: 4}}")
    assert (
        "`lora.rank` has no effect on the clips of another system; a variant with `external` may change"
        in said
    )
    assert "`generation.seed` has no effect" in fail(
        tmp_path, "{name: other, external: {clips: a}, generation: {seed: 4}}"
    )


def test_defaults_of_trainings_do_not_concern_another_system(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        "{name: small, lora: {kind: vera, rank: 8}}",
        "{name: other, external: {clips: a}}",
        rest="defaults: {lora: {budget: 10}, train: {lr: {vera: 1.0e-3}, steps: 4, keep: [2]}}\n",
    )
    assert [trial.name for trial in made.trials] == ["zero-shot", "small@2", "small", "other"]
    assert made.trials[-1].id == plan(tmp_path, "{name: other, external: {clips: a}}").trials[-1].id


def test_zero_shot_alone_has_no_other_system_next_to_it(tmp_path: Path) -> None:
    said = fail(tmp_path, "{name: other, external: {clips: a}}\n  zero_shot_only: true")
    assert "trials.zero_shot_only leaves other rows out, but `other` would be another system's" in said


def test_an_external_system_cannot_be_the_baseline(tmp_path: Path) -> None:
    said = fail(tmp_path, "{name: other, external: {clips: a}}", "{name: r8}", rest="baseline: other\n")
    assert "`other` is an external system, which has no settings to change" in said


@pytest.mark.parametrize("lora", ["{rank: 8}", "{path: ./adapter}"])
def test_an_external_trial_is_no_pair_of_the_baseline_but_compared_with_each_of_its_trials(
    tmp_path: Path, lora: str
) -> None:
    made = plan(
        tmp_path,
        f"{{name: base, lora: {lora}}}",
        "{name: other, external: {clips: a}}",
        rest="baseline: base\nrepeats: {train_seeds: [0, 1]}\n",
    )
    bases = [trial for trial in made.trials if trial.configuration == "base"]
    assert made.trials[-1].baseline_trial is None
    pairs = find_pairs(made)[1]
    assert pairs == [(made.trials[-1], trial) for trial in bases]


def test_absent_folders_and_scripts_are_listed_with_their_places(tmp_path: Path) -> None:
    said = fail(
        tmp_path,
        "{name: one, external: {clips: absent}}",
        "{name: two, external: {command: [python, absent.py], files: [absent.bin]}, lora.rank: 4}",
        with_paths=True,
    )
    assert "spec.yaml:9:37: `external.clips` is" in said
    assert "which does not exist; expected a folder with the clips of another system" in said
    assert "`external.command` is" in said
    assert "`external.files` is" in said


def test_settings_of_a_command_change_the_trial_and_how_it_is_called_does_not(tmp_path: Path) -> None:
    def name(section: str) -> str:
        return plan(tmp_path, f"{{name: other, external: {section}}}").trials[-1].id

    plain = name("{command: [a]}")
    assert name("{command: [a], timeout_s: 5, per: run}") == plain
    assert name("{command: [a], settings: {steps: 8}}") != plain
    assert name("{command: [a], version: '2'}") != plain


def test_guidance_of_the_model_does_not_concern_another_system(tmp_path: Path) -> None:
    ids = {
        plan(tmp_path, "{name: other, external: {clips: a}}", rest=f"model: {{id: pocket}}\n{line}")
        .trials[-1]
        .id
        for line in ("", "defaults: {train: {steps: 7}}\n")
    }
    assert len(ids) == 1


def test_a_trial_of_the_model_has_no_trace_of_the_section(tmp_path: Path) -> None:
    """Plans and keys of finished runs stay as they were."""
    made = plan(tmp_path, "{name: r8}")
    for trial in made.trials:
        assert "external" not in to_jsonable(trial)
    assert "external" not in str(to_jsonable(made.spec))
    assert made.trials[-1].id == "r8-bb62d7fa"
    assert plan_experiment(made.spec).trials == made.trials


def test_a_replaced_clip_changes_the_key_of_a_finished_trial(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clip = tmp_path / "clips" / "warm-lofi_0.wav"
    clip.write_bytes(b"one")
    made = plan(tmp_path, "{name: other, external: {clips: clips}}")
    before = inputs_key(made.trials[-1])
    clip.write_bytes(b"another")
    assert inputs_key(made.trials[-1]) != before
