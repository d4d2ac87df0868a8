"""The best trial: what chose it, from how many, and the score that the choice did not see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.tiny_run import TinyRun

from lora_bench.adapters.choose import choose_trial
from lora_bench.adapters.model_card import CardFacts, write_card
from lora_bench.store import read_json, write_json


@pytest.fixture
def sealed_run(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The tiny run with a selection side, on which `dora` is the better one; on the test tracks `plain` is."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    for name, value in {"zero-shot": 0.8, "plain": 0.35, "dora": 0.3}.items():
        place = folder / "trials" / tiny_run.trial(name).id / "scores.json"
        found = read_json(place)
        kept = [score for score in found["scores"] if score["metric"] == "mfcc20"]
        moved = [{**score, "value": value, "corrected": value, "note": "chosen by"} for score in kept]
        write_json(place, {**found, "selection": {"scores": moved, "unscored": []}})
    return folder


def test_the_best_is_chosen_by_the_selection_side_and_told_with_its_sealed_score(sealed_run: Path) -> None:
    chosen = choose_trial(sealed_run, "best")
    assert chosen.plan.name == "dora"
    assert chosen.reason == (
        "best on mfcc20 of 2 trained, by the selection tracks: dora, 0.3000 there, 0.5000 (95 % 0.480 to 0.520) on "
        "the sealed test tracks"
    )


def test_without_a_selection_side_the_reason_says_that_the_score_is_optimistic(tiny_run: TinyRun) -> None:
    chosen = choose_trial(tiny_run.folder, "best")
    assert chosen.plan.name == "plain"
    assert chosen.reason == (
        "best on mfcc20 of 2 trained, by the tracks that score it: plain, 0.4000 (95 % 0.380 to 0.420); the score is "
        "optimistic, because the tracks that score it also chose it"
    )


def test_a_text_score_has_no_sides_so_its_clips_chose(sealed_run: Path) -> None:
    reason = choose_trial(sealed_run, "best", "clap_score").reason
    assert reason is not None
    assert reason.startswith("best on clap_score of 2 trained, by the clips that score it: dora, 0.9000")
    assert reason.endswith("the score is optimistic, because the clips that score it also chose it")


def test_a_choice_from_one_is_no_choice(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    shutil.rmtree(folder / "trials" / tiny_run.trial("dora").id)
    reason = choose_trial(folder, "best").reason
    assert reason is not None
    assert "of 1 trained" in reason
    assert "optimistic" not in reason


def test_a_best_one_without_a_sealed_score_is_told_as_such(sealed_run: Path, tiny_run: TinyRun) -> None:
    place = sealed_run / "trials" / tiny_run.trial("dora").id / "scores.json"
    write_json(place, {**read_json(place), "scores": []})
    chosen = choose_trial(sealed_run, "best")
    assert chosen.plan.name == "dora"
    assert "0.3000 there, no score on the sealed test tracks" in str(chosen.reason)


def test_the_model_card_says_how_the_adapter_was_chosen(sealed_run: Path) -> None:
    facts = CardFacts("mine", "pocket")
    card = write_card(choose_trial(sealed_run, "best"), facts, merged=False)
    assert "How it was chosen: best on mfcc20 of 2 trained, by the selection tracks: dora" in card
    assert "How it was chosen" not in write_card(choose_trial(sealed_run, "dora"), facts, merged=False)


def test_the_card_names_the_folder_of_melodies_without_its_place(sealed_run: Path) -> None:
    plan = read_json(sealed_run / "plan.json")
    plan["spec"]["generation"]["melodies"] = "/home/ada/tunes"
    write_json(sealed_run / "plan.json", plan)
    card = write_card(choose_trial(sealed_run, "dora"), CardFacts("mine", "pocket"), merged=False)
    assert ", melodies tunes" in card
    assert "/home/ada" not in card


def test_tables_show_the_sealed_scores_alone(sealed_run: Path) -> None:
    from lora_bench.results.csv_table import render_csv
    from lora_bench.results.gather import gather_results

    results = gather_results(sealed_run)
    assert sum(len(trial.selection) for trial in results.trials) == 9
    assert not any(score.note == "chosen by" for trial in results.trials for score in trial.scores)
    assert "chosen by" not in render_csv(results)
