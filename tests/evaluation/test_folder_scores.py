"""Scores of plain folders."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
from support.provenance_gaps import find_gaps

from lora_bench import encoders, models
from lora_bench.artifacts import AudioClip, AudioFormat
from lora_bench.audio import load_audio, resample
from lora_bench.encoders.encodec import EncodecEncoder
from lora_bench.encoders.mfcc import MfccEncoder, SeedMfccEncoder, measure_scale
from lora_bench.errors import AudioFileError, DatasetError, ModelError, ScoreError, UnscoredError, UsageError
from lora_bench.evaluation import codec
from lora_bench.evaluation.audio_folder import open_folder
from lora_bench.evaluation.folder_scores import ScoreOptions, score_folders
from lora_bench.metrics import parse_metric
from lora_bench.metrics.frechet import frechet_distance
from lora_bench.progress import SilentProgress
from lora_bench.stages.score import score_embeddings
from lora_bench.store import Store, to_jsonable

RATE_HZ = 16_000


class SmallModel:
    """Stands in for the music model: a codec of 50 frames a second with three latents, whose codes are coarse samples."""

    info = SimpleNamespace(
        name="small",
        weights_hash="0123",
        codec_hash=None,
        audio_format=AudioFormat(RATE_HZ, 1),
        frame_rate_hz=50.0,
        trained=True,
    )
    device = SimpleNamespace(type="cpu")

    def audio_latents(self, audio):
        frames = audio[:, 0, : audio.shape[-1] // 320 * 320].reshape(len(audio), -1, 320)
        return np.stack([frames.mean(2), frames.std(2), np.abs(frames).max(2)], axis=2)

    def encode_audio(self, audio):
        return np.round(audio * 8)

    def decode_audio(self, codes):
        return np.pad(codes / 8, ((0, 0), (0, 0), (0, 7))).astype(
            np.float32
        )  # whole frames, so longer than the audio


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    monkeypatch.setattr(models, "load_model", lambda spec: SmallModel())


def write_tones(folder, n, *, rate_hz=RATE_HZ, seconds=0.6, seed=0, suffix="wav"):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(n):
        t = np.arange(int(rate_hz * seconds)) / rate_hz
        wave = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 900) * t) + rng.normal(
            0, rng.uniform(0.01, 0.1), len(t)
        )
        sf.write(folder / f"{index:03}.{suffix}", wave, rate_hz)
    return folder


@pytest.fixture
def folders(tmp_path):
    return write_tones(tmp_path / "ref", 6), write_tones(tmp_path / "gen", 5, seed=1)


def run(folders, *metrics, store=None, **settings):
    return to_jsonable(
        score_folders(*folders, metrics, SilentProgress(), ScoreOptions(**settings), store).to_json()
    )


def read_clips(folder):
    for path in sorted(folder.rglob("*.wav")):
        audio, rate_hz = load_audio(path)
        yield AudioClip(path.stem, path.stem, audio, rate_hz)


def test_numbers_are_those_of_the_stages_that_a_run_calls(folders):
    reference, generated = folders
    result = run(folders, "mfcc20-seed", "mfcc20", "mmd/mfcc20")
    fixed = MfccEncoder(RATE_HZ, measure_scale(read_clips(reference), RATE_HZ))
    for score, encoder in zip(result["scores"], (SeedMfccEncoder(), fixed, fixed), strict=True):
        expected = score_embeddings(
            parse_metric(score["metric"]),
            encoder.embed(read_clips(generated)),
            encoder.embed(read_clips(reference)),
        )
        assert score["value"] == expected.value
        assert (score["se"], score["ci_low"], score["ci_high"]) == (
            expected.se,
            expected.ci_low,
            expected.ci_high,
        )
        assert (score["n_generated"], score["n_reference"], score["dim"]) == (5, 6, 20)


def test_result_is_json_with_provenance_under_every_number(folders):
    result = json.loads(json.dumps(run(folders, "mfcc20", "encodec"), allow_nan=False))
    assert result["schema"] == 1
    assert not result["unscored"]
    for score in result["scores"]:
        provenance = score["provenance"]
        assert provenance["reference_hash"] == result["reference"]["hash"]
        assert provenance["generated_hash"] == result["generated"]["hash"]
        assert provenance["encoder"] == score["metric"]
        assert provenance["music_model"] == "small (by default; another can be named)"
        assert provenance["resampler"].startswith("soxr-hq")


def test_sub_folders_and_formats_are_read_and_other_files_left_alone(tmp_path):
    reference = write_tones(tmp_path / "ref" / "deep" / "er", 3, suffix="flac").parent.parent
    write_tones(tmp_path / "ref", 2, suffix="ogg", rate_hz=44_100)
    (reference / "notes.txt").write_text("not audio")
    result = run((reference, write_tones(tmp_path / "gen", 3, seed=2)), "mfcc20-seed")
    assert result["reference"]["n_files"] == 5
    assert result["scores"][0]["n_reference"] == 5
    assert result["scores"][0]["provenance"]["reference_file_rates_hz"] == "16000, 44100"


def test_an_unreadable_file_fails_by_name(folders):
    (folders[1] / "003.wav").write_bytes(b"RIFF....not a wav file at all")
    with pytest.raises(AudioFileError, match=r"003\.wav"):
        run(folders, "mfcc20-seed")


def test_an_empty_folder_is_refused(folders, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="none: holds no audio files"):
        run((folders[0], tmp_path / "none"), "mfcc20-seed")


def test_an_unknown_metric_is_a_usage_error_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"--metric mfc20: unknown metric `mfc20`; did you mean"):
        run((tmp_path / "no", tmp_path / "where"), "mfc20")


def test_missing_weights_are_unscored_and_the_rest_is_scored(folders, monkeypatch):
    real = encoders.get_encoder

    def get_encoder(name, **settings):
        if name == "vggish":
            raise UnscoredError("vggish: weights missing; put them there")
        return real(name, **settings)

    monkeypatch.setattr(encoders, "get_encoder", get_encoder)
    result = run(folders, "vggish", "mmd/vggish", "mfcc20-seed")
    assert [score["metric"] for score in result["scores"]] == ["mfcc20-seed"]
    assert [(cell["metric"], cell["reason"]) for cell in result["unscored"]] == [
        ("vggish", "vggish: weights missing; put them there"),
        ("mmd/vggish", "vggish: weights missing; put them there"),
    ]


def test_a_model_that_cannot_be_loaded_leaves_its_metrics_unscored(folders, monkeypatch):
    def load_model(spec):
        raise ModelError("facebook/x: not on this machine")

    monkeypatch.setattr(models, "load_model", load_model)
    result = run(folders, "encodec", "mfcc20-seed")
    assert len(result["scores"]) == 1
    assert result["unscored"][0]["reason"].endswith("cannot be loaded: facebook/x: not on this machine")


def test_a_cache_gives_the_same_result_without_embedding_again(folders, tmp_path, monkeypatch):
    store = Store(tmp_path / "cache")
    first = run(folders, "mfcc20-seed", store=store)

    def embed(self, clips):
        raise AssertionError("embedded twice")

    monkeypatch.setattr(SeedMfccEncoder, "embed", embed)
    assert run(folders, "mfcc20-seed", store=store) == first


def test_identical_files_are_listed(folders):
    reference, generated = folders
    (generated / "copy.wav").write_bytes((reference / "002.wav").read_bytes())
    assert run(folders, "mfcc20-seed")["identical_files"] == [["copy.wav", "002.wav"]]


def test_files_are_cut_into_excerpts_that_keep_their_file_as_group(tmp_path):
    folder = open_folder(write_tones(tmp_path, 2, seconds=1.1), clip_s=0.5)
    clips = list(folder)
    assert [(clip.name, clip.group, clip.audio.shape[1]) for clip in clips] == [
        ("000.wav#0", "000.wav", 8000), ("000.wav#1", "000.wav", 8000),
        ("001.wav#0", "001.wav", 8000), ("001.wav#1", "001.wav", 8000),
    ]  # fmt: skip
    whole, _ = load_audio(folder.files[0])
    np.testing.assert_array_equal(np.concatenate([clips[0].audio, clips[1].audio], axis=1), whole[:, :16_000])
    assert [clip.name for clip in open_folder(tmp_path, clip_s=0.9)] == ["000.wav", "001.wav"]


def test_a_text_score_without_a_prompt_says_what_it_needs(folders, monkeypatch):
    monkeypatch.setattr(encoders, "get_encoder", lambda name, **settings: SeedMfccEncoder())
    result = run(folders, "clap_score")
    assert result["unscored"][0]["reason"].startswith("clap_score: it needs the text")


@pytest.mark.parametrize("metric", ["mfcc20-seed", "mmd/encodec"])
def test_a_file_of_nan_fails_by_name(folders, metric):
    sf.write(folders[1] / "broken.wav", np.full(8000, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"broken\.wav: holds NaN"):
        run(folders, metric)


def test_a_file_too_short_for_the_encoder_fails_by_name(folders):
    sf.write(folders[1] / "brief.wav", np.zeros(100), RATE_HZ)
    with pytest.raises(ScoreError, match=r"clip brief\.wav: 100 samples"):
        run(folders, "mfcc20-seed")


def test_silent_files_are_scored_as_the_constants_that_they_are(folders, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    for index in range(3):
        sf.write(silent / f"{index}.wav", np.zeros(9600), RATE_HZ)
    [score] = run((folders[0], silent), "mfcc20-seed")["scores"]
    assert np.isfinite(score["value"])
    assert score["value"] > 1.0


def test_a_single_generated_file_has_a_distance_without_interval_and_no_kernel_distance(folders, tmp_path):
    alone = write_tones(tmp_path / "alone", 1, seed=4)
    result = run((folders[0], alone), "mfcc20-seed", "mmd/mfcc20-seed")
    [score] = result["scores"]
    assert (score["n_generated"], score["ci_low"]) == (1, None)
    assert "no interval: too few generated clips" in score["note"]
    assert score["provenance"]["interval"].startswith("none: ")
    assert [(cell["metric"], "at least 2" in cell["reason"]) for cell in result["unscored"]] == [
        ("mmd/mfcc20-seed", True)
    ]


def test_a_single_reference_track_is_scored_with_a_warning(folders, tmp_path):
    one = write_tones(tmp_path / "one", 1, seconds=3.0)
    [score] = run((one, folders[1]), "mfcc20-seed", clip_s=0.5)["scores"]
    assert score["n_reference"] == 6
    assert "the reference is one track" in score["note"]


def test_a_folder_against_its_copy_is_at_zero_and_every_file_is_listed(folders, tmp_path):
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in folders[0].iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    result = run((folders[0], copied), "mfcc20-seed")
    assert abs(result["scores"][0]["value"]) < 1e-9
    assert len(result["identical_files"]) == 6


def test_every_number_says_where_it_comes_from(folders):
    for score in run(folders, "mfcc20", "mfcc20-seed", "encodec", "mmd/encodec")["scores"]:
        assert find_gaps(score) == []
        if score["metric"].startswith("mmd/") or score["dim"] <= 10:
            assert score["ci_low"] < score["ci_high"]
        else:
            assert "more than twice the 5 generated clips" in score["provenance"]["interval"]


def test_what_is_read_beside_the_scores_is_that_of_the_embeddings(folders):
    result = run(folders, "mfcc20-seed", "mmd/mfcc20-seed")
    assert [floor["metric"] for floor in result["floors"]] == ["mfcc20-seed", "mmd/mfcc20-seed"]
    for floor in result["floors"]:
        assert find_gaps(floor) == []
        assert (floor["n_generated"], floor["n_reference"]) == (3, 3)
    beside = result["beside"]["mfcc20-seed"]
    encoder = SeedMfccEncoder()
    sides = [encoder.embed(read_clips(folder)) for folder in reversed(folders)]
    [farthest, *_] = beside["group_distances"]
    assert len(beside["group_distances"]) == 5
    own = sides[0].values[sides[0].clip_index == sides[0].clip_names.index(farthest[0].removesuffix(".wav"))]
    assert farthest[1] == pytest.approx(frechet_distance(own, sides[1].values))
    assert set(beside["unscored"]) == {"precision, recall, density, coverage", "frechet_extrapolated"}
    assert beside["provenance"]["reference_hash"] == result["reference"]["hash"]
    assert "lasts 0.60 s" in result["guards"]["unscored"]["silence, repetition, copies"]


def test_only_the_scores_are_computed_if_no_guards_are_wanted(folders):
    assert {"floors", "beside", "guards"}.isdisjoint(run(folders, "mfcc20-seed", with_guards=False))


def test_a_copied_stretch_of_a_recording_is_found_with_its_place(tmp_path):
    rng = np.random.default_rng(0)
    folders = tmp_path / "ref", tmp_path / "gen"
    for folder, n, seconds in zip(folders, (4, 3), (8.0, 3.0), strict=True):
        folder.mkdir()
        for index in range(n):
            notes = np.repeat(rng.uniform(200, 4000, int(seconds * 8)), RATE_HZ // 8)
            wave = 0.3 * np.sin(2 * np.pi * np.cumsum(notes) / RATE_HZ)
            sf.write(folder / f"{index}.wav", wave, RATE_HZ)
    guards = run(folders, "mfcc20-seed")["guards"]
    assert guards["unscored"] == {}
    assert guards["generated"]["copy_similarity_max"] < 0.9
    recording, _ = sf.read(folders[0] / "2.wav")
    sf.write(folders[1] / "1.wav", 0.5 * recording[int(4.5 * RATE_HZ) :][: 3 * RATE_HZ], RATE_HZ)
    sf.write(folders[1] / "2.wav", np.zeros(3 * RATE_HZ), RATE_HZ)
    guards = run(folders, "mfcc20-seed")["guards"]
    assert guards["generated"]["copy_similarity_max"] > 0.95
    assert guards["generated"]["nearest_copy"].startswith("1.wav: 2.wav at ")
    assert float(guards["generated"]["nearest_copy"].split()[-2]) in {4.5, 5.5}
    assert guards["control"]["copy_similarity_max"] < 0.9
    assert guards["generated"]["silent_clips_frac"] == pytest.approx(1 / 3)
    assert (guards["control"]["silent_clips_frac"], guards["control"]["n_clips"]) == (0.0, 8)


def test_a_single_recording_gives_no_floor_and_no_search_for_copies(tmp_path):
    folders = write_tones(tmp_path / "ref", 1, seconds=6.0), write_tones(tmp_path / "gen", 3, seconds=2.5)
    result = run(folders, "mfcc20-seed", clip_s=2.5)
    assert result["floors"] == []
    assert "one reference track only" in result["floors_unscored"][0]["reason"]
    assert "1 recording(s) of at least 2 s" in result["guards"]["unscored"]["copies"]
    assert "copy_similarity" not in result["guards"]["generated"]


def recode_by_hand(folder, target):
    """Write what the small model's codec leaves of a folder's clips."""
    target.mkdir()
    for path in sorted(folder.glob("*.wav")):
        audio, rate_hz = load_audio(path)
        sf.write(target / path.name, np.round(audio.T * 8) / 8, rate_hz, subtype="FLOAT")
    return target


def test_a_codec_matched_score_is_the_plain_one_against_references_after_the_codec(folders, tmp_path):
    reference, generated = folders
    coded = recode_by_hand(reference, tmp_path / "coded")
    fixed = MfccEncoder(RATE_HZ, measure_scale(read_clips(reference), RATE_HZ))  # the plain metric's scale
    made = {
        "mfcc20": fixed,
        "mmd/mfcc20": fixed,
        "mfcc20-seed": SeedMfccEncoder(),
        "encodec": EncodecEncoder(SmallModel()),
    }
    names = [f"{name}@codec" for name in made]
    scores = run(folders, *names)["scores"]
    assert [score["metric"] for score in scores] == names
    for score, (name, encoder) in zip(scores, made.items(), strict=True):
        expected = score_embeddings(
            parse_metric(name), encoder.embed(read_clips(generated)), encoder.embed(read_clips(coded))
        )
        assert (score["value"], score["se"], score["ci_low"]) == (
            expected.value,
            expected.se,
            expected.ci_low,
        )
        assert find_gaps(score) == []
        about = score["provenance"]
        assert about["reference_audio"].startswith("encoded and decoded by the music model's codec")
        assert ("scale is that of the plain metric" in about["reference_audio"]) == (encoder is fixed)
        assert about["reference_codec_hash"] == "0123"
        assert about["music_model"].startswith("small")


def test_plain_scores_are_the_same_next_to_codec_matched_ones(folders):
    plain = ("mfcc20-seed", "mfcc20", "encodec")
    alone = run(folders, *plain)
    together = run(folders, *(name for item in plain for name in (f"{item}@codec", item)))
    for kind in ("scores", "floors"):
        assert [item for item in together[kind] if item["metric"] in plain] == alone[kind]
    assert together["beside"] == alone["beside"]


def test_clips_that_are_the_references_after_the_codec_have_no_codec_matched_distance(folders, tmp_path):
    coded = recode_by_hand(folders[0], tmp_path / "coded")
    matched, plain = run((folders[0], coded), "mfcc20@codec", "mfcc20")["scores"]
    assert matched["value"] == pytest.approx(0.0, abs=1e-6)
    assert plain["value"] > 0.1


def test_real_music_passes_the_codec_on_both_sides_of_a_codec_matched_level(folders, tmp_path):
    coded = recode_by_hand(folders[0], tmp_path / "coded")
    [matched] = run(folders, "mfcc20-seed@codec")["floors"]
    [by_hand] = run((coded, folders[1]), "mfcc20-seed")["floors"]
    assert matched["value"] == by_hand["value"]


def test_references_after_the_codec_are_cached_apart_from_the_plain_ones(folders, tmp_path, monkeypatch):
    store = Store(tmp_path / "cache")
    metrics = "mfcc20-seed", "mfcc20-seed@codec"
    first = run(folders, *metrics, store=store)
    assert first == run(folders, *metrics)
    monkeypatch.setattr(SmallModel, "encode_audio", lambda *_: pytest.fail("encoded twice"))
    assert run(folders, *metrics, store=store) == first


def test_a_missing_encoder_or_model_leaves_codec_matched_metrics_unscored(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path))
    [plain, matched] = run(folders, "vggish", "vggish@codec")["unscored"]
    assert matched["reason"] == plain["reason"]

    def load_model(spec):
        raise ModelError("facebook/x: not on this machine")

    monkeypatch.setattr(models, "load_model", load_model)
    result = run(folders, "mfcc20-seed", "mfcc20-seed@codec")
    assert [score["metric"] for score in result["scores"]] == ["mfcc20-seed"]
    [gap] = result["unscored"]
    assert (gap["metric"], "facebook/x: not on this machine" in gap["reason"]) == ("mfcc20-seed@codec", True)


def test_long_files_of_another_rate_pass_the_codec_in_windows_at_the_models_rate(monkeypatch):
    monkeypatch.setattr(codec, "WINDOW_S", 0.25)
    model, lengths = SmallModel(), []
    monkeypatch.setattr(
        model, "encode_audio", lambda audio: lengths.append(audio.shape) or np.round(audio * 8)
    )
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 48_000)).astype(np.float32)
    [coded] = codec.recode(model, [AudioClip("long", "long", audio, 48_000)])
    assert (coded.audio.shape, coded.sample_rate_hz) == ((1, RATE_HZ), RATE_HZ)
    np.testing.assert_array_equal(
        coded.audio, np.round(resample(audio, 48_000, RATE_HZ).mean(0, keepdims=True) * 8) / 8
    )
    assert lengths == [(1, 1, 4000)] * 4
