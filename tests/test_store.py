"""Atomic writes, content-addressed folders, canonical hashes."""

import errno
import os
import threading
from pathlib import Path

import pytest

from lora_bench.errors import StoreError
from lora_bench.spec.schema import LoraSpec
from lora_bench.store import Store, hash_json, read_json, write_bytes, write_json


def test_written_json_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"text": "메이플", "path": Path("x/y"), "n": 1})
    assert read_json(tmp_path / "a" / "b.json") == {"text": "메이플", "path": "x/y", "n": 1}


def test_json_with_nan_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "scores.json"
    write_json(place, {"value": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(place, {"value": float("nan")})
    assert read_json(place) == {"value": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_failed_write_keeps_the_old_file_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "state.json"
    write_bytes(place, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"the disk is full .* free some space and run the same command again"
    ):
        write_bytes(place, b"new")
    assert place.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [place]


def test_full_disk_is_seen_on_a_really_full_device() -> None:
    with (
        pytest.raises(OSError, match="No space left") as caught,
        Path("/dev/full").open("wb", buffering=0) as f,
    ):
        f.write(b"x")
    assert caught.value.errno == errno.ENOSPC  # the number that the store turns into its own error


def test_damaged_json_names_the_file_and_the_mend(tmp_path: Path) -> None:
    place = tmp_path / "state.json"
    place.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"state\.json: not valid JSON .* remove the file and run again"):
        read_json(place)


def test_missing_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a result file here"):
        read_json(tmp_path / "nothing.json")


def test_a_key_is_made_once_by_many_threads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    calls: list[int] = []

    def make(folder: Path) -> None:
        calls.append(1)
        (folder / "x").write_text("1", encoding="utf-8")

    threads = [threading.Thread(target=store.get_or_make, args=("tokens", "k", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert (store.folder("tokens", "k") / "x").read_text(encoding="utf-8") == "1"


def test_a_failing_make_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("1", encoding="utf-8")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.get_or_make("tokens", "k", fail)
    assert not store.folder("tokens", "k").exists()
    assert not [p for p in (tmp_path / "tokens").iterdir() if p.is_dir()]
    done = store.get_or_make("tokens", "k", lambda folder: (folder / "x").touch())
    assert (done / "x").is_file()


def test_hash_does_not_depend_on_key_order_but_on_values() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})
    assert hash_json({"lora": LoraSpec(rank=8)}) != hash_json({"lora": LoraSpec(rank=16)})


def test_hash_is_stable_across_versions() -> None:
    # Changing this value orphans every cache: do it knowingly.
    assert hash_json({"rank": 16, "targets": ["q_proj"]}) == "9b3f4f7b9a5c3eeb"
