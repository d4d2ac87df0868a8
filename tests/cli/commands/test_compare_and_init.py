"""`compare` on runs and trials with embeddings, and `init` on folders of audio."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_bench.artifacts import Embeddings, Score
from lora_bench.cli.commands.init import choose_clip_s, choose_eval_frac
from lora_bench.cli.main import main
from lora_bench.metrics import parse_metric
from lora_bench.metrics.contrast import subtract
from lora_bench.planning.plan import plan_experiment
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.results.gather import gather_results
from lora_bench.spec import ExperimentSpec, load_spec
from lora_bench.stages.embed import load_embeddings, save_embeddings
from lora_bench.stages.score import replicate_score
from lora_bench.store import write_json

METRIC = "mfcc20-seed"
PROMPTS = ["one", "two"]


def make_embeddings(n: int, shift: float, seed: int, prefix: str = "") -> Embeddings:
    """Invented vectors, one per clip."""
    values = np.random.default_rng(seed).normal(shift, 1.0, (n, 3)).astype(np.float32)
    names = tuple(f"{prefix}{index:03d}" for index in range(n))
    return Embeddings(values, np.arange(n), names, names, {"encoder": METRIC})


def write_run(folder: Path, shifts: dict[str, float], *, seed: int = 0, references: int = 99) -> Path:
    """A finished run with a trial per name, its clips' embeddings and its references."""
    variants = [{"name": name, "lora": {"rank": 2 + place}} for place, name in enumerate(shifts)]
    spec = {
        "schema": 1, "name": folder.name, "dataset": {"builtin": "chiptune"}, "prompts": PROMPTS, "metrics": [METRIC],
        "generation": {"n_clips": 12, "clip_s": 1.0, "seed": seed}, "trials": {"variants": variants},
    }  # fmt: skip
    plan = plan_experiment(ExperimentSpec.model_validate(spec))
    write_json(folder / "plan.json", plan)
    save_embeddings(make_embeddings(20, 0.0, references, "r"), folder / "reference_embeddings" / "x.npz")
    for trial in plan.trials:
        write_trial(folder, trial, shifts.get(trial.name, 0.0))
    return folder


def write_trial(run: Path, trial: TrialPlan, shift: float) -> None:
    """Files of one done trial."""
    folder = run / "trials" / trial.id
    write_json(folder / "trial.json", trial)
    write_json(folder / "state.json", {"state": "done", "wall_s": {"train": 3.0, "generate": 2.0}})
    write_json(folder / "train.json", {"trainable_params": 10, "wall_s": 3.0, "peak_memory_gib": 0.5})
    scores = [Score(METRIC, prompt, shift, 12, 20, 3) for prompt in (*PROMPTS, None)]
    write_json(folder / "scores.json", {"scores": scores, "unscored": []})
    write_json(folder / "embeddings" / METRIC / "reference.json", {"file": "x.npz"})
    for place, prompt in enumerate(PROMPTS):
        save_embeddings(make_embeddings(12, shift, place), folder / "embeddings" / METRIC / f"{prompt}.npz")


