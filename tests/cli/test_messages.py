"""Messages and exit codes: errors of the operating system, closed pipes, interrupts, faults, encodings."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_bench.cli import main as cli
from lora_bench.cli.commands import schema, validate
from lora_bench.errors import _REASONS, describe_os_error
from lora_bench.store import write_json

COMMAND = [sys.executable, "-m", "lora_bench"]


def make_error(number: int, path: str | None = "/data/runs/t") -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    "number", sorted({*_REASONS, errno.ENODEV, errno.ENXIO, errno.EPIPE, errno.ECONNRESET})
)
def test_every_error_of_the_system_is_one_sentence_with_path_and_mend(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise make_error(number)

    monkeypatch.setattr(validate, "execute", fail)
    assert cli.main(["validate", "x.yaml"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("lora-bench: /data/runs/t: ")
    assert "; " in line
    assert "Errno" not in line
    assert "{" not in line


def test_an_error_names_the_file_that_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    for place in (tmp_path / "afile" / "t", tmp_path / "afile"):
        with pytest.raises(OSError) as caught:
            place.mkdir(parents=True)
        assert "afile is a file" in describe_os_error(caught.value) or "already exists" in describe_os_error(
            caught.value
        )


def test_errors_of_libraries_keep_their_words_on_one_line() -> None:
    assert describe_os_error(OSError("cannot load\n  model x")) == "cannot load model x"
    assert describe_os_error(OSError()) == "OSError"
    assert describe_os_error(make_error(errno.EMFILE, None)).startswith(
        "too many open files; raise the limit"
    )
    assert describe_os_error(OSError(errno.EIO, "Input/output error", b"/x\xe9")).startswith(
        "/x\udce9: the disk"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "runs/t", "--reports-dir", "afile"],
        ["index", "runs", "--reports-dir", "afile/deeper"],
        ["run", "t.yaml", "--quiet", "--runs-dir", "afile"],
        ["run", "t.yaml", "--quiet", "--runs-dir", "n" * 300],
        ["run", "t.yaml", "--quiet", "--runs-dir", "loop/x"],
        ["validate", "n" * 300],
        ["status", "n" * 300],
        ["report", "loop/x"],
        ["compare", "n" * 300, "runs/t"],
    ],
)
def test_a_place_that_cannot_be_used_is_told_without_a_traceback(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "t.yaml").write_text(
        "schema: 1\nname: t\ndataset: {builtin: chiptune}\nprompts: [one]\nmetrics: [mfcc20]\n"
        "trials: {variants: [{name: small}]}\n"
    )
    write_json(tmp_path / "runs" / "t" / "results.json", {"name": "t", "complete": True, "trials": []})
    assert cli.main(arguments) in {1, 2}
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "fault" not in shown
    assert any(place in shown for place in ("afile", "loop", "nnnn"))
    assert (tmp_path / "afile").read_bytes() == b""


def test_ctrl_c_is_one_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "execute", interrupt)
    assert cli.main(["schema"]) == 130
    assert capsys.readouterr().err == "lora-bench: stopped; finished work is kept\n"


def test_a_fault_keeps_its_traceback_and_says_what_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(schema, "execute", fail)
    assert cli.main(["schema"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "nobody thought of this" in shown
    assert shown.splitlines()[-1].startswith(
        "lora-bench: this is a bug in lora-bench; report it with the command"
    )


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    process = subprocess.Popen([*COMMAND, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, shown = process.communicate()
    assert (process.returncode, shown) == (0, b"")


def test_a_broken_pipe_that_is_not_stdout_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(schema, "execute", fail)
    assert cli.main(["schema"]) == 1
    assert "broken pipe" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with Path("/dev/full").open("w") as full:
        found = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert found.returncode == 1
    assert found.stderr.decode().startswith("lora-bench: output to <stdout>: the disk is full")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_text_can_be_printed_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(_: object) -> int:
        print("1.0 ± 0.1 → 音楽 \udce9 \U0001f600")
        return 0

    out: Any = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(schema, "execute", show)
    assert cli.main(["schema"]) == 0
    shown = out.buffer.getvalue().decode(encoding)
    if encoding == "ascii":
        assert shown == "1.0 +- 0.1 -> \\u97f3\\u697d \\udce9 \\U0001f600\n"
    elif encoding == "utf-8":
        assert shown == "1.0 ± 0.1 → 音楽 \\udce9 \U0001f600\n"
    else:
        assert shown.startswith("1.0 ± 0.1 -> ")


def test_output_that_is_no_stream_of_python_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    out = SimpleNamespace(write=len, flush=lambda: None, encoding=None)
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["schema"]) == 0
