"""Listening to an adapter: the run's own clip again, its twin, strengths between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.melodies import save_melodies
from support.melody_model import save_random_melody
from support.tiny_run import PROMPT, TinyRun

from benchmarks.random_model import TINY
from lora_bench.adapters.render import ClipRequest, render_pair
from lora_bench.cli.main import main
from lora_bench.models import load_model
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.stages.generate import generate_clips


def render(run: TinyRun, name: str, file: Path, **request: float) -> tuple[np.ndarray, np.ndarray]:
    trial = run.trial(name)
    made = render_pair(trial, [run.adapter(name)], ClipRequest(PROMPT, **request), file, SilentProgress())
    return tuple(soundfile.read(path, dtype="int16")[0] for path in made)


@pytest.mark.parametrize("name", ["plain", "dora"])
def test_full_strength_is_the_clip_of_the_run_and_the_twin_that_of_zero_shot(
    tiny_run: TinyRun, tmp_path: Path, name: str
) -> None:
    trial = tiny_run.trial(name)
    model = load_model(trial.model, device="cpu")
    clips = generate_clips(model, PROMPT, trial.generation, tmp_path / "zero-shot", SilentProgress())
    expected_twin = soundfile.read(clips.files[1], dtype="int16")[0]
    model.load_adapter(tiny_run.adapter(name))
    clips = generate_clips(model, PROMPT, trial.generation, tmp_path / "tuned", SilentProgress())
    expected = soundfile.read(clips.files[1], dtype="int16")[0]
    clip, twin = render(tiny_run, name, tmp_path / "clip.wav", clip=1)
    assert np.array_equal(clip, expected)
    assert np.array_equal(twin, expected_twin)
    assert not np.array_equal(clip, twin)


def test_the_strength_is_that_of_the_trial_unless_stated(tiny_run: TinyRun, tmp_path: Path) -> None:
    trial, adapters = tiny_run.trial("plain"), [tiny_run.adapter("plain")]
    half = trial.generation.model_copy(update={"adapter_scale": 0.5})
    trial = trial.model_copy(update={"generation": half})
    for name, scale in (("own", None), ("half", 0.5), ("full", 1.0)):
        render_pair(
            trial, adapters, ClipRequest(PROMPT, scale=scale), tmp_path / f"{name}.wav", SilentProgress()
        )
    own, stated, full = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("own", "half", "full"))
    assert np.array_equal(own, stated)
    assert not np.array_equal(own, full)


def test_flac_holds_the_same_samples_as_wav(tiny_run: TinyRun, tmp_path: Path) -> None:
    wav = render(tiny_run, "plain", tmp_path / "a.wav", duration_s=0.3)
    flac = render(tiny_run, "plain", tmp_path / "a.flac", duration_s=0.3)
    assert all(np.array_equal(one, other) for one, other in zip(wav, flac, strict=True))
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    assert len(wav[0]) == round(0.3 * 1600)


def test_another_seed_is_another_clip(tiny_run: TinyRun, tmp_path: Path) -> None:
    one = render(tiny_run, "plain", tmp_path / "a.wav")
    other = render(tiny_run, "plain", tmp_path / "b.wav", seed=7)
    assert not np.array_equal(one[0], other[0])


def test_the_command_takes_the_best_trial_and_names_both_files(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "generate",
        str(tiny_run.folder),
        "--prompt",
        "<b>행진곡</b> !",
        "--seconds",
        "0.2",
        "--adapter-scale",
        "0.5",
    ]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["plain-b-b-f275495b.wav", "plain-b-b-f275495b.zero-shot.wav"]
    assert (
        "best on mfcc20 of 2 trained, by the tracks that score it: plain, 0.4000 (95 % 0.380 to 0.420); the score is "
        "optimistic, because the tracks that score it also chose it"
    ) in captured.err
    assert main(command) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*command, "--force", "--quiet", "--metric", "clap_score"]) == 0
    assert capsys.readouterr().out.startswith("dora-b-b-f275495b.wav")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--adapter-scale", "15"],
            "--adapter-scale 15: expected 0 (the base model) to 10; 1 is the adapter as trained",
        ),
        (["--adapter-scale", "nan"], "--adapter-scale nan"),
        (["--seconds", "100"], "--seconds 100: expected more than 0 and at most 5 s"),
        (["--seconds", "-1"], "--seconds -1"),
        (["--to", "x.mp3"], "expected a name that ends in .wav or .flac"),
        (["--to", "no/such/x.wav"], "the folder no/such does not exist"),
        (["--trial", "zero-shot"], "has no adapter, it is the base model; trials with one: plain, dora"),
        (["--trial", "failed"], "has no adapter, it is failed"),
        (["--trial", "nope"], "has no such trial; expected `best` or one of plain, dora"),
        (["--metric", "vggish"], "was not measured in this run; measured: mfcc20, clap_score"),
        (["--prompt", "  "], "--prompt: 0 characters"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(
    tiny_run: TinyRun,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(tiny_run.folder), "--prompt", "x", *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path), "--prompt", "x"]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


def test_a_clip_follows_the_melody_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_random_melody(tmp_path / "model", TINY)
    model = load_model(ModelSpec(id=str(folder)), device="cpu")
    model.inject_lora(LoraSpec(rank=2, targets="self_attention"), seed=0)
    model.save_adapter(tmp_path / "adapter")
    (tmp_path / "tunes").mkdir()
    tunes = save_melodies(tmp_path / "tunes")
    command = ["generate", "--adapter", str(tmp_path / "adapter"), "--model", str(folder), "--seconds", "0.5"]
    command += ["--prompt", PROMPT, "--quiet"]
    choices = {
        "none": [],
        "file": ["--melody", str(tunes / "b.flac"), "--clip", "0"],
        "folder": ["--melody", str(tunes), "--clip", "1"],
        "other": ["--melody", str(tunes / "a.wav"), "--clip", "1"],
        "alone": ["--melody", str(tunes / "b.flac"), "--clip", "1"],
    }
    clips: dict[str, np.ndarray] = {}
    for name, options in choices.items():
        assert main([*command, *options, "--to", str(tmp_path / f"{name}.wav")]) == 0
        clips[name] = soundfile.read(tmp_path / f"{name}.wav", dtype="int16")[0]
    assert np.array_equal(clips["folder"], clips["alone"])
    for name in ("none", "file", "other"):
        assert not np.array_equal(clips["folder"], clips[name])
    capsys.readouterr()
    assert main([*command, "--melody", str(tmp_path / "gone"), "--to", str(tmp_path / "x.wav")]) == 2
    assert (
        f"--melody {tmp_path}/gone: does not exist; expected a folder of melodies or one audio file"
        in capsys.readouterr().err
    )


def test_a_model_without_melodies_refuses_one(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tunes").mkdir()
    tunes = save_melodies(tmp_path / "tunes")
    adapter, model = str(tiny_run.adapter("plain")), tiny_run.trial("plain").model.id
    command = ["generate", "--adapter", adapter, "--model", model, "--prompt", PROMPT, "--quiet"]
    assert main([*command, "--melody", str(tunes), "--to", str(tmp_path / "x.wav")]) == 1
    assert (
        "follows no melodies; use a melody model such as facebook/musicgen-melody" in capsys.readouterr().err
    )
