"""The page: which pairs it holds, and what its source does not say."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun, FakeTrial, zero_shot
from support.listening_run import LARGE, SMALL, ListeningRun, write_run

from lora_bench.errors import AudioFileError, UsageError
from lora_bench.listening.create import Wishes, write_study
from lora_bench.store import write_json


def read_content(text: str) -> dict[str, object]:
    block = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.DOTALL)
    assert block
    return json.loads(block[1])


def test_the_source_names_no_configuration_trial_folder_or_run(run: ListeningRun) -> None:
    text = re.sub(r"data:audio/[a-z0-9]+;base64,[A-Za-z0-9+/=]+", "", run.text)
    names = [trial.name for trial in (zero_shot(), SMALL, LARGE)] + [
        trial.id for trial in (zero_shot(), SMALL, LARGE)
    ]
    for name in (*names, "zero", "r16", "r4-", "attention", "mfcc", "trials", "clips/", ".wav", "invented", str(run.folder), "identical", "damaged"):  # fmt: skip
        assert name not in text.lower(), name
    secret = json.loads((run.folder / "listening_key.json").read_text())["secret"]
    assert secret not in text


def test_ids_cannot_be_computed_without_the_key_of_the_run(tmp_path: Path) -> None:
    first, second = (write_study(write_run(tmp_path / name), Wishes()).study for name in ("one", "two"))
    assert [pair.sides for pair in first.pairs] == [pair.sides for pair in second.pairs]
    assert not {pair.id for pair in first.pairs} & {pair.id for pair in second.pairs}


def test_a_prompt_with_markup_stays_text(run: ListeningRun) -> None:
    text = run.text
    assert "<script>alert" not in text
    assert {pair["prompt"] for pair in read_content(text)["pairs"]} == {PROMPT_HTML, PROMPT_KOREAN}
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)


def test_pairs_have_one_prompt_and_clip_index_and_every_other_is_against_zero_shot(run: ListeningRun) -> None:
    pairs = [pair for pair in run.study.pairs if pair.kind == "comparison"]
    assert len(pairs) == 20
    sides = [frozenset(side.configuration for side in pair.sides) for pair in pairs]
    counts = Counter(sides)
    assert counts[frozenset(("r4-attention", "r16-all"))] == 10
    assert counts[frozenset(("zero-shot", "r16-all"))] == 5
    assert all(len(side) == 2 for side in sides)
    for names in counts:  # no comparison is tied to a prompt
        prompts = Counter(pair.prompt for pair, side in zip(pairs, sides, strict=True) if side == names)
        assert abs(prompts[PROMPT_HTML] - prompts[PROMPT_KOREAN]) <= 1
    assert len({(side, pair.prompt, pair.clip_index) for side, pair in zip(sides, pairs, strict=True)}) == 20
    firsts = Counter(pair.sides[0].configuration == "zero-shot" for pair in pairs if "zero-shot" in {side.configuration for side in pair.sides})  # fmt: skip
    assert set(firsts) == {True, False}


def test_two_of_each_attention_check_are_among_twenty_pairs(run: ListeningRun) -> None:
    kinds = Counter(pair.kind for pair in run.study.pairs)
    assert kinds == {"comparison": 20, "identical": 2, "damaged": 2}
    sounds = {pair["id"]: pair["sounds"] for pair in read_content(run.text)["pairs"]}
    for pair in run.study.pairs:
        first, second = sounds[pair.id]
        assert (first == second) == (pair.kind == "identical")
        assert [side.is_damaged for side in pair.sides].count(True) == (pair.kind == "damaged")


def test_the_same_command_writes_the_same_page_and_another_seed_adds_a_study(run: ListeningRun) -> None:
    text = run.text
    write_study(run.folder, Wishes())
    assert run.text == text
    other = write_study(run.folder, Wishes(seed=1), run.folder / "other.html")
    assert other.path.name == "other.html"
    studies = json.loads((run.folder / "listening_key.json").read_text())["studies"]
    assert [study["id"] for study in studies] == [run.study.id, other.study.id]
    assert run.text == text


def test_the_spec_chooses_questions_number_and_seed(run: ListeningRun) -> None:
    path = run.folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["spec"]["report"]["listening"] = {"questions": ["fits_prompt"], "n_pairs": 4, "seed": 7}
    write_json(path, plan)
    page = write_study(run.folder, Wishes())
    text = page.path.read_text(encoding="utf-8")
    assert page.study.seed == 7
    assert Counter(pair.kind for pair in page.study.pairs) == {"comparison": 4, "identical": 1, "damaged": 1}
    assert text.count("<fieldset") == 1
    assert "Which fits the description better?" in text
    assert "Example" not in text  # only the genre's question needs them


def test_wishes_choose_configurations_and_prompts(run: ListeningRun) -> None:
    page = write_study(
        run.folder, Wishes(configurations=["r4-attention"], prompts=[PROMPT_KOREAN], n_pairs=6)
    )
    named = {side.configuration for pair in page.study.pairs for side in pair.sides}
    assert named <= {"zero-shot", "r4-attention"}
    assert {pair.prompt for pair in page.study.pairs} == {PROMPT_KOREAN}


def test_fewer_pairs_than_asked_for_are_said(run: ListeningRun) -> None:
    page = write_study(run.folder, Wishes(n_pairs=200))
    assert page.notes == ("36 pairs instead of 200, because the run has no more clips in pairs",)


def test_a_run_without_references_is_not_asked_for_the_genre(run: ListeningRun) -> None:
    shutil.rmtree(run.folder / "reference_clips")
    page = write_study(run.folder, Wishes())
    assert page.study.questions == ("preference", "fits_prompt")
    assert page.notes == ("`fits_genre` is not asked, because the run has no reference clips",)


def test_a_large_study_is_thinned_from_the_best_to_the_worst(tmp_path: Path) -> None:
    trials = [FakeTrial(f"t{number}", base=0.1 + 0.05 * number) for number in range(9)]
    folder = FakeRun(trials=[zero_shot(), *trials], n_wavs=2, n_references=1).write(tmp_path)
    page = write_study(folder, Wishes())
    (note,) = page.notes
    assert note.startswith("5 of 9 configurations, from the best to the worst on mfcc20: t0, t2, t4, t6, t8;")


def test_training_seeds_share_a_configuration(tmp_path: Path) -> None:
    trials = [FakeTrial("r4", seed=0), FakeTrial("r4", seed=1)]
    folder = FakeRun(trials=[zero_shot(), *trials], n_wavs=4, n_references=1).write(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    for trial in plan["trials"][1:]:
        trial["configuration"] = "r4"
    write_json(folder / "plan.json", plan)
    sides = [side for pair in write_study(folder, Wishes()).study.pairs for side in pair.sides]
    assert {side.configuration for side in sides} == {"zero-shot", "r4"}
    assert {side.trial for side in sides} >= {trial.id for trial in trials}


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (
            Wishes(configurations=["r4-atention"]),
            "`r4-atention` is not a configuration .* did you mean `r4-attention`",
        ),
        (Wishes(prompts=["a waltz"]), "`a waltz` is not a prompt of this run; prompts are"),
    ],
)
def test_unknown_names_are_refused(run: ListeningRun, wishes: Wishes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_study(run.folder, wishes)


def test_a_run_without_clips_is_refused(tmp_path: Path) -> None:
    folder = FakeRun().write(tmp_path)
    with pytest.raises(UsageError, match="has no clips of zero-shot, r4-attention; finish the run"):
        write_study(folder, Wishes())
    assert not (folder / "listening.html").exists()
    assert not (folder / "listening_key.json").exists()


def test_a_damaged_clip_is_named(run: ListeningRun) -> None:
    for path in (run.folder / "trials" / SMALL.id / "clips").rglob("*.wav"):
        path.write_bytes(b"RIFF")
    with pytest.raises(AudioFileError, match=r"clips/.*\.wav: cannot be read .*resume the run"):
        write_study(run.folder, Wishes())
