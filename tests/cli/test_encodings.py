"""Every verb where the terminal knows ASCII only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_bench.cli.main import VERBS
from lora_bench.store import write_json

SPEC = """schema: 1
name: t
dataset: {builtin: chiptune}
prompts: ["音楽 → кино ±"]
metrics: [mfcc20]
trials: {variants: [{name: small}]}
"""
CODE = """
import json, os, sys
from types import SimpleNamespace
from pathlib import Path
from lora_bench.adapters import choose, export, render
from lora_bench.cli import main as cli
from lora_bench.cli.commands import doctor
from lora_bench.evaluation import folder_scores
from lora_bench.listening import preferences
from lora_bench.results.listening import ListeningResults
from lora_bench.runner import experiment
from lora_bench.models.bridges import conversion

TEXT = "音楽 ± é " + chr(0xdce9)

def run_experiment(plan, **options):
    options["progress"].start(TEXT, 3)
    options["progress"].log(TEXT)
    return 0

def score_folders(*_):
    return SimpleNamespace(to_json=lambda: {"scores": [], "unscored": [{"metric": TEXT, "reason": TEXT}]})

chosen = SimpleNamespace(plan=SimpleNamespace(name="t", model=SimpleNamespace(id="pocket")), adapter=None, reason=TEXT)
preferences.import_answers = lambda *_: ListeningResults(preferences=[{"question": TEXT, "configuration": TEXT}])
experiment.run_experiment = run_experiment
folder_scores.score_folders = score_folders
choose.choose_trial = lambda *_: chosen
export.export_trial = lambda *_, **__: [Path(TEXT)]
render.render_pair = lambda *_: [Path(TEXT)]
conversion.convert = lambda *_, **__: [Path(TEXT)]
for name in ("packages", "models", "backends", "encoders"):
    setattr(doctor, f"look_at_{name}", lambda: [doctor.Finding("x", TEXT, False, TEXT, TEXT)])
for call in json.load(sys.stdin):
    arguments = [os.fsdecode(part.encode()) for part in call]  # as a shell hands them over
    print("VERB", arguments[0], cli.main(arguments), flush=True)
"""


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_every_verb_prints_where_the_terminal_has_few_letters(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "音楽.yaml").write_text(SPEC, encoding="utf-8")
    score = {"metric": "mfcc20", "prompt": "音楽", "value": 1.0}
    write_json(
        tmp_path / "runs" / "t" / "results.json",
        {"name": "t", "trials": [{"name": "кино", "scores": [score]}]},
    )
    (tmp_path / "audio").mkdir()
    (tmp_path / "verbs.py").write_text(CODE, encoding="utf-8")
    spec = "音楽.yaml"
    calls = [
        ["run", spec], ["validate", spec], ["plan", spec], ["plan", spec, "--json"], ["status", spec],
        ["status", spec, "--json"], ["clean"], ["clean", "--json"], ["report", spec], ["index", "runs"],
        ["listen", spec, "--import", "答え.json"], ["listen", spec, "--import", "答え.json", "--json"],
        ["compare", spec, spec], ["compare", spec, spec, "--json"], ["schema"], ["specs"], ["doctor"], ["doctor", "--json"],
        ["calibrate", spec], ["paper", spec, "--to", "論文"], ["push", spec, "--hub", "a/b", "--dry-run"],
        ["score", "--reference", "audio", "--generated", "audio", "--metric", "mfcc20"],
        ["score", "--reference", "audio", "--generated", "audio", "--metric", "mfcc20", "--json"],
        ["generate", spec, "--prompt", "音楽"], ["export", spec, "--to", "出力"],
        ["convert", "pocket", "--to", "出力"], ["init", "音楽"],
        ["captions", "音楽", "--template", "音楽, {name}"], ["inspect", "音楽"], ["validate", "無い.yaml"],
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "TERM": "dumb", "COLUMNS": "20"}
    found = subprocess.run(
        [sys.executable, "-X", "utf8=0", "verbs.py"],
        input=json.dumps(calls).encode(), capture_output=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    shown, said = found.stdout.decode(encoding), found.stderr.decode(encoding)
    assert found.returncode == 0, said
    assert "Traceback" not in said
    codes = [line.split()[1:] for line in shown.splitlines() if line.startswith("VERB ")]
    assert [verb for verb, _ in codes] == [call[0] for call in calls]
    assert {verb for verb, _ in codes} == set(VERBS)
    assert [code for _, code in codes][-4:] == ["2", "2", "2", "2"]
    assert {
        code for verb, code in codes[:-4] if verb not in {"status", "score", "doctor", "calibrate", "push"}
    } == {"0"}
    parts = shown.split("VERB ")
    for call, part in zip(calls, parts, strict=False):
        if "--json" in call:
            json.loads(part.partition("\n")[2] if part[:1].islower() else part)
