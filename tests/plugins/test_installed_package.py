"""The package of the documentation, installed: each kind of plug-in, in library calls and in a whole run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import yaml
from support import ROOT
from support.installed_package import build_package, read_documented_package

from lora_bench.artifacts import AudioFormat
from lora_bench.cli.main import main
from lora_bench.plugins import KINDS, list_plugins
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import DatasetSpec
from lora_bench.stages.dataset import prepare_dataset
from lora_bench.store import Store

PROJECT, CODE, SPEC = read_documented_package()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(PROJECT, CODE, tmp_path_factory.mktemp("package"))


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package as one of this process."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    list_plugins.cache_clear()
    yield site
    sys.modules.pop("my_package", None)
    list_plugins.cache_clear()


def write_tones(folder: Path, seed: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(6):
        tone = np.sin(2 * np.pi * rng.uniform(200.0, 2000.0) * np.arange(16_000) / 16_000)
        soundfile.write(folder / f"{index}.wav", 0.3 * tone + 0.01 * rng.normal(size=16_000), 16_000)


@pytest.mark.slow
def test_folders_are_scored_by_the_encoder_and_the_distance_in_a_process_of_its_own(
    site: Path, tmp_path: Path
) -> None:
    for name, seed in (("music", 0), ("clips", 1)):
        write_tones(tmp_path / name, seed)
    command = ["score", "--reference", "music", "--generated", "clips", "--json"]
    command += [
        f"--metric={metric}"
        for metric in ("spectrum", "mmd/spectrum", "energy/spectrum", "energy/mfcc20-seed", "mfcc20-seed")
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "lora_bench", *command],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    scores = {score["metric"]: score for score in json.loads(ended.stdout)["scores"]}
    assert scores.keys() == {
        "spectrum", "mmd/spectrum", "energy/spectrum", "energy/mfcc20-seed", "mfcc20-seed"
    }  # fmt: skip
    assert scores["spectrum"]["provenance"]["package"] == "my-package 1.0"
    found = scores["energy/spectrum"]
    assert found["ci_low"] < found["corrected"] < found["ci_high"]
    assert found["provenance"]["distance_package"] == "my-package 1.0"
    assert found["provenance"]["distance_settings"] == '{"power":1.0}'


def test_tracks_and_captions_come_from_the_package_once(installed: Path, tmp_path: Path) -> None:
    import my_package

    stated = yaml.safe_load(SPEC)["dataset"]
    spec = DatasetSpec.model_validate({**stated, "path": Path(stated["path"]), "clip_s": 1.0})
    store = Store(tmp_path / ".cache")
    manifest = prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress())
    assert manifest.name == "tones"
    assert len(manifest.tracks) == 8
    by_source = {track.source: track for track in manifest.tracks}
    assert by_source["tone-0.wav"].caption == "pitch 0, a quiet track"
    assert by_source["tone-7.wav"].caption == "pitch 7, a loud track"
    assert by_source["tone-7.wav"].caption_origins["caption"] == "captioner level-words, my-package 1.0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(my_package.Tones, "tracks", lambda self: 1 / 0)
        patch.setattr(my_package.LevelWords, "caption", lambda self, tracks: 1 / 0)
        again = prepare_dataset(spec, AudioFormat(16_000, 1), store, SilentProgress())
    assert again == manifest


def test_doctor_and_the_schema_know_every_kind(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lora_bench.cli.commands.doctor import look_at_plugins

    found = {(item.topic, item.name): item for item in look_at_plugins()}
    for kind, name in (("distances", "energy"), ("captioners", "level-words"), ("sources", "tones")):
        assert found[kind, name].ok
        assert found[kind, name].detail == "my-package 1.0"
    assert main(["schema"]) == 0
    check = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    base = {"schema": 1, "prompts": ["a"], **yaml.safe_load(SPEC)}
    assert not list(check.iter_errors(base))
    for path, wrong in (
        (("distances", "energy", "power"), "high"),
        (("dataset", "source_settings"), {"n": "many"}),
        (("encoders", "spectrum", "floor_db"), "low"),
        (("metrics",), ["energi/mfcc20"]),
        (("metrics",), ["energy"]),
    ):
        document: Any = json.loads(json.dumps(base))
        place = document
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = wrong
        assert list(check.iter_errors(document)), path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_uses_all_kinds_and_compares_by_the_distance(site: Path, tmp_path: Path) -> None:
    spec = {
        "schema": 1,
        "name": "plugged",
        "model": {"id": "pocket"},
        "prompts": ["a quiet track"],
        "generation": {"n_clips": 4, "clip_s": 1},
        "defaults": {"lora": {"rank": 2}, "train": {"steps": 2, "batch_size": 2}},
        "trials": {"variants": [{"name": "r2"}]},
        "verdict": {"metric": "energy/spectrum"},
        **yaml.safe_load(SPEC),
    }
    spec["dataset"] |= {"clip_s": 1, "split": {"eval_frac": 0.5}}
    (tmp_path / "plugged.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "lora_bench", "run", "plugged.yaml"],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = json.loads((tmp_path / "runs" / "plugged" / "results.json").read_text(encoding="utf-8"))
    contrasts = [item for item in results["contrasts"] if item["metric"] == "energy/spectrum"]
    assert contrasts
    for item in contrasts:
        assert item["ci_low"] < item["delta"] < item["ci_high"]
    scores = [score for trial in results["trials"] for score in trial["scores"]]
    by_energy = [score["provenance"] for score in scores if score["metric"] == "energy/spectrum"]
    assert {one["distance_settings"] for one in by_energy} == {'{"power":1.5}'}
    assert any(item["primary"] and item["verdict"] for item in contrasts)
    assert any(floor["metric"] == "energy/spectrum" for floor in results["floors"])


def test_the_documented_package_has_every_kind(installed: Path) -> None:
    offered = {
        kind for kind in KINDS for found in list_plugins(kind).values() if "my-package" in found.package
    }
    assert offered == set(KINDS)
