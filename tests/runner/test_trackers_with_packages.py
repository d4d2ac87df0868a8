"""Trackers against their packages: what was logged is read back by the packages' own readers or messages, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_bench.runner.trackers import open_trackers

SETTINGS = {"t": {"lora": {"rank": 4}, "train": {"lr": 1e-4}}}
LOG_BLOCK = 32_768
FIGURES = [
    ("live/loss", 4.5, 1),
    ("loss/training", 3.0, 9),
    ("loss/held-out", 3.5, 9),
    ("score mfcc20@codec/all prompts", 0.25, 9),
]


def log_all(name: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (tracker,) = open_trackers([name], folder, SETTINGS)
    for figure, value, step in FIGURES:
        tracker.log("t", figure, value, step)
    tracker.close()


@pytest.mark.filterwarnings("ignore")  # of the package
def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    log_all("tensorboard", tmp_path / "run")
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard" / "t"))
    events.Reload()
    assert len(events.Tags()["scalars"]) == len(FIGURES)
    found = sorted(
        (item.step, item.value) for tag in events.Tags()["scalars"] for item in events.Scalars(tag)
    )
    assert found == [(step, pytest.approx(value)) for step, value in sorted((s, v) for _, v, s in FIGURES)]
    assert "loss/held-out" in events.Tags()["scalars"]


@pytest.mark.filterwarnings("ignore")  # of the package
def test_mlflow_reads_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    log_all("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("lora-bench").experiment_id])
    assert (run.info.run_name, run.info.status) == ("t", "FINISHED")
    assert run.data.params == {"lora": "{'rank': 4}", "train": "{'lr': 0.0001}"}
    assert run.data.tags["run"] == "run"
    for name, value, step in FIGURES:
        (metric,) = client.get_metric_history(run.info.run_id, name.replace("@", " "))
        assert (metric.value, metric.step) == (pytest.approx(value), step)


def read_wandb_log(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a `.wandb` file, LevelDB's log format after seven bytes; W&B has no reader in Python."""
    assert data[:4] == b":W&B"
    at, message = 7, b""
    while at + 7 <= len(data):
        left = LOG_BLOCK - at % LOG_BLOCK
        if left < 7:  # the rest of a block is filled up
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield message
            message = b""


@pytest.mark.filterwarnings("ignore")  # of the package
def test_wandb_writes_a_run_of_its_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CACHE_DIR", str(tmp_path / "cache"))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    log_all("wandb", tmp_path / "run")
    wandb.teardown()  # its service writes the file to its end
    (file,) = (tmp_path / "run").rglob("run-*.wandb")
    records = [Record.FromString(data) for data in read_wandb_log(file.read_bytes())]
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, run.display_name) == ("lora-bench", "run", "t")
    assert {item.key for item in run.config.update} >= {"lora", "train"}
    logged = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            logged.append(
                {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            )
    told = [
        (name, float(row[name]), int(row["training step"]))
        for row in logged
        for name in row
        if name in {figure for figure, _, _ in FIGURES}
    ]
    assert told == FIGURES
