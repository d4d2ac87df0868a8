"""The command of a killed attempt is ended before its folder is removed, whatever has changed in the spec since."""

import json
import sys
from pathlib import Path

import psutil
import pytest
from support.tiny_experiment import SPEC

from lora_bench.api import load_spec, plan_experiment
from lora_bench.errors import ExternalError
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import SilentProgress
from lora_bench.runner.external_trial import execute_external
from lora_bench.store import Store


def test_an_orphan_is_ended_though_the_command_has_changed(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    spec = tmp_path / "tiny.yaml"
    command = f"{{name: other, external: {{command: ['{sys.executable}', '-c', 'raise SystemExit(7)']}}}}"
    spec.write_text(SPEC.replace("{name: r2}", command), encoding="utf-8")
    [trial] = [each for each in plan_experiment(load_spec(spec)).trials if each.external is not None]
    files = TrialFolder(tmp_path / "trial")
    files.external_raw.mkdir(parents=True)
    files.clips_key.parent.mkdir(parents=True, exist_ok=True)
    files.clips_key.write_text("of the former command", encoding="utf-8")
    orphan = psutil.Popen(["sleep", "600"], start_new_session=True)
    (files.external_raw / "process.json").write_text(json.dumps([orphan.pid, orphan.create_time()]))
    with pytest.raises(ExternalError, match="ended with exit code 7"):
        execute_external(trial, files.path, Store(tmp_path / "cache"), SilentProgress())
    assert not orphan.is_running()
