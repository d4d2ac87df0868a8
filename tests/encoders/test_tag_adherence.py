"""The adherence of clips to the tags of their prompts, against the tagger's own probabilities."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.sounds import make_tone

from lora_bench.artifacts import AudioClip
from lora_bench.encoders import get_encoder
from lora_bench.encoders.musicnn import MusicnnEncoder, compute_log_mel, cut_frames
from lora_bench.encoders.tag_adherence import TagAdherence, embed_tags, open_tagger
from lora_bench.errors import UnscoredError
from lora_bench.evaluation.folder_scores import ScoreOptions, score_folders
from lora_bench.metrics import parse_metric
from lora_bench.progress import SilentProgress
from lora_bench.stages.score import score_embeddings, score_pooled

pytestmark = pytest.mark.skipif(find_spec("musicnn") is None, reason="the musicnn package is not installed")
PROMPT = "calm piano music with strings"
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def tagger() -> MusicnnEncoder:
    return open_tagger(device="cpu")


@pytest.fixture(scope="module")
def clips() -> list[AudioClip]:
    return [
        make_tone(name, seconds=seconds, rate_hz=RATE_HZ)
        for name, seconds in (("a", 7.0), ("b", 3.1), ("c", 1.0))
    ]


def ask_network(tagger: MusicnnEncoder, clip: AudioClip, tag: str) -> float:
    """The probability of a tag, mean over windows, from the network's own logits."""
    windows = np.stack(cut_frames(compute_log_mel(clip.audio[0])))
    with torch.inference_mode():
        logits = tagger.network.run(torch.from_numpy(windows)).logits.numpy()
    return float((1.0 / (1.0 + np.exp(-logits[:, tagger.tags.index(tag)]))).mean())


def test_a_rating_is_the_mean_of_the_tags_probabilities(
    tagger: MusicnnEncoder, clips: list[AudioClip]
) -> None:
    encoder = TagAdherence(PROMPT, tagger)
    found = encoder.embed(clips)
    wanted = [np.mean([ask_network(tagger, clip, tag) for tag in ("piano", "strings")]) for clip in clips]
    assert found.values[:, 0].tolist() == pytest.approx(wanted, rel=1e-4)
    assert len(set(found.values[:, 0].tolist())) == 3
    assert found.clip_names == ("a", "b", "c")
    assert found.groups == tuple(clip.group for clip in clips)
    (piano,) = TagAdherence("a piano", tagger).embed(clips[:1]).values[:, 0]
    assert piano == pytest.approx(ask_network(tagger, clips[0], "piano"), rel=1e-4)


def test_the_score_is_a_mean_with_an_interval(tagger: MusicnnEncoder, clips: list[AudioClip]) -> None:
    metric, best = parse_metric("tag-adherence"), embed_tags(tagger)
    sets = [TagAdherence(prompt, tagger).embed(clips) for prompt in (PROMPT, "loud techno")]
    score = score_embeddings(metric, sets[0], best)
    assert score.value == pytest.approx(sets[0].values.mean())
    assert score.ci_low is not None
    assert score.ci_high is not None
    assert score.ci_low < score.value < score.ci_high
    assert score.provenance["tags"] == "piano, strings"
    assert score.provenance["encoder"] == "tag-adherence"
    assert score.provenance["weights_hash"] == tagger.provenance["weights_hash"]
    pooled = score_pooled(metric, sets, best)
    assert pooled.value == pytest.approx(np.mean([one.values.mean() for one in sets]))
    assert pooled.provenance["generated_tags"] == "piano, strings, loud, techno"


def test_a_prompt_without_tags_is_unscored(tagger: MusicnnEncoder) -> None:
    with pytest.raises(UnscoredError, match="tag-adherence: the prompt names none of the tagger's 50 tags"):
        TagAdherence("chiptune game loop", tagger)
    with pytest.raises(UnscoredError, match="tag-adherence: it needs the text that the clips were"):
        get_encoder("tag-adherence")


def test_without_the_package_it_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_bench.encoders.musicnn.find_spec", lambda _: None)
    with pytest.raises(UnscoredError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        open_tagger()


def test_folders_are_scored_by_a_prompt(
    tmp_path: Path, tagger: MusicnnEncoder, clips: list[AudioClip]
) -> None:
    for side in ("real", "made"):
        (tmp_path / side).mkdir()
        for clip in clips[:2]:
            soundfile.write(tmp_path / side / f"{clip.name}.wav", clip.audio.T, RATE_HZ, subtype="FLOAT")

    def score(prompt: str | None) -> tuple[list[float], list[str]]:
        options = ScoreOptions(prompt=prompt, with_guards=False)
        found = score_folders(
            tmp_path / "real", tmp_path / "made", ["tag-adherence"], SilentProgress(), options
        )
        return [one.value for one in found.scores], [gap.reason for gap in found.unscored]

    wanted = float(TagAdherence(PROMPT, tagger).embed(clips[:2]).values.mean())
    assert score(PROMPT) == ([pytest.approx(wanted, rel=1e-4)], [])
    assert score("game loop") == ([], ["tag-adherence: the prompt names none of the tagger's 50 tags"])
    assert score(None)[1] == [
        "tag-adherence: it needs the text that the clips were generated from; give a prompt"
    ]
