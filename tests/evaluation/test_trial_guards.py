"""Guards of a trial: copies are found, control rows are there, and what cannot be had says why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_bench.artifacts import AudioClip, AudioFormat, Embeddings, Manifest, Track
from lora_bench.errors import ScoreError
from lora_bench.evaluation.trial_guards import DatasetSide, PromptClips, measure_guards
from lora_bench.metrics.manifold import measure_manifold
from lora_bench.models.token_set import TokenSet
from lora_bench.store import Store

RATE_HZ = 16_000
FRAME_RATE_HZ = 50.0
CLIP_S = 3.0


def make_tune(seconds, seed):
    """A melody of random notes, a quarter of a second each."""
    rng = np.random.default_rng(seed)
    n = RATE_HZ // 4
    t = np.arange(n) / RATE_HZ
    notes = [np.sin(2 * np.pi * rng.uniform(150, 2000) * t) * np.exp(-6 * t) for _ in range(int(seconds * 4))]
    audio = 0.4 * np.concatenate(notes) + rng.normal(0, 0.003, n * len(notes))
    return audio[None].astype(np.float32)


def make_codes(n, seed):
    return np.random.default_rng(seed).integers(0, 1024, size=(2, n)).astype(np.int16)


def wrap(values):
    names = tuple(f"{i:03d}" for i in range(len(values)))
    return Embeddings(np.asarray(values), np.arange(len(values)), names, names, {"encoder": "mfcc20"})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetSide, Store]:
    """Two training tracks, two held-out ones, and their codes."""
    folder = tmp_path_factory.mktemp("data")
    tracks = []
    for number, split in enumerate(("train", "train", "eval", "eval")):
        np.save(folder / f"{number}.npy", make_tune(9.0, number))
        tracks.append(Track(f"id{number}", f"{number}.wav", folder / f"{number}.npy", "chip", split, 9.0))
    manifest = Manifest("key", "tunes", folder, AudioFormat(RATE_HZ, 1), 9.0, tuple(tracks), (), (), "none")
    n_frames = int(9 * FRAME_RATE_HZ)
    tokens = TokenSet(
        key="tokens",
        codes=np.stack([make_codes(n_frames, number) for number in range(4)]),
        valid_frames=np.full(4, n_frames),
        splits=tuple(track.split for track in tracks),
        track_ids=tuple(track.id for track in tracks),
        caption_index=np.zeros(4, dtype=np.int64),
        captions=("chip",),
        text_states=(),
        slice_s=9.0,
    )
    references = {"mfcc20": wrap(np.random.default_rng(9).normal(size=(6, 4)))}
    return DatasetSide(manifest, tokens, FRAME_RATE_HZ, CLIP_S, references), Store(folder / "cache")


def make_prompt(folder: Path, sounds, codes, adherence="no weights here") -> PromptClips:
    files = tuple(folder / f"{i:03d}.npy" for i in range(len(sounds)))
    for file, part in zip(files, codes, strict=True):
        if part is not None:
            np.save(file, part)
    clips = [
        AudioClip(file.stem, file.stem, sound, RATE_HZ) for file, sound in zip(files, sounds, strict=True)
    ]
    means = {"mfcc20": wrap(np.random.default_rng(1).normal(size=(len(sounds), 4)))}
    return PromptClips(iter(clips), files, means, adherence)


def measure(trial: str, prompts: dict[str, PromptClips], side: DatasetSide, store: Store):
    """The records as they are written."""
    return [record.to_json() for record in measure_guards(trial, prompts, side, store)]


def fresh(n=4, seed=100):
    return [make_tune(CLIP_S, seed + i) for i in range(n)], [make_codes(150, seed + i) for i in range(n)]


def copies(dataset: DatasetSide, n=4):
    """Excerpts of the first training track at odd places, quieter."""
    track = np.load(dataset.manifest.tracks[0].audio)
    starts = [RATE_HZ * i + 333 for i in range(n)]
    sounds = [0.3 * track[:, start : start + int(CLIP_S * RATE_HZ)] for start in starts]
    return sounds, [dataset.tokens.codes[0][:, 20 * i : 20 * i + 150] for i in range(n)]


def test_copies_are_told_from_fresh_music_by_sound_and_by_code(dataset, tmp_path: Path) -> None:
    side, store = dataset
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    prompts = {
        "own": make_prompt(tmp_path / "a", *fresh()),
        "copied": make_prompt(tmp_path / "b", *copies(side)),
    }
    control, own, copied, pooled = measure("t-1", prompts, side, store)
    assert (control["trial"], control["set"], control["n_clips"]) == (None, "held-out recordings", 6)
    assert [(r["trial"], r["prompt"], r["n_clips"]) for r in (own, copied, pooled)] == [
        ("t-1", "own", 4), ("t-1", "copied", 4), ("t-1", None, 8),
    ]  # fmt: skip
    assert copied["copy_similarity"] > 0.9 > own["copy_similarity_max"]
    assert copied["closer_than_held_out_frac"] == 1.0
    assert copied["nearest_copy"].split(": ")[1].startswith("0.wav at ")
    assert re.match(r"\d\.wav, excerpt \d: \d\.wav at ", control["nearest_copy"])
    assert copied["code_match"] == 1.0
    assert copied["partial_code_copies_frac"] == 1.0
    assert own["code_match_max"] < 0.2
    assert own["partial_code_copies_frac"] == control["partial_code_copies_frac"] == 0.0
    assert pooled["partial_code_copies_frac"] == 0.5
    assert pooled["silent_seconds_frac"] == 0.0


def test_every_record_has_provenance_and_is_json(dataset, tmp_path: Path) -> None:
    side, store = dataset
    for record in measure("t", {"p": make_prompt(tmp_path, *fresh(2))}, side, store):
        about = record["provenance"]
        assert about["dataset"] == "key"
        assert about["tokens"] == "tokens"
        assert about["control_n_clips"] == 6
        assert about["mel_resampler"].startswith("soxr")
        assert about["silence_dbfs"] == -60.0


def test_silence_and_loops_are_seen(dataset, tmp_path: Path) -> None:
    side, store = dataset
    bar = make_tune(1.0, 5)
    sounds = [np.zeros((1, 48_000), np.float32), np.tile(bar, (1, 3))]
    _, record, _ = measure("t", {"p": make_prompt(tmp_path, sounds, fresh(2)[1])}, side, store)
    assert record["silent_clips_frac"] == 0.5
    assert record["silent_seconds_frac"] == 0.5
    assert record["repetition"] > 0.9


def test_clips_without_kept_codes_are_unscored_with_the_way_out(dataset, tmp_path: Path) -> None:
    side, store = dataset
    sounds, codes = fresh(3)
    made = make_prompt(tmp_path, sounds, [codes[0], None, None])
    _, record, pooled = measure("t", {"p": made}, side, store)
    for found in (record, pooled):
        assert "code_match" not in found
        assert "2 of 3 clips (the first is 001)" in found["unscored"]["copies in the codes"]
    assert "copy_similarity" in record


def test_damaged_codes_fail_by_name(dataset, tmp_path: Path) -> None:
    side, store = dataset
    made = make_prompt(tmp_path, *fresh(2))
    (tmp_path / "001.npy").write_bytes(b"nothing")
    with pytest.raises(ScoreError, match=r"001\.npy: damaged codes"):
        measure("t", {"p": made}, side, store)


def test_clips_below_two_seconds_have_no_sound_guards_but_the_others(dataset, tmp_path: Path) -> None:
    side, store = dataset
    sounds = [make_tune(1.0, i) for i in range(2)]
    _, record, _ = measure("t", {"p": make_prompt(tmp_path, sounds, fresh(2)[1])}, side, store)
    assert "repetition" not in record
    assert "at least 2 s" in record["unscored"]["silence and repetition"]
    assert record["diversity"]["mfcc20"] > 0.0
    assert "code_match" in record


def test_adherence_is_the_mean_with_its_error_or_the_reason(dataset, tmp_path: Path) -> None:
    side, store = dataset
    sounds, codes = fresh(3)
    (tmp_path / "a").mkdir()
    prompts = {
        "p": make_prompt(tmp_path, sounds, codes, np.array([0.1, 0.2, 0.3])),
        "q": make_prompt(tmp_path / "a", sounds, codes, np.array([0.5, 0.5, 0.5])),
    }
    _, one, other, pooled = measure("t", prompts, side, store)
    assert (one["adherence"], one["adherence_se"]) == pytest.approx((0.2, 0.1 / np.sqrt(3)))
    assert (other["adherence"], other["adherence_se"]) == (0.5, 0.0)
    assert (pooled["adherence"], pooled["adherence_se"]) == pytest.approx((0.35, 0.1 / np.sqrt(3) / 2))
    _, record, _ = measure("t", {"p": make_prompt(tmp_path, sounds, codes)}, side, store)
    assert record["unscored"]["prompt adherence"] == "no weights here"
    assert "adherence" not in record


def test_recall_and_coverage_of_all_prompts_leave_off_genre_clips_out(dataset, tmp_path: Path) -> None:
    side, store = dataset
    rng = np.random.default_rng(4)
    side = replace(side, references={"mfcc20": wrap(rng.normal(size=(40, 4)))})
    (tmp_path / "a").mkdir()
    prompts = {
        "own": make_prompt(tmp_path, *fresh(2)),
        "other": replace(make_prompt(tmp_path / "a", *fresh(2)), off_genre=True),
    }
    vectors = {"own": rng.normal(size=(8, 4)), "other": rng.normal(size=(8, 4)) + 1.0}
    prompts = {name: replace(one, means={"mfcc20": wrap(vectors[name])}) for name, one in prompts.items()}
    control, own, other, pooled = measure("t", prompts, side, store)
    for record, name in ((own, "own"), (other, "other"), (pooled, "own")):
        expected = measure_manifold(vectors[name], side.references["mfcc20"].values)
        assert record["recall"] == {"mfcc20": expected.recall}
        assert record["coverage"] == {"mfcc20": expected.coverage}
    assert own["coverage"] != other["coverage"]
    assert 0.0 < control["coverage"]["mfcc20"] < 1.0  # not of the recordings against themselves


def test_too_few_clips_for_recall_leave_diversity(dataset, tmp_path: Path) -> None:
    side, store = dataset
    _, record, pooled = measure("t", {"p": make_prompt(tmp_path, *fresh(3))}, side, store)
    for found in (record, pooled):
        assert (found["recall"], found["coverage"]) == ({}, {})
        assert "3 generated and 6 reference points" in found["unscored"]["recall and coverage (mfcc20)"]
        assert found["diversity"]["mfcc20"] > 0.0


def test_features_of_the_training_side_are_made_once(dataset, tmp_path: Path) -> None:
    side, store = dataset
    measure("t", {"p": make_prompt(tmp_path, *fresh(2))}, side, store)
    [place] = [path for path in (store.root / "guard_frames").iterdir() if path.is_dir()]
    stamp = (place / "frames.npz").stat().st_mtime_ns
    measure("t", {"p": make_prompt(tmp_path, *fresh(2))}, side, store)
    assert (place / "frames.npz").stat().st_mtime_ns == stamp
