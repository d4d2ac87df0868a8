"""Encoders of other packages and commands: found, checked, blamed by name."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel

from lora_bench import plugins
from lora_bench.artifacts import AudioClip
from lora_bench.cli.main import main
from lora_bench.encoders import get_encoder
from lora_bench.errors import ScoreError, SpecError, UnscoredError
from lora_bench.metrics import names, parse_metric
from lora_bench.planning.plan import plan_experiment
from lora_bench.runner.freshness import inputs_key
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.stages.score import score_embeddings

ROOT = Path(__file__).parents[2]


class Level:
    """Mean and spread of the samples."""

    sample_rate_hz = 8000
    dim = 2

    class Settings(BaseModel):
        gain: float = 1.0

    def __init__(self, settings: Any, device: str) -> None:
        self.settings = settings
        self.provenance = {"device": device}

    def embed(self, audio: np.ndarray) -> np.ndarray:
        return self.settings.gain * np.stack([audio.mean(axis=1), audio.std(axis=1)], axis=1)


class WrongShape(Level):
    def embed(self, audio: np.ndarray) -> np.ndarray:
        return np.zeros((len(audio), 3))


class Fails(Level):
    def embed(self, audio: np.ndarray) -> np.ndarray:
        raise KeyError("no such layer")


class Greedy(Level):
    """Fits into memory with few clips."""

    def embed(self, audio: np.ndarray) -> np.ndarray:
        if len(audio) > self.settings.gain:
            raise MemoryError
        return super().embed(audio)


class NotFinite(Level):
    def embed(self, audio: np.ndarray) -> np.ndarray:
        return np.full((len(audio), 2), np.nan)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a package offers the classes above, one that cannot be imported, and one with a built-in name."""
    kinds = {"level": "Level", "wrong-shape": "WrongShape", "fails": "Fails", "not-finite": "NotFinite"}
    kinds["greedy"] = "Greedy"
    monkeypatch.setitem(sys.modules, "toy_package", SimpleNamespace(**globals()))
    group = plugins.group_of("encoders")
    points = [EntryPoint(name, f"toy_package:{kind}", group) for name, kind in kinds.items()]
    points += [
        EntryPoint("gone", "no_such_package:Thing", group),
        *(EntryPoint(name, "toy_package:Level", group) for name in ("mfcc20", "tempo", "musicnn")),
    ]
    points += [EntryPoint("../Bad Name", "toy_package:Level", group)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
    plugins.list_plugins.cache_clear()
    yield
    plugins.list_plugins.cache_clear()


def make_clips(n: int = 6, rate_hz: int = 16_000, seed: int = 0) -> list[AudioClip]:
    rng = np.random.default_rng(seed)
    return [
        AudioClip(
            f"c{index}",
            f"c{index}",
            rng.normal(size=(2, rate_hz + 100 * (index % 2))).astype(np.float32),
            rate_hz,
        )
        for index in range(n)
    ]


def make_spec(**changes: Any) -> ExperimentSpec:
    spec = {
        "schema": 1,
        "name": "t",
        "dataset": {"builtin": "chiptune"},
        "prompts": ["a"],
        "metrics": ["level"],
    }
    return ExperimentSpec.model_validate(spec | changes)


def test_a_plugin_is_a_metric_with_every_distance() -> None:
    assert parse_metric("level").encoder == "level"
    found = parse_metric("mmd/level@codec")
    assert (found.encoder, found.distance, found.codec_matched) == ("level", "mmd", True)


def test_batches_that_do_not_fit_into_memory_are_halved() -> None:
    clips = [AudioClip(str(n), str(n), np.full((1, 8000), n, np.float32), 8000) for n in range(5)]
    found = get_encoder("greedy", settings={"gain": 1.0}, device="cpu").embed(clips)
    assert found.values[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    with pytest.raises(
        UnscoredError, match=r"greedy: embedding a piece of a clip .* did not fit into the mem"
    ):
        get_encoder("greedy", settings={"gain": 0.0}, device="cpu").embed(clips)


def test_unknown_metrics_name_the_plugins() -> None:
    with pytest.raises(
        ValueError, match=r"unknown metric `levl`.*the plug-ins fails, gone, greedy, level, .*not-finite"
    ):
        parse_metric("levl")
    with pytest.raises(ValueError, match="unknown metric"):
        parse_metric("../Bad Name")


def test_a_plugin_cannot_take_a_built_in_name() -> None:
    assert type(get_encoder("tempo")).__name__ == "PluginEncoder"
    with pytest.raises(ScoreError, match="it needs the music model"):
        get_encoder("mfcc20")
    assert {"mfcc20", "tempo", "musicnn"}.isdisjoint(names.list_encoders())
    with pytest.raises(ValueError, match=r"encoders\.musicnn describes no plug-in"):
        make_spec(metrics=["musicnn"], encoders={"musicnn": {}})


def test_clips_are_mixed_resampled_and_embedded_in_order() -> None:
    clips = make_clips()
    found = get_encoder("level", settings={"gain": 2.0}).embed(clips)
    assert found.values.shape == (6, 2)
    assert found.clip_names == tuple(clip.name for clip in clips)
    one_by_one = [get_encoder("level", settings={"gain": 2.0}).embed([clip]).values[0] for clip in clips]
    np.testing.assert_allclose(found.values, one_by_one, rtol=1e-6)


def test_provenance_has_package_settings_and_what_the_plugin_says() -> None:
    found = get_encoder("level", settings={"gain": 2.0}).provenance
    assert found["encoder"] == "level"
    assert found["package"] == "toy_package:Level"
    assert found["settings"] == '{"gain":2.0}'
    assert found["device"] == "cpu"
    assert found["sample_rate_hz"] == 8000


def test_other_settings_are_another_measure() -> None:
    first, second = (get_encoder("level", settings={"gain": gain}).embed(make_clips()) for gain in (1.0, 2.0))
    with pytest.raises(ScoreError, match="settings"):
        score_embeddings(parse_metric("level"), first, second)


def test_scores_of_a_plugin_have_intervals() -> None:
    encoder = get_encoder("level")
    score = score_embeddings(
        parse_metric("level"), encoder.embed(make_clips(12)), encoder.embed(make_clips(12, seed=1))
    )
    assert score.ci_low is not None
    assert score.dim == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", r"gone: the plug-in of no_such_package:Thing cannot be loaded \(ModuleNotFoundError"),
        (
            "wrong-shape",
            r"returned an array of shape \(1, 3\) for 1 clips; expected \[1, 2\] or \[1, vectors, 2\]",
        ),
        ("fails", r"fails: the plug-in of toy_package:Fails failed \(KeyError: 'no such layer'\)"),
    ],
)
def test_a_broken_plugin_is_unscored_by_name(name: str, words: str) -> None:
    with pytest.raises(UnscoredError, match=words):
        get_encoder(name).embed(make_clips(1))


def test_vectors_that_are_not_finite_name_the_clip() -> None:
    with pytest.raises(ScoreError, match="clip c0: its embedding is not finite"):
        get_encoder("not-finite").embed(make_clips(1))


def test_wrong_settings_are_an_error_of_the_spec() -> None:
    with pytest.raises(
        SpecError, match=r"encoders\.level\.gain: input should be a valid number.*expected the settings"
    ):
        get_encoder("level", settings={"gain": "loud"})
    with pytest.raises(SpecError, match=r"encoders\.tempo\.gain: extra inputs are not permitted.*none"):
        get_encoder("tempo", settings={"gain": 1})


def test_settings_reach_the_trials_and_change_what_they_were_finished_for() -> None:
    plain = plan_experiment(make_spec())
    louder = plan_experiment(make_spec(encoders={"level": {"gain": 2.0}}))
    assert [trial.id for trial in plain.trials] == [trial.id for trial in louder.trials]
    assert louder.trials[0].encoders == {"level": {"gain": 2.0}}
    assert inputs_key(plain.trials[0]) != inputs_key(louder.trials[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoders": {"fails": {}}}, "encoders.fails describes no plug-in or command that `metrics` names"),
        (
            {"encoders": {"encodec": {}}, "metrics": ["encodec"]},
            "encoders.encodec describes no plug-in or command",
        ),
        (
            {"metrics": ["command.mine"]},
            "metrics has `command.mine`, but nothing says how to call it; add `encoders:",
        ),
    ],
)
def test_settings_that_fit_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="encoders") as error:
        make_spec(**changes)
    assert words in str(error.value)


