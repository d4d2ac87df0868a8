"""A run on the hub: a model per adapter, the clips, a page; the user's recordings only where they are asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.fake_hub import FakeHub, serve_hub
from support.tiny_run import TinyRun

from lora_bench.adapters import choose, publication
from lora_bench.adapters.publication import Choice, write_publications
from lora_bench.audio import save_wav
from lora_bench.cli.main import main
from lora_bench.slugs import prompt_slug

MODELS = ("models/ada/tune-plain", "models/ada/tune-dora")
CLIPS, DEMO = "datasets/ada/tune-clips", "spaces/ada/tune-demo"


@pytest.fixture(scope="module")
def heard_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with clips, and with excerpts of references."""
    folder = tmp_path_factory.mktemp("heard") / "runs" / "tiny"
    shutil.copytree(tiny_run.folder, folder)
    rng = np.random.default_rng(0)
    for name in ("zero-shot", "plain", "dora"):
        trial = tiny_run.trial(name)
        for prompt in trial.prompts:
            for index in range(2):
                place = folder / "trials" / trial.id / "clips" / prompt_slug(prompt) / f"{index:03d}.wav"
                place.parent.mkdir(parents=True, exist_ok=True)
                save_wav(place, rng.normal(0, 0.1, (1, 800)).astype(np.float32), 16_000)
    for index in range(2):
        place = folder / "reference_clips" / f"song-{index}.wav"
        place.parent.mkdir(exist_ok=True)
        save_wav(place, rng.normal(0, 0.1, (1, 800)).astype(np.float32), 16_000)
    return folder


def push(
    run: Path, hub: FakeHub, *options: str, token: str = "hf_invented"
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its settings once, when it is imported."""
    environment = {
        "HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(run.parent / "hf"),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "lora_bench", "push", str(run), "--hub", "ada/tune", *options],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def read_card(data: bytes) -> dict[str, object]:
    return yaml.safe_load(data.decode().split("---")[1])


@pytest.fixture(scope="module")
def pushed(heard_run: Path) -> Iterator[tuple[FakeHub, str]]:
    """A hub with the whole run, and what was printed."""
    with serve_hub() as hub:
        done = push(heard_run, hub)
        assert done.returncode == 0, done.stderr
        yield hub, done.stdout


def test_adapters_clips_and_page_arrive_without_recordings_and_paths(
    heard_run: Path, pushed: tuple[FakeHub, str]
) -> None:
    hub, told = pushed
    assert set(hub.commits) == {*(name for name in MODELS), CLIPS, DEMO}
    assert [item.get("type") for item in hub.repositories] == [None, None, "dataset", "space"] or [
        item.get("type") for item in hub.repositories
    ] == ["model", "model", "dataset", "space"]
    assert hub.repositories[-1]["sdk"] == "static"
    for name in MODELS:
        files = hub.files(name)
        assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= files.keys()
        assert name.removeprefix("models/").encode() in files["README.md"]
    clips = hub.files(CLIPS)
    lines = [json.loads(line) for line in clips["metadata.jsonl"].decode().splitlines()]
    assert len(lines) == 12
    assert {line["file_name"] for line in lines} == {name for name in clips if name.endswith(".wav")}
    assert {line["trial"] for line in lines} == {"zero-shot", "plain", "dora"}
    demo = hub.files(DEMO)
    assert read_card(demo["README.md"])["sdk"] == "static"
    assert b"<html" in demo["index.html"]
    assert b"data:audio/mpeg" in demo["index.html"]
    recordings = [path.read_bytes() for path in (heard_run / "reference_clips").glob("*.wav")]
    for name in hub.commits:
        for path, data in hub.files(name).items():
            assert data not in recordings, path
            assert b"reference after the codec" not in data
            assert str(heard_run.parents[1]).encode() not in data, path
    assert b">reference:" not in demo["index.html"]
    assert "your recordings are left out" in told
    sounds = re.findall(r"data:audio/mpeg;base64,([A-Za-z0-9+/=]+)", demo["index.html"].decode())
    assert len(sounds) == 2 * 2 * 3  # prompts, indices, trials


def test_recordings_are_published_where_they_are_asked_for(heard_run: Path, hub: FakeHub) -> None:
    assert push(heard_run, hub, "--with-recordings", "--trial", "plain").returncode == 0
    assert set(hub.commits) == {MODELS[0], CLIPS, DEMO}
    recordings = [path.read_bytes() for path in (heard_run / "reference_clips").glob("*.wav")]
    published = list(hub.files(CLIPS).values())
    assert all(data in published for data in recordings)
    page = hub.files(DEMO)["index.html"].decode()
    assert len(re.findall("data:audio/mpeg", page)) == 2 * 2 * (
        3 + 1
    )  # prompts, indices, three trials and a reference


def test_a_dry_run_lists_what_a_push_would_send_and_asks_no_hub(
    heard_run: Path, pushed: tuple[FakeHub, str], capsys: pytest.CaptureFixture[str]
) -> None:
    hub = pushed[0]
    sent = {name: set(hub.files(name)) for name in hub.commits}
    n_asked = len(hub.asked)
    assert main(["push", str(heard_run), "--hub", "ada/tune", "--dry-run"]) == 0
    listed: dict[str, set[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if found := re.match(r"(model|dataset|space) (\S+): ", line):
            current = listed.setdefault(f"{found[1]}s/{found[2]}", set())
        elif found := re.match(r"  (.+) \(\d+ bytes\)$", line):
            current.add(found[1])
    assert listed == sent
    assert len(hub.asked) == n_asked


def test_without_a_token_nothing_is_prepared_and_the_mend_is_told(heard_run: Path, hub: FakeHub) -> None:
    done = push(heard_run, hub, token="")
    assert done.returncode == 1
    assert "--hub: there is no token of the hub here; log in with `hf auth login`" in done.stderr
    assert hub.asked == []


def test_a_refusal_names_the_repository_and_a_wrong_name_is_refused(
    heard_run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = True
    done = push(heard_run, hub)
    assert done.returncode == 1
    assert "--hub ada/tune-plain: the hub at" in done.stderr
    assert "403 Forbidden" in done.stderr
    assert "push again with the same command" in done.stderr
    assert main(["push", str(heard_run), "--hub", "tune", "--dry-run"]) == 2
    assert "--hub tune: expected OWNER/NAME" in capsys.readouterr().err
    assert main(["push", str(heard_run), "--hub", "a/b", "--dry-run", "--trial", "nobody"]) == 2
    assert "--trial nobody" in capsys.readouterr().err


@pytest.mark.parametrize("trials", [(), ("plain", "dora"), ("best",)])
def test_the_results_of_a_run_are_gathered_once_for_all_its_adapters(
    trials: tuple[str, ...], heard_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[Path] = []
    gather = publication.gather_results

    def count(folder: Path) -> object:
        gathered.append(folder)
        return gather(folder)

    monkeypatch.setattr(publication, "gather_results", count)
    monkeypatch.setattr(choose, "gather_results", count)
    found = write_publications(heard_run, Choice("ada/tune", trials), tmp_path)
    assert [item.kind for item in found].count("model") == (1 if trials == ("best",) else 2)
    assert gathered == [heard_run]
