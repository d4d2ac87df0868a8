"""MFCC encoders against librosa, scikit-learn and scipy used by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import soundfile as sf
from sklearn.preprocessing import StandardScaler
from support.sounds import make_tone, make_tones

from lora_bench.artifacts import AudioClip
from lora_bench.audio import load_audio
from lora_bench.audio.librosa_import import load_librosa
from lora_bench.encoders.mfcc import MfccEncoder, SeedMfccEncoder, measure_scale
from lora_bench.errors import ScoreError
from lora_bench.metrics import parse_metric
from lora_bench.stages.score import score_embeddings

librosa = load_librosa()


def seed_frames(path):
    """The published computation for one file, written with librosa and scikit-learn only."""
    audio, rate_hz = librosa.load(path, sr=None, mono=True)
    return StandardScaler().fit_transform(librosa.feature.mfcc(y=audio, sr=rate_hz, n_mfcc=20))


def seed_distance(reference, generated):
    """The published distance: frames side by side, mean, covariance, `sqrtm`."""
    a, b = (np.hstack([seed_frames(path) for path in side]) for side in (reference, generated))
    gap = a.mean(axis=1) - b.mean(axis=1)
    cov_a, cov_b = np.cov(a), np.cov(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    if not np.isfinite(root).all():
        offset = np.eye(20) * 1e-6
        root = scipy.linalg.sqrtm((cov_a + offset) @ (cov_b + offset))
    return float(gap @ gap + np.trace(cov_a + cov_b - 2 * root.real))


def write_files(folder, clips):
    folder.mkdir()
    for clip in clips:
        sf.write(folder / f"{clip.name}.wav", clip.audio.T, clip.sample_rate_hz)
    return sorted(folder.iterdir())


def read_clips(paths):
    for path in paths:
        audio, rate_hz = load_audio(path)
        yield AudioClip(path.stem, path.stem, audio, rate_hz)


def test_seed_distance_agrees_with_an_independent_computation_to_four_decimals(tmp_path):
    # different rates and channel counts on purpose: the metric reads each file as it is
    reference = write_files(tmp_path / "a", [*make_tones(4), make_tone("stereo", rate_hz=22_050, channels=2)])
    generated = write_files(tmp_path / "b", make_tones(5, rate_hz=32_000, seed=7))
    encoder = SeedMfccEncoder()
    score = score_embeddings(
        parse_metric("mfcc20-seed"),
        encoder.embed(read_clips(generated)),
        encoder.embed(read_clips(reference)),
    )
    expected = seed_distance(reference, generated)
    assert expected > 0.01
    assert score.value == pytest.approx(expected, abs=5e-5)
    assert score.provenance["generated_file_rates_hz"] == "32000"
    assert score.provenance["reference_file_rates_hz"] == "16000, 22050"


def test_seed_frames_have_mean_zero_and_unit_spread_each():
    values = SeedMfccEncoder().embed(make_tones(2)).values
    assert values.shape[1] == 20
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=1e-4)


def test_seed_metric_does_not_hear_loudness_and_the_fixed_scale_does():
    clip = make_tone("a")
    quiet = dataclasses.replace(clip, audio=clip.audio * np.float32(0.1))
    seed, fixed = SeedMfccEncoder(), MfccEncoder(16_000, measure_scale([clip], 16_000))
    # the first coefficient moves with loudness, so "nearly": the gap is a fraction of the fixed scale's
    gaps = [
        float(np.linalg.norm(e.embed([clip]).values.mean(0) - e.embed([quiet]).values.mean(0)))
        for e in (seed, fixed)
    ]
    assert gaps[0] < 0.2 * gaps[1]


def test_clip_index_counts_frames_of_every_clip_in_order():
    embeddings = SeedMfccEncoder().embed([make_tone("a", seconds=1.0), make_tone("b", seconds=0.5)])
    assert embeddings.clip_names == ("a", "b")
    assert embeddings.groups == ("a", "b")
    assert np.bincount(embeddings.clip_index).tolist() == [1 + 16_000 // 512, 1 + 8_000 // 512]
    assert (np.diff(embeddings.clip_index) >= 0).all()


def test_fixed_scale_is_the_spread_over_all_frames_and_is_applied_to_others():
    fit, other = make_tones(3), make_tones(2, seed=5)
    raw = np.hstack([librosa.feature.mfcc(y=c.audio[0], sr=16_000, n_mfcc=20) for c in fit])
    encoder = MfccEncoder(16_000)
    encoder.fit_scale(fit)
    np.testing.assert_allclose(encoder.fitted_scale.values, raw.std(axis=1, dtype=np.float64), rtol=1e-4)
    expected = librosa.feature.mfcc(y=other[1].audio[0], sr=16_000, n_mfcc=20).T / raw.std(axis=1)
    np.testing.assert_allclose(encoder.embed(other[1:]).values, expected, rtol=1e-3, atol=1e-3)


def test_fixed_scale_resamples_to_its_own_rate():
    encoder = MfccEncoder(16_000, measure_scale(make_tones(2), 16_000))
    assert len(encoder.embed([make_tone("a", rate_hz=32_000)]).values) == 1 + 16_000 // 512


def test_constant_coefficients_are_left_as_they_are():
    silence = AudioClip("silence", "silence", np.zeros((1, 16_000), np.float32), 16_000)
    scale = measure_scale([silence], 16_000)
    assert scale.values == (1.0,) * 20
    assert np.isfinite(MfccEncoder(16_000, scale).embed([silence]).values).all()
    assert np.isfinite(SeedMfccEncoder().embed([silence]).values).all()


def test_provenance_tells_two_fits_apart():
    first, second = (MfccEncoder(16_000, measure_scale(make_tones(n), 16_000)) for n in (1, 3))
    assert first.provenance != second.provenance
    assert first.provenance == MfccEncoder(16_000, measure_scale(make_tones(1), 16_000)).provenance


def test_embedding_before_the_fit_is_refused():
    with pytest.raises(ScoreError, match=r"mfcc20: its scale is not fitted; call `fit_scale`"):
        MfccEncoder(16_000).embed(make_tones(1))


def test_fit_on_nothing_is_refused():
    with pytest.raises(ScoreError, match="no clips to fit"):
        MfccEncoder(16_000).fit_scale([])
