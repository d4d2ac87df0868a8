"""The map of the tracks: principal components, and timbre that ignores level."""

from importlib import metadata

import numpy as np
import pytest
import soundfile
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from lora_bench.stages.dataset import track_map
from lora_bench.stages.dataset.recordings import SourceFile
from lora_bench.stages.dataset.track_map import compute_timbre, find_components, read_timbre
from lora_bench.store import Store

RATE_HZ = 22_050


def test_components_are_those_of_scikit_learn():
    values = (np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 9)).astype(np.float32)
    values[:, 1] += values[:, 0]
    scaled = StandardScaler().fit_transform(values.astype(np.float64))
    reference = PCA(2).fit(scaled)
    places, shares = find_components(values)
    assert np.abs(places) == pytest.approx(np.abs(reference.transform(scaled)), abs=1e-5)
    assert shares == pytest.approx(tuple(reference.explained_variance_ratio_), abs=1e-6)


def test_the_order_of_tracks_does_not_mirror_the_map():
    values = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    assert find_components(values[::-1])[0] == pytest.approx(find_components(values)[0][::-1], abs=1e-5)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_or_equal_tracks_have_places(n):
    values = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    places, shares = find_components(values if n else None)
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()
    assert shares == pytest.approx((1.0, 0.0) if n == 2 else (0.0, 0.0))
    places, shares = find_components(np.ones((4, 3), np.float32))
    assert not places.any()
    assert shares == (0.0, 0.0)


def test_timbre_is_that_of_the_sound_not_of_its_level():
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, 2 * RATE_HZ)).astype(np.float32)
    dull = np.cumsum(noise, axis=1) / 30
    loud = compute_timbre(noise, RATE_HZ)
    assert loud.shape == (38,)
    assert compute_timbre(noise / 4, RATE_HZ) == pytest.approx(loud, abs=0.5)
    assert np.abs(compute_timbre(dull, RATE_HZ) - loud).max() > 20


def test_a_sound_shorter_than_a_window_has_a_timbre():
    assert np.isfinite(compute_timbre(np.full((1, 100), 0.1, np.float32), 8000)).all()


def test_a_timbre_is_computed_again_with_another_resampler_or_librosa(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).normal(size=RATE_HZ).astype(np.float32) / 10
    soundfile.write(tmp_path / "a.wav", noise, RATE_HZ)
    file, store, calls = SourceFile(tmp_path / "a.wav"), Store(tmp_path / "cache"), []

    def compute(audio, rate_hz):
        calls.append(rate_hz)
        return np.zeros(38, np.float32)

    monkeypatch.setattr(track_map, "compute_timbre", compute)
    for _ in range(2):
        read_timbre(file, store)
    assert len(calls) == 1
    monkeypatch.setattr(track_map, "RESAMPLER", "another 1.0")
    read_timbre(file, store)
    assert len(calls) == 2
    version = metadata.version
    monkeypatch.setattr(track_map.metadata, "version", lambda name: f"{version(name)}.{name}")
    for _ in range(2):
        read_timbre(file, store)
    assert len(calls) == 3
