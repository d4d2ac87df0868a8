"""A user's program: its answer, and every way in which it can fail."""

import signal
import sys

import psutil
import pytest

from lora_bench.machine.programs import MAX_ANSWER, ProgramError, ask_program, call_program, describe_exit


def ask(code: str, **options) -> str:
    return ask_program([sys.executable, "-c", code], **options)


def test_a_program_answers_what_it_is_given():
    text = "caf\u00e9\u2028a"
    assert ask("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", given=text) == text


def test_a_long_answer_is_cut_between_bytes_of_a_character_without_an_error():
    found = ask(f"import sys; sys.stdout.buffer.write(b'x' + {MAX_ANSWER} * '\u00e9'.encode())")
    assert found == "x" + "\u00e9" * ((MAX_ANSWER - 1) // 2)


def test_much_output_of_a_program_does_not_block_it():
    assert len(ask("import sys; print('x' * 10**6, file=sys.stderr); print('y' * 10**6)")) == MAX_ANSWER


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no\\nmodel')", r"^ended with exit code 1 \(no model\)$"),
        ("import sys; print('said'); sys.exit(3)", r"^ended with exit code 3 \(said\)$"),
        ("import os; os.kill(os.getpid(), 9)", "^ended with signal SIGKILL$"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 2)", r"^ended with signal SIGRTMIN\+2$"),
        ("import sys; sys.stderr.buffer.write(b'caf\\xe9'); sys.exit(1)", "exit code 1 \\(caf\ufffd\\)$"),
        ("import sys; sys.stdout.buffer.write(b'caf\\xe9')", r"not UTF-8 \(offset 3\)"),
        ("import sys; sys.stdout.buffer.write(b'caf\\xc3')", "not UTF-8"),
    ],
)
def test_a_failure_is_described(code, message):
    with pytest.raises(ProgramError, match=message):
        ask(code)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-program"], r"cannot be started \(No such file or directory\); expected a program and its arguments"),
        (["/"], r"cannot be started \(Permission denied\)"),
        (["a\0b"], r"cannot be started \(embedded null byte\)"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_start_says_why(arguments, message):
    with pytest.raises(ProgramError, match=message):
        ask_program(arguments)


def test_a_program_that_takes_too_long_is_killed_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, time; child = subprocess.Popen(['sleep', '600']);"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid)); print('began', flush=True); time.sleep(600)"
    )
    with pytest.raises(ProgramError, match=r"^did not end within 2 s \(began\)$") as caught:
        ask(code, timeout_s=2)
    assert caught.value.is_timeout
    assert is_gone(int(pid.read_text()))


def test_a_child_that_holds_the_output_open_is_ended_with_the_program():
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    assert is_gone(int(ask(code)))


def is_gone(pid: int) -> bool:
    if not psutil.pid_exists(pid):
        return True
    _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_an_interrupt_ends_the_program(tmp_path):
    pids = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_program(
            ["sleep", "600"], (tmp_path / "out", tmp_path / "err"), on_start=pids.append, on_poll=interrupt
        )
    assert not psutil.pid_exists(pids[0])


def test_every_signal_has_a_name():
    assert describe_exit(2) == "exit code 2"
    assert describe_exit(-signal.SIGSEGV) == "signal SIGSEGV"
    names = {describe_exit(-number) for number in range(1, 65)}
    assert len(names) == 64
    assert "signal SIGRTMIN+1" in names
