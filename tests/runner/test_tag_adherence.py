"""Runs that score the adherence of clips to the tags of their prompts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.tiny_experiment import SPEC, results, run

from lora_bench.cli.main import main
from lora_bench.planning.run_folder import RunFolder
from lora_bench.stages.embed import load_embeddings

pytestmark = pytest.mark.skipif(find_spec("musicnn") is None, reason="the musicnn package is not installed")
TAGGED, PLAIN = "calm piano music", "chiptune game loop"
REASON = "tag-adherence: the prompt names none of the tagger's 50 tags"
TAGS_SPEC = SPEC.replace('prompts: ["chiptune game loop"]', f'prompts: ["{TAGGED}", "{PLAIN}"]').replace(
    "metrics: [mfcc20-seed, mfcc20, encodec]", "metrics: [tag-adherence, mfcc20]"
)
NOTE = "1 of 2 prompts name none of the tagger's 50 tags and are left out"


@pytest.mark.slow
def test_a_run_scores_and_compares_the_prompts_that_name_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--quiet", spec=TAGS_SPEC) == 0
    found = results(tmp_path)
    means: dict[str, float] = {}
    for trial in found["trials"]:
        scores = {one["prompt"]: one for one in trial["scores"] if one["metric"] == "tag-adherence"}
        assert scores.keys() == {TAGGED, None}
        for score in scores.values():
            assert 0.0 < score["value"] < 1.0
            assert score["ci_low"] < score["value"] < score["ci_high"]
            assert score["provenance"]["tags"] == "piano"
            assert score["n_generated"] == 3
        assert scores[None]["value"] == scores[TAGGED]["value"]
        assert scores[None]["note"] == NOTE
        gaps = [gap for gap in trial["unscored"] if gap["metric"] == "tag-adherence"]
        assert [(gap["prompt"], gap["reason"]) for gap in gaps] == [(PLAIN, REASON)]
        folder = RunFolder(tmp_path / "runs" / "tiny").trial(trial["id"]).embeddings("tag-adherence")
        (kept,) = [load_embeddings(file) for file in folder.path.glob("*.npz")]
        assert scores[None]["value"] == pytest.approx(float(np.mean(kept.values)))
        means[trial["id"]] = scores[None]["value"]

    contrasts = {one["prompt"]: one for one in found["contrasts"] if one["metric"] == "tag-adherence"}
    assert contrasts.keys() == {TAGGED, None}
    zero_shot, tuned = (trial["id"] for trial in found["trials"])
    assert contrasts[None]["delta_plugin"] == pytest.approx(means[tuned] - means[zero_shot], abs=1e-6)
    assert contrasts[None]["verdict"] is not None
    assert contrasts[None]["ci_low"] < contrasts[None]["delta"] < contrasts[None]["ci_high"]
    assert contrasts[None]["n_pairs"] == 3
    assert NOTE in contrasts[None]["note"]
    (gap,) = [one for one in found["missing_contrasts"] if one["metric"] == "tag-adherence"]
    assert (gap["prompt"], gap["reason"]) == (PLAIN, REASON)

    text = "\n".join(
        file.read_text(encoding="utf-8") for file in (tmp_path / "reports" / "tiny").glob("*.md")
    )
    assert "probability that the music tagger musicnn gives" in text
    assert f"| {REASON.removeprefix('tag-adherence: ')}" in text
    capsys.readouterr()
    assert main(["calibrate", str(tmp_path / "runs" / "tiny"), "--draws", "3"]) == 0
