"""Codec-matched metrics of trials, against references that were passed through the codec by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import soundfile
from numpy.typing import NDArray
from support.embedded_trials import make_group
from support.fake_run import FakeRun
from support.provenance_gaps import find_gaps
from support.tiny_data import Recorder
from support.tiny_experiment import write_music

from lora_bench.artifacts import AudioClip, GeneratedClips, Manifest
from lora_bench.comparison.contrasts import contrast_groups
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.encoders.mfcc import compute_mfcc
from lora_bench.errors import UnscoredError
from lora_bench.evaluation import attempt_scores
from lora_bench.evaluation.floors import NO_FLOOR, ZERO_BY_CONSTRUCTION, measure_floors
from lora_bench.evaluation.trial_clips import TrialClips
from lora_bench.evaluation.trial_scores import score_clips
from lora_bench.metrics import parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS
from lora_bench.models import MusicModel, load_model
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.run_folder import RunFolder, TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.progress import SilentProgress
from lora_bench.report.render import render_report
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.dataset import prepare_dataset
from lora_bench.store import Store

CLIP_S, N_CLIPS, PROMPT = 2, 3, "chiptune game loop"
PLAIN = ("mfcc20", "encodec")
MATCHED = ("mfcc20@codec", "mmd/encodec@codec")
WITHOUT_WEIGHTS = ("vggish", "vggish@codec")


@dataclass(frozen=True)
class Scored:
    """Two trials with invented clips that were scored by plain metrics, and then by codec-matched ones, too.

    Attributes:
        before: `scores.json` and `guards.json` of each trial with plain metrics only.
        n_cached: embeddings in the cache then.
    """

    plan: TrialPlan
    model: MusicModel
    manifest: Manifest
    store: Store
    trials: tuple[TrialFolder, ...]
    before: list[tuple[dict[str, Any], dict[str, Any]]]
    n_cached: int

    def read(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [read_trial(folder) for folder in self.trials]

    def cut(self, split: str) -> list[NDArray[np.float32]]:
        """Return excerpts [C, S] of the tracks of one side, from the prepared audio."""
        n = CLIP_S * self.manifest.format.sample_rate_hz
        tracks = [np.load(track.audio) for track in self.manifest.tracks if track.split == split]
        return [audio[:, i * n : (i + 1) * n] for audio in tracks for i in range(audio.shape[1] // n)]

    def recode(self, clips: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        codes = self.model.encode_audio(np.stack(clips))
        return list(self.model.decode_audio(codes)[..., : clips[0].shape[-1]])

    def compute_mfcc(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        rate_hz = self.manifest.format.sample_rate_hz
        frames = [compute_mfcc(AudioClip("", "", clip, rate_hz), rate_hz).T for clip in clips]
        return np.concatenate(frames).astype(np.float64)

    def embed(self, clips: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return what mfcc20 makes of clips: its scale is the spread over the training side before the codec."""
        return self.compute_mfcc(clips) / self.compute_mfcc(self.cut("train")).std(axis=0)


