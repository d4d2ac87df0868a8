"""The command line: the list of verbs, and their dispatch.

A verb's options and work are in `commands/<verb>.py`, which is imported only if the verb is used: it has `Options`
and `execute`.  stdout carries results, stderr progress and errors.  Exit codes: 0 complete, 1 failure,
2 usage or invalid spec, 3 incomplete, 130 stopped by Ctrl-C (`run`: 3).
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
from types import ModuleType

from lora_bench import __version__
from lora_bench.cli.messages import call_command, print_legibly
from lora_bench.cli.options import add_options
from lora_bench.errors import EXIT_FAILURE
from lora_bench.runner.process_environment import choose_waiting, set_defaults

VERBS = {
    "run": "run or resume an experiment, and write its report",
    "init": "inspect a folder of audio and write a commented spec for it",
    "inspect": "look for faults in a folder of recordings and in its captions",
    "captions": "write the captions of a folder, and where they come from, to a file to edit and read back",
    "validate": "check specs and the files that they name, and list every problem with its place",
    "plan": "list the trials of a spec, why each one runs, and the time, memory and disk space it takes",
    "status": "show the state of every trial of a run (exit code 3 while the run is incomplete)",
    "clean": "list the unused cache entries of a folder of runs, and remove them",
    "report": "render the report of a run again from its files",
    "generate": "generate clips with an adapter and with the base model, from the same noise",
    "export": "write an adapter or merged weights, with a model card",
    "convert": "convert a model or an adapter between transformers and audiocraft",
    "paper": "write LaTeX tables, figures and methods of runs, references, and an archive of their numbers",
    "push": "publish adapters, clips and the report of a run on the Hugging Face Hub",
    "index": "write an overview page and a leaderboard of a folder of runs",
    "listen": "write the page of a listening test, or evaluate the answers that people saved",
    "score": "score a folder of audio against a folder of recordings",
    "compare": "compare two runs or two trials, with intervals where they share noise",
    "calibrate": "measure how often the intervals and verdicts of a run's design are right, on its own features",
    "specs": "list the shipped specs, or print one of them",
    "schema": "print the JSON Schema of a spec, for editors",
    "doctor": "report what this machine can run and what is missing",
}
COMPUTING_VERBS = frozenset({"generate", "export", "convert"})  # run and score compute through the API
EPILOG = """`lora-bench COMMAND --help` lists the options of a command.

exit codes: 0 complete, 1 failure, 2 usage or invalid spec, 3 incomplete,
130 stopped by Ctrl-C (`run`: 3; the same command resumes it).
LORA_BENCH_DEBUG=1 prints the traceback of an error."""


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all verbs, with the options of one of them."""
    parser = argparse.ArgumentParser(
        prog="lora-bench",
        description="Measure what LoRA fine-tuning does to a music generator.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"lora-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, text in VERBS.items():
        of_verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == verb:
            add_options(of_verb, load_command(name).Options)
    return parser


def load_command(verb: str) -> ModuleType:
    """Import the module of a verb."""
    return import_module(f"lora_bench.cli.commands.{verb}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become messages on stderr."""
    print_legibly()
    return call_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(words: Sequence[str]) -> int:
    set_defaults()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb in COMPUTING_VERBS or "--probe" in words:
        choose_waiting()
    with _terminate_as_interrupt():
        try:
            arguments = vars(build_parser(verb).parse_args(words))
        except SystemExit as error:  # argparse has printed the usage or the help
            return error.code if isinstance(error.code, int) else EXIT_FAILURE
        command = load_command(arguments.pop("verb"))
        return int(command.execute(command.Options(**arguments)))


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that work in progress ends in an orderly way."""
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