def compare(capsys: pytest.CaptureFixture[str], *places: Any) -> dict[str, Any]:
    """The JSON of a comparison."""
    assert main(["compare", *map(str, places), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_trials_are_compared_over_common_clips_and_tracks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", {"near": 0.1, "far": 2.0})
    found = compare(capsys, f"{run}:near", f"{run}:far")
    assert found["changes"] == {"near / far": ["lora.rank 2 -> 3", "lora.alpha 4 -> 6"]}
    places = {path.name.rpartition("-")[0]: path for path in (run / "trials").iterdir()}
    near, far = (
        [load_embeddings(places[name] / "embeddings" / METRIC / f"{prompt}.npz") for prompt in PROMPTS]
        for name in ("near", "far")
    )
    reference = load_embeddings(run / "reference_embeddings" / "x.npz")
    metric = parse_metric(METRIC)
    ours, theirs = (replicate_score(metric, sets, reference)[0] for sets in (far, near))
    expected = subtract([(ours, theirs)])
    pooled = next(cell["test"] for cell in found["cells"] if cell["prompt"] is None)
    assert pooled["delta"] == pytest.approx(expected.delta)
    assert pooled["verdict"] == "worse"
    assert pooled["ci_low"] <= expected.interval().low < expected.interval().high <= pooled["ci_high"]
    cell = next(cell["test"] for cell in found["cells"] if cell["prompt"] == "one")
    assert (cell["primary"], cell["verdict"]) == (True, "worse")
    assert found["untested"] == {}
    (resources,) = found["resources"]
    assert (resources["first_params"], resources["second_total_s"], resources["first_memory_gib"]) == (
        10,
        5.0,
        0.5,
    )


def conclude(capsys: pytest.CaptureFixture[str], *places: Any) -> str:
    """The last line of a comparison, which its JSON must agree with."""
    lack = compare(capsys, *places)["no_verdict"]
    assert main(["compare", *map(str, places)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"no verdict: {lack}" if lack else "B is" in last
    return last


def test_a_comparison_without_a_verdict_says_so_and_why_in_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "a", {"x": 0.1})
    assert conclude(capsys, first, write_run(tmp_path / "b", {"x": 2.0})).startswith("x: B is worse")
    other = write_run(tmp_path / "c", {"y": 0.1})
    for trial in (tmp_path / "c" / "trials").glob("zero-shot-*"):
        shutil.rmtree(trial)
    said = conclude(capsys, f"{first}:x", f"{other}:zero-shot")
    assert said == "no verdict: zero-shot is not done (not started)"
    seeded = write_run(tmp_path / "d", {"x": 0.1}, seed=5)
    said = conclude(capsys, f"{first}:x", f"{seeded}:x")
    assert said == "no verdict: generation.seed is 0 and 5, so the clips are not pairs"
    names = [write_results_alone(tmp_path / f"{name}.json", name) for name in ("e", "f")]
    assert "the runs have no trial of the same name; name one of each" in conclude(capsys, *names)


def write_results_alone(file: Path, name: str) -> Path:
    """`results.json` of a run with one trial, which has the run's name."""
    run = write_run(file.parent / f"run-{name}", {name: 0.1})
    for trial in (run / "trials").glob("zero-shot-*"):
        shutil.rmtree(trial)
    document = json.loads(gather_results(run).model_dump_json(exclude_unset=True))
    document["trials"] = [trial for trial in document["trials"] if trial["name"] == name]
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_an_adapter_in_a_run_stands_for_its_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", {"near": 0.1, "far": 2.0})
    trials = {path.name.rpartition("-")[0]: path for path in (run / "trials").iterdir()}
    for name in ("near", "far"):
        write_json(trials[name] / "adapter" / "adapter_config.json", {})
    by_adapter = compare(capsys, *(trials[name] / "adapter" for name in ("near", "far")))
    assert by_adapter == compare(capsys, f"{run}:near", f"{run}:far")


def test_two_runs_are_compared_trial_by_trial_and_a_table_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "a", {"x": 0.1, "only": 0.1})
    second = write_run(tmp_path / "b", {"x": 2.0})
    found = compare(capsys, first, second)
    by_cell = {(cell["trial"], cell["prompt"]): cell for cell in found["cells"]}
    assert by_cell["x", None]["test"]["verdict"] == "worse"
    assert by_cell["only", None]["test"] is None
    assert by_cell["only", None]["second"] is None
    assert main(["compare", str(first), str(second)]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert [line for line in shown.splitlines() if len(line) > 100] == []
    assert "memory A" in shown
    assert "a B - A with an interval is corrected for the bias of finite samples; A and B are not" in shown
    assert shown.splitlines()[-1].startswith("x: B is worse on mfcc20-seed (+")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "generation.seed is 0 and 1, so the clips are not pairs"),
        ({"references": 7}, "different references"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_not_tested_and_said(
    changed: dict[str, int], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "a", {"x": 0.1})
    found = compare(capsys, first, write_run(tmp_path / "b", {"x": 0.1}, **changed))
    assert all(cell["test"] is None for cell in found["cells"])
    assert any(words in reason for reason in found["untested"])


def test_a_run_and_a_trial_or_an_unknown_trial_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", {"small": 0.1})
    assert main(["compare", str(run), f"{run}:small"]) == 2
    assert "compare two runs, or two trials" in capsys.readouterr().err
    assert main(["compare", f"{run}:smal", f"{run}:small"]) == 2
    assert "has no trial `smal`; did you mean `small`?" in capsys.readouterr().err


# ---------------------------------------------------------------- init


@pytest.fixture
def music(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_tone: Callable[..., Any], save_sound: Any
) -> Path:
    """Six tones in a folder, beside which the spec will lie."""
    monkeypatch.chdir(tmp_path)
    for index in range(5):
        save_sound(tmp_path / "my_tunes" / f"{index}.wav", make_tone(6.0 + index))
    save_sound(tmp_path / "my_tunes" / "deep" / "x.m4a", make_tone(7.0, 44_100, channels=2), 44_100)
    return tmp_path / "my_tunes"


def test_init_writes_a_valid_commented_spec_of_what_it_found(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (music / "broken.wav").write_bytes(b"no sound")
    assert main(["init", "my_tunes"]) == 0
    shown = capsys.readouterr().out
    assert (
        "6 files, 0.8 minutes, 16000 Hz (5 files) and 44100 Hz (1 file), mono (5 files) and stereo (1 file)"
        in shown
    )
    assert "left out: broken.wav" in shown
    spec = load_spec(Path("my_tunes.yaml")).spec
    assert spec.dataset.path == music
    assert (spec.dataset.clip_s, spec.dataset.split.eval_frac) == (5.0, 0.5)
    assert spec.dataset.captions.text == "my tunes music"
    text = Path("my_tunes.yaml").read_text(encoding="utf-8")
    assert 'path: "my_tunes"' in text
    assert "holds out about 3 whole tracks" in text
    assert "# length of a training slice; 6 of 6 files are at least this long" in text


def test_init_names_a_folder_with_any_line_separator(music: Path) -> None:
    folder = music.rename(music.with_name("my\x85tunes\u2028 a\u2029b"))
    assert main(["init", folder.name, "-o", "s.yaml"]) == 0
    assert load_spec(Path("s.yaml")).spec.dataset.path == folder


def test_init_takes_captions_that_are_there(music: Path) -> None:
    for path in music.rglob("*.[wm]*"):
        path.with_suffix(".txt").write_text('slow: "tones" #1\n', encoding="utf-8")
    assert main(["init", "my_tunes", "-o", "s.yaml", "--model", "facebook/musicgen-small"]) == 0
    spec = load_spec(Path("s.yaml")).spec
    assert (spec.dataset.captions.source, spec.prompts[0]) == ("sidecar", 'slow: "tones" #1')
    assert (spec.model.id, spec.resources.gpu) == ("facebook/musicgen-small", 1)
    lines = [json.dumps({"file_name": f"{index}.wav", "caption": "a tone"}) for index in range(5)]
    (music / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main(["init", "my_tunes", "-o", "mixed.yaml"]) == 0
    mixed = load_spec(Path("mixed.yaml")).spec
    assert (mixed.dataset.captions.source, mixed.dataset.captions.text) == (None, None)
    lines.append(json.dumps({"file_name": "deep/x.m4a", "caption": "a tone"}))
    (music / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main(["init", "my_tunes", "-o", "m.yaml"]) == 0
    assert load_spec(Path("m.yaml")).spec.dataset.captions.source == "metadata"


def test_init_keeps_a_spec_that_is_there_and_refuses_folders_without_music(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_tunes.yaml").write_text("mine", encoding="utf-8")
    assert main(["init", "my_tunes"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert Path("my_tunes.yaml").read_text(encoding="utf-8") == "mine"
    assert main(["init", "my_tunes", "--force"]) == 0
    Path("empty").mkdir()
    assert main(["init", "empty"]) == 1
    assert "0 audio files that can be read" in capsys.readouterr().err
    assert main(["init", "nowhere"]) == 2


def test_sensible_lengths_and_shares() -> None:
    assert choose_clip_s([60.0] * 9 + [4.0], 30) == 30
    assert choose_clip_s([60.0] * 8 + [4.0] * 2, 30) == 4
    assert choose_clip_s([60.0] * 10, 8) == 8
    assert [choose_eval_frac(n) for n in (3, 8, 16, 100)] == [0.5, 0.5, 0.25, 0.2]


def test_init_says_which_files_it_leaves_out_and_what_they_are(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (music / "a.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (music / "b.wav").symlink_to("nowhere.wav")
    (music / os.fsdecode(b"canci\xf3n.wav")).touch()
    assert main(["init", "my_tunes"]) == 0
    shown = capsys.readouterr().out
    assert (
        "left out: a.wav: is a pointer of Git LFS, not the sound itself; fetch it with `git lfs pull`"
        in shown
    )
    assert "left out: b.wav: is a link that leads nowhere" in shown
    assert r"left out: canci\xf3n.wav: is empty (0 bytes)" in shown
    for path in music.rglob("*.[wm]*"):
        if path.name[0].isdigit():
            path.unlink()
    assert main(["init", "my_tunes", "--force"]) == 1
    assert "\n  left out: a.wav: is a pointer of Git LFS" in capsys.readouterr().err


def test_init_finds_captions_in_subfolders_and_says_which_files_have_none(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (music / "deep" / "metadata.jsonl").write_text('{"file_name": "x.m4a", "caption": "deep bells"}\n')
    (music / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{name}.wav", "caption": "a tone"}}\n' for name in (0, 1, 2, 3, 9))
    )
    assert main(["init", "my_tunes"]) == 0
    shown = capsys.readouterr().out
    assert "metadata.jsonl:5: there is no audio file 9.wav" in shown
    assert "captions: only 5 of 6 files have one (not 4.wav, for example)" in shown
    assert load_spec(Path("my_tunes.yaml")).spec.dataset.captions.text == "my tunes music"
    (music / "4.txt").write_text("beside")
    assert main(["init", "my_tunes", "--force"]) == 0
    assert load_spec(Path("my_tunes.yaml")).spec.dataset.captions.text is None


def test_init_reads_marked_utf16_and_refuses_text_that_it_would_garble(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*music.glob("*.wav"), music / "deep" / "x.m4a"]:
        path.with_suffix(".txt").write_bytes("the caf\u00e9 tune".encode("utf-16"))
    assert main(["init", "my_tunes"]) == 0
    assert load_spec(Path("my_tunes.yaml")).spec.prompts[0] == "the caf\u00e9 tune"
    (music / "0.txt").write_bytes(b"the caf\xe9 tune")
    assert main(["init", "my_tunes", "-o", "s.yaml"]) == 1
    assert "0.txt: not UTF-8 text (byte 0xe9 at offset 7" in capsys.readouterr().err
    assert not Path("s.yaml").exists()


def test_init_refuses_a_folder_that_no_spec_can_name(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    music.rename(music.with_name(os.fsdecode(b"m\xfasica")))
    assert main(["init", os.fsdecode(b"m\xfasica"), "-o", "s.yaml"]) == 2
    assert r"m\xfasica: a spec cannot name this folder" in capsys.readouterr().err
    assert not Path("s.yaml").exists()


def tag(music: Path, **columns: Callable[[int], str]) -> None:
    """Write a table of fields for the six tunes."""
    names = [f"{index}.wav" for index in range(5)] + ["deep/x.m4a"]
    rows = [[name, *(make(index) for make in columns.values())] for index, name in enumerate(names)]
    text = "\n".join(",".join(row) for row in [["file", *columns], *rows])
    (music / "captions.csv").write_text(text, encoding="utf-8")


def test_init_writes_a_template_of_the_fields_that_it_found(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag(music, genre=lambda _: "waltz", bpm=lambda i: f"{90 + i}.0", key=lambda i: "C major" * (i == 0))
    assert main(["init", "my_tunes"]) == 0
    spec = load_spec(Path("my_tunes.yaml")).spec
    assert spec.dataset.captions.template == "my tunes music, {genre}, {bpm:.0f} bpm"
    assert spec.dataset.captions.measure == []
    assert spec.prompts[0] == "my tunes music, waltz, 90 bpm"
    assert spec.dataset.split.by == "track"
    text = Path("my_tunes.yaml").read_text(encoding="utf-8")
    assert "# of 6 tracks have: genre 6, bpm 6" in text
    assert main(["plan", "my_tunes.yaml"]) == 0
    tag(music, bpm=lambda i: "fast" * (i % 2) or "90")
    assert main(["init", "my_tunes", "--force"]) == 0
    template = load_spec(Path("my_tunes.yaml")).spec.dataset.captions.template
    assert template == "my tunes music, {bpm} bpm"


def test_init_splits_by_artist_where_there_are_enough_of_them(music: Path) -> None:
    tag(music, artist=lambda _: "one", album=lambda i: f"album {i}", genre=lambda _: "waltz")
    assert main(["init", "my_tunes"]) == 0
    assert load_spec(Path("my_tunes.yaml")).spec.dataset.split.by == "album"
    assert "6 albums, each on one side" in Path("my_tunes.yaml").read_text(encoding="utf-8")
    tag(music, artist=str, album=lambda i: f"album {i}", genre=lambda _: "waltz")
    assert main(["init", "my_tunes", "--force"]) == 0
    assert load_spec(Path("my_tunes.yaml")).spec.dataset.split.by == "artist"


def test_the_commented_lines_of_a_written_spec_are_valid_too(music: Path) -> None:
    tag(music, genre=lambda _: "waltz")
    assert main(["init", "my_tunes"]) == 0
    text = Path("my_tunes.yaml").read_text(encoding="utf-8")
    for line in ("prepare: {", "trigger: "):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    Path("all.yaml").write_text(text, encoding="utf-8")
    prepare = load_spec(Path("all.yaml")).spec.dataset.prepare
    assert (prepare.loudness_lufs, prepare.trim_silence_db, prepare.remove_dc) == (-16.0, -50.0, True)
    assert main(["plan", "all.yaml"]) == 0
