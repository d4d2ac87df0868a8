"""Atomic writes, content-addressed folders, canonical hashes."""

import errno
import os
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lora_bench.errors import StoreError
from lora_bench.spec.schema import LoraSpec
from lora_bench.store import (
    Store,
    disk_errors,
    hash_json,
    is_disk_full,
    read_json,
    remove_drafts,
    write_bytes,
    write_json,
)


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


def test_damaged_json_of_a_run_names_the_file_and_the_mend(tmp_path: Path) -> None:
    for name in (
        "runs/t/plan.json",
        "runs/t/.lock",
        "runs/t/trials/a/state.json",
        "runs/.cache/tokens/k/facts.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{", encoding="utf-8")
    for name in ("runs/t/trials/a/state.json", "runs/t/plan.json", "runs/.cache/tokens/k/facts.json"):
        with pytest.raises(StoreError, match=rf"{name}: not valid JSON .* remove the file and run again"):
            read_json(tmp_path / name)


@pytest.mark.parametrize("data", [b"name: small", b"", b"\xff\xfe{", b"[" * 100_000])
def test_nobody_is_told_to_remove_a_file_of_their_own(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(
        "{}", encoding="utf-8"
    )  # of another program: no run holds its lock here
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"results\.json: not valid JSON .*; expected a JSON file of a run$"):
        read_json(tmp_path / "results.json")


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}


def test_a_name_that_is_not_utf8_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    write_json(tmp_path / "a.json", {"source": name})
    assert read_json(tmp_path / "a.json") == {"source": name}
    (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_read_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StoreError, match=r"state\.json: is a folder, but a file is expected; remove it"):
        read_json(tmp_path / "state.json")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected a result file here"):
        read_json(tmp_path / "file" / "state.json")


def test_a_draft_that_cannot_be_made_is_told_by_its_final_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        write_bytes(tmp_path / "file" / "a.json", b"")
    assert "/file/" not in str(caught.value) or caught.value.filename == str(tmp_path / "file" / "a.json")
    with disk_errors(tmp_path / "a"), pytest.raises(OSError, match="no path") as without:
        raise OSError(errno.EIO, "no path")
    assert without.value.filename is None
    with pytest.raises(OSError) as found, disk_errors(tmp_path / "a"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".a.abcd1234"))
    assert found.value.filename == str(tmp_path / "a")


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), True),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
        # safetensors: the number stands in the text only
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (
            RuntimeError(
                'Error while serializing: IoError(Os { code: 28, message: "No space left on device" })'
            ),
            True,
        ),
        (OSError("4096 requested and 512 written: No space left on device"), True),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_known_by_its_number_or_by_its_words(error: Exception, expected: bool) -> None:
    assert is_disk_full(error) is expected


def test_safetensors_on_a_really_full_disk_becomes_the_stores_error(tiny_disk: Path) -> None:
    tensors = {"w": torch.zeros(2**20)}
    with pytest.raises(StoreError, match="the disk is full"), disk_errors(tiny_disk / "w"):
        safetensors.torch.save_file(tensors, tiny_disk / "w.safetensors")


def test_a_folder_that_does_not_fit_leaves_room_for_what_does(tiny_disk: Path) -> None:
    store = Store(tiny_disk)

    def fill(folder: Path) -> None:
        for number in range(64):
            (folder / str(number)).write_bytes(b"x" * 2**16)

    with pytest.raises(
        StoreError, match=r"tokens/k: the disk is full .* free some space and run the same command"
    ):
        store.get_or_make("tokens", "k", fill)
    assert not store.folder("tokens", "k").exists()
    small = store.get_or_make("tokens", "small", lambda folder: (folder / "x").write_bytes(b"1") and None)
    assert (small / "x").read_bytes() == b"1"


def test_what_was_asked_for_is_noted_once_and_before_it_is_made(tmp_path: Path) -> None:
    record = tmp_path / "trial" / "cache.txt"
    store = Store(tmp_path / "cache", record)
    noted: list[str] = []
    store.get_or_make("tokens", "a", lambda _: noted.append(record.read_text(encoding="utf-8")))
    store.get_or_make("tokens", "a", lambda _: None)
    assert noted == ["tokens/a\n"]
    assert record.read_text(encoding="utf-8") == "tokens/a\n"
    later = Store(tmp_path / "cache", record)
    later.get_or_make("tokens", "b", lambda _: None)
    assert record.read_text(encoding="utf-8") == "tokens/a\ntokens/b\n"
    later.settle_uses()
    assert record.read_text(encoding="utf-8") == "tokens/b\n"


def test_what_a_killed_process_left_of_a_folder_goes_when_it_is_made_again(tmp_path: Path) -> None:
    for name in (".k.abcd1234", ".k.2.abcd1234"):
        (tmp_path / "tokens" / name).mkdir(parents=True)
    Store(tmp_path).get_or_make("tokens", "k", lambda _: None)
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {".k.2.abcd1234", "k", "k.lock"}


def test_half_written_files_go_and_hidden_ones_with_a_meaning_stay(tmp_path: Path) -> None:
    for name in (
        ".state.json.abcd123_",
        ".adapter.old.abcd1234/adapter/w",
        "deep/.x.wav.00000000",
        ".lock",
        ".holder",
        "000.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".y.json.abcd1234").touch()
    remove_drafts(tmp_path, skip={"kept"})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".lock", ".holder", "000.wav", "kept/.y.json.abcd1234"}
