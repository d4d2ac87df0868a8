"""The command line: verbs, options, exit codes.  What a verb does is in `commands/`, imported on use.

stdout carries results, stderr progress and errors.  Exit codes: 0 complete, 1 a failure while working,
2 usage or an invalid spec, 3 incomplete.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from lora_bench.errors import EXIT_FAILURE, EXIT_INCOMPLETE, EXIT_OK, LoraBenchError, SpecError

EPILOG = """exit codes: 0 complete, 1 a failure while working, 2 usage or an invalid spec, 3 incomplete.
LORA_BENCH_DEBUG=1 shows the traceback of an error."""


def build_parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    parser = argparse.ArgumentParser(
        prog="lora-bench",
        description="Benchmarks of what LoRA fine-tuning does to MusicGen.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = _add(verbs, "run", "run an experiment, or go on with it, and write its report")
    _add_spec(run)
    _add_folders(run)
    run.add_argument("--executor", choices=("local", "ray"), help="one trial after the other, or Ray Tune")
    run.add_argument(
        "--ray-address", metavar="HOST:PORT", help="join this Ray cluster (implies --executor ray)"
    )
    run.add_argument("--yes", action="store_true", help="run a plan of many trials without asking back")
    run.add_argument("--quiet", action="store_true", help="no progress, only what went wrong")

    validate = _add(verbs, "validate", "check specs; every problem with its place")
    validate.add_argument("specs", nargs="+", type=Path, metavar="SPEC")

    plan = _add(verbs, "plan", "show every trial, and why it would run")
    _add_spec(plan)
    _add_runs_dir(plan)
    _add_json(plan)

    status = _add(verbs, "status", "show how far a run is (exit code 3 while it is incomplete)")
    status.add_argument("target", type=Path, metavar="SPEC|RUN_DIR")
    _add_runs_dir(status)
    _add_json(status)

    report = _add(verbs, "report", "write the report of a run again, from its files alone")
    report.add_argument("run", type=Path, metavar="RUN_DIR")
    _add_reports_dir(report)

    score = _add(verbs, "score", "score any folder of audio against another")
    score.add_argument("--reference", required=True, type=Path, metavar="DIR", help="real recordings")
    score.add_argument("--generated", required=True, type=Path, metavar="DIR", help="clips to be scored")
    score.add_argument("--metric", required=True, action="append", dest="metrics", metavar="NAME")
    score.add_argument("--quiet", action="store_true", help="no progress")
    _add_json(score)

    compare = _add(verbs, "compare", "two runs side by side, cell by cell")
    compare.add_argument("first", type=Path, metavar="RUN_A")
    compare.add_argument("second", type=Path, metavar="RUN_B")
    _add_json(compare)

    _add(verbs, "schema", "JSON Schema of a spec, for editors, on stdout")
    doctor = _add(verbs, "doctor", "what this machine can run, and what is missing for the rest")
    _add_json(doctor)
    return parser


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    return verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file, such as specs/quickstart.yaml")
    parser.add_argument(
        "-o", "--override", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="change a field, such as lora.rank=16; may be given several times",
    )  # fmt: skip


def _add_folders(parser: argparse.ArgumentParser) -> None:
    _add_runs_dir(parser)
    _add_reports_dir(parser)


def _add_runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")


def _add_reports_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reports-dir", type=Path, default=Path("reports"), metavar="DIR", help="default: reports"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable, on stdout")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become messages on stderr."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as error:  # argparse has printed the usage, or the help
        return error.code if isinstance(error.code, int) else EXIT_FAILURE
    command = import_module(f"lora_bench.commands.{arguments.verb}")
    try:
        with _terminate_as_interrupt():
            code = int(command.execute(arguments))
            sys.stdout.flush()
            return code
    except LoraBenchError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("lora-bench: stopped; what is finished is kept", file=sys.stderr)
        return EXIT_INCOMPLETE
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _report(error: LoraBenchError) -> int:
    if os.environ.get("LORA_BENCH_DEBUG"):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    elif isinstance(error, SpecError):
        print(error, file=sys.stderr)
        n_problems = len(error.problems)
        print(
            f"lora-bench: {n_problems} problem{'s' if n_problems > 1 else ''}; nothing was run",
            file=sys.stderr,
        )
    else:
        print(f"lora-bench: {error}", file=sys.stderr)
    return error.exit_code


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: what is under way is put down tidily."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