def read_trial(folder: TrialFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    scores, guards = (json.loads(path.read_text(encoding="utf-8")) for path in (folder.scores, folder.guards))
    return scores, guards


def make_clips(folder: TrialFolder, model: MusicModel, seed: int) -> tuple[list[Path], list[Path]]:
    """Write notes with noise, and their codes."""
    rate_hz = model.info.audio_format.sample_rate_hz
    noise, files, codes = np.random.default_rng(seed), [], []
    for index in range(N_CLIPS):
        tone_hz = np.repeat(noise.uniform(200, 900, CLIP_S * 4), rate_hz // 4)
        audio = 0.3 * np.sin(2 * np.pi * np.cumsum(tone_hz) / rate_hz) + 0.02 * noise.standard_normal(
            len(tone_hz)
        )
        files.append(folder.clips / "p" / f"{index:03}.wav")
        codes.append(folder.codes / "p" / f"{index:03}.npy")
        for file in (files[-1], codes[-1]):
            file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(files[-1], audio, rate_hz, subtype="FLOAT")
        np.save(codes[-1], model.encode_audio(audio[None, None].astype(np.float32))[0].numpy())
    return files, codes


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    place = tmp_path_factory.mktemp("codec")
    write_music(place / "music")
    split = {"by": "track", "eval_frac": 0.5, "seed": 0}
    spec: dict[str, Any] = {
        "schema": 1, "name": "tiny", "model": {"id": "pocket"}, "prompts": [PROMPT], "metrics": list(PLAIN),
        "dataset": {"path": place / "music", "captions": {"text": PROMPT}, "clip_s": CLIP_S, "split": split},
        "generation": {"n_clips": N_CLIPS, "clip_s": CLIP_S}, "trials": {"variants": [{"name": "r2"}]},
    }  # fmt: skip
    plan = plan_experiment(ExperimentSpec.model_validate(spec)).trials[0]
    model, store, progress = load_model(plan.model, device="cpu"), Store(place / "cache"), SilentProgress()
    manifest = prepare_dataset(plan.dataset, model.info.audio_format, store, progress)
    folders = tuple(RunFolder(place / "run").trial(name) for name in ("zero-shot", "r2"))
    made: list[TrialClips] = []
    for seed, folder in enumerate(folders):
        files, codes = make_clips(folder, model, seed)
        clips = {PROMPT: GeneratedClips(PROMPT, tuple(files), 0.0)}
        made.append(TrialClips(plan, model, manifest, clips, {PROMPT: tuple(codes)}, folder.path, store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_BENCH_CHECKPOINTS", str(place))
        for one in made:
            score_clips(one, progress)
        before = [read_trial(folder) for folder in folders]
        n_cached = len(list(store.root.glob("embeddings/*/*.npz")))
        plan = plan.model_copy(update={"metrics": (*MATCHED, *PLAIN, *WITHOUT_WEIGHTS)})
        for one in made:
            score_clips(replace(one, trial=plan), progress)
    return Scored(plan, model, manifest, store, folders, before, n_cached)


def take(items: list[dict[str, Any]], *metrics: str) -> list[dict[str, Any]]:
    return [item for item in items if item["metric"] in metrics]


def measure_frechet(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    first, second = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(np.sum((one.mean(0) - other.mean(0)) ** 2) + np.trace(first + second - 2 * root))


def test_clips_are_scored_against_references_after_the_codec_in_the_plain_metrics_scale(
    scored: Scored,
) -> None:
    references = {"mfcc20": scored.cut("eval"), "mfcc20@codec": scored.recode(scored.cut("eval"))}
    for folder, (found, _) in zip(scored.trials, scored.read(), strict=True):
        clips = [
            soundfile.read(file, dtype="float32")[0][None] for file in sorted(folder.clips.rglob("*.wav"))
        ]
        for metric, sounds in references.items():
            expected = measure_frechet(scored.embed(clips), scored.embed(sounds))
            for score in take(found["scores"], metric):
                assert score["value"] == pytest.approx(expected, rel=1e-3)
        for score in take(found["scores"], *MATCHED):
            assert find_gaps(score) == []
            assert score["provenance"]["reference_audio"].startswith(
                "encoded and decoded by the music model's"
            )
            assert score["provenance"]["reference_codec_hash"] == scored.model.info.codec_hash
        [score, _] = take(found["scores"], "mfcc20@codec")
        assert "scale is that of the plain metric" in score["provenance"]["reference_audio"]


def test_plain_scores_and_guards_are_the_same_next_to_codec_matched_ones(scored: Scored) -> None:
    for (scores, guards), (before, guards_before) in zip(scored.read(), scored.before, strict=True):
        assert take(scores["scores"], *PLAIN) == before["scores"]
        assert guards == guards_before


def test_only_the_references_after_the_codec_are_embedded_anew(scored: Scored) -> None:
    embedded = {folder.name for trial in scored.trials for folder in trial.path.glob("embeddings/*")}
    assert embedded == set(PLAIN)
    assert len(list(scored.store.root.glob("embeddings/*/*.npz"))) - scored.n_cached == len(PLAIN)


def test_a_missing_encoder_leaves_both_forms_unscored_with_one_reason(scored: Scored) -> None:
    for found, _ in scored.read():
        plain, matched = (
            [gap["reason"] for gap in take(found["unscored"], name)] for name in WITHOUT_WEIGHTS
        )
        assert matched == plain
        assert all("vggish: its weights are not on this machine" in reason for reason in plain)


def test_codec_matched_metrics_are_compared_against_their_own_references(scored: Scored) -> None:
    base, tuned = (EmbeddedTrial(folder, (PROMPT,)) for folder in scored.trials)
    coded = scored.recode(scored.cut("eval"))
    for name, clips in (("mfcc20@codec", coded), ("mfcc20", scored.cut("eval"))):
        metric = parse_metric(name)
        references = tuned.load_references(metric)
        np.testing.assert_allclose(references.values, scored.embed(clips), rtol=1e-3, atol=1e-3)
        group = make_group("tuned", [tuned], base)
        [one] = contrast_groups([group], [metric], {None: (PROMPT,)}, (name, frozenset()))
        values = [take(found["scores"], name)[0]["value"] for found, _ in scored.read()]
        assert one.delta_plugin == pytest.approx(values[1] - values[0], abs=1e-6)


def test_references_after_the_codec_that_are_absent_are_named(scored: Scored) -> None:
    trial = EmbeddedTrial(scored.trials[0], (PROMPT,))
    with pytest.raises(
        UnscoredError, match=r"mfcc20-seed@codec\.npz is not there, so there is no comparison"
    ):
        trial.load_references(parse_metric("mfcc20-seed@codec"))


def test_real_music_passes_the_codec_on_both_sides_of_a_codec_matched_level(scored: Scored) -> None:
    trial = scored.plan.model_copy(update={"metrics": ("mfcc20@codec", "mfcc20")})
    floors, unscored = measure_floors(trial, scored.model, scored.manifest, scored.store, SilentProgress())
    found = {(item.score.metric, item.floor): item.score.value for item in floors}
    assert set(found) == {("mfcc20@codec", "real-vs-real"), ("mfcc20", "real-vs-real"), ("mfcc20", "codec")}
    assert [(gap.metric, gap.reason) for gap in unscored] == [("mfcc20@codec", ZERO_BY_CONSTRUCTION)]
    real = scored.cut("train")[::2]  # as many excerpts as clips, track by track; a track has two
    real, held_out = scored.recode(real[:N_CLIPS]), scored.recode(scored.cut("eval"))
    expected = measure_frechet(scored.embed(real), scored.embed(held_out))
    assert found["mfcc20@codec", "real-vs-real"] == pytest.approx(expected, rel=1e-3)


def test_metrics_without_weights_are_named_before_anything_is_trained(scored: Scored) -> None:
    progress = Recorder()
    metrics = ("vggish", "clap_score", "mfcc20", "tag-adherence", "melody-agreement")
    trial = scored.plan.model_copy(update={"metrics": metrics})
    _, unscored = measure_floors(trial, scored.model, scored.manifest, scored.store, progress)
    assert {gap.reason for gap in unscored if gap.metric in PROMPT_RATINGS} == {NO_FLOOR["mean"]}
    for name, message in zip(("vggish", "clap_score"), progress.messages, strict=True):
        assert message.startswith(f"no trial will have scores of {name}: ")
        assert "not on this machine" in message


def test_the_report_says_why_a_codec_matched_metric_has_no_codec_level(tmp_path: Path) -> None:
    run = FakeRun(metrics=["mfcc20@codec"]).write(tmp_path)
    floors = json.loads((run / "floors.json").read_text(encoding="utf-8"))
    floors["unscored"] = [{"metric": "mfcc20@codec", "prompt": None, "reason": ZERO_BY_CONSTRUCTION}]
    (run / "floors.json").write_text(json.dumps(floors), encoding="utf-8")
    render_report(run, tmp_path / "reports")
    report = (tmp_path / "reports" / run.name / "details.md").read_text(encoding="utf-8")
    assert f"One reference level is left out: {ZERO_BY_CONSTRUCTION}." in report
    assert "held-out references, both after the codec" in report
    assert "the references have passed through the model's codec, as the clips have" in report


@pytest.mark.parametrize(
    ("clip_s", "said"),
    [(30.0, "clips of 30 s"), (40.0, "clips of 40 s in windows that overlap by 9 s")],
)
def test_scores_of_clips_made_in_windows_state_the_overlap(scored: Scored, clip_s: float, said: str) -> None:
    generation = scored.plan.generation.model_copy(update={"clip_s": clip_s, "overlap_s": 9.0})
    plan = scored.plan.model_copy(update={"generation": generation})
    made = TrialClips(plan, scored.model, scored.manifest, {}, {}, scored.trials[0].path, scored.store)
    assert made.describe()["sampling"] == f"guidance 3, temperature 1, top k 250, {said}"


def test_an_attempt_is_scored_with_the_settings_of_the_distance(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"mad": {"n_clusters": 3}}
    plan = scored.plan.model_copy(update={"distances": settings})
    made = TrialClips(plan, scored.model, scored.manifest, {}, {}, tmp_path, scored.store)
    monkeypatch.setattr(attempt_scores, "embed_reference", lambda *_: None)
    used: list[str] = []
    monkeypatch.setattr(attempt_scores, "score_metric", lambda metric, *_: used.append(metric.settings))
    attempt_scores.score_attempt(made, "mad/mfcc20", SilentProgress())
    assert [json.loads(each) for each in used] == [settings["mad"]]