SCRIPT = """
import json, sys
import jsonschema
import numpy as np
import soundfile

task = json.load(open(sys.argv[-1]))
arrays = {}
for index, clip in enumerate(task["clips"]):
    audio, rate = soundfile.read(clip)
    assert rate == task["sample_rate_hz"] == 12000
    arrays[str(index)] = BODY
np.savez(task["output"], **arrays)
"""


def make_command(folder: Path, body: str) -> dict[str, Any]:
    script = folder / "embed it.py"
    script.write_text(SCRIPT.replace("BODY", body), encoding="utf-8")
    return {"run": f"'{sys.executable}' '{script}'", "dim": 2, "sample_rate_hz": 12_000}


def test_a_command_embeds_clips(tmp_path: Path) -> None:
    settings = make_command(tmp_path, "np.array([[audio.mean(), audio.std()]] * 3)")
    found = get_encoder("command.mine", settings=settings).embed(make_clips(5))
    assert found.values.shape == (15, 2)
    assert found.provenance["encoder"] == "command.mine"
    assert found.values[:, 1].min() > 0.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("np.zeros(3)", r"shape \(.*3\)"),
        ("1 / 0", r"ended with exit code 1 \(.*ZeroDivisionError"),
        ("np.array([{}], dtype=object)", "allow_pickle|object"),
    ],
)
def test_a_command_that_fails_is_unscored_with_its_last_words(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(UnscoredError, match=words):
        get_encoder("command.mine", settings=make_command(tmp_path, body)).embed(make_clips(1))


def test_a_command_that_does_not_exist_is_unscored(tmp_path: Path) -> None:
    settings = {"run": str(tmp_path / "nothing"), "dim": 2, "sample_rate_hz": 12_000}
    with pytest.raises(UnscoredError, match=r"nothing` cannot be started \(No such file.*expected a program"):
        get_encoder("command.mine", settings=settings).embed(make_clips(1))


def test_the_json_schema_of_a_machine_with_plugins_knows_their_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schema"]) == 0
    check = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    base = {"schema": 1, "dataset": {"builtin": "chiptune"}, "prompts": ["a"]}
    for metrics, encoders, is_valid in (
        (["mmd/level@codec"], {"level": {"gain": 2.0}}, True),
        (["levle"], {}, False),
        (["level"], {"level": {"gain": "loud"}}, False),
        (["level"], {"nothing": {}}, False),
        (["gone"], {"gone": {"anything": 1}}, True),
        (["command.x"], {"command.x": {"run": "x", "dim": 2, "sample_rate_hz": 8000}}, True),
        (["command.x"], {"command.x": {"run": "x"}}, False),
    ):
        found = list(check.iter_errors({**base, "metrics": metrics, "encoders": encoders}))
        assert (not found) == is_valid, (metrics, found)
