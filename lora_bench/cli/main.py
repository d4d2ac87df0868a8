"""The command line: verbs, options, exit codes.  What a verb does is in `commands/`, imported on use.

stdout carries results, stderr progress and errors.  Exit codes: 0 complete, 1 a failure while working,
2 usage or an invalid spec, 3 incomplete, 130 stopped by Ctrl-C (`run`: 3).
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

from lora_bench import __version__
from lora_bench.cli.messages import call_command, print_legibly
from lora_bench.errors import EXIT_FAILURE
from lora_bench.process_environment import choose_waiting, set_defaults

EPILOG = """exit codes: 0 complete, 1 a failure while working, 2 usage or an invalid spec, 3 incomplete,
130 stopped by Ctrl-C (`run`: 3, it can go on).
LORA_BENCH_DEBUG=1 shows the traceback of an error."""
COMPUTING_VERBS = frozenset({"run", "score", "generate", "export", "convert"})


def build_parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    parser = argparse.ArgumentParser(
        prog="lora-bench",
        description="Benchmarks of what LoRA fine-tuning does to MusicGen.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lora-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = _add(verbs, "run", "run or resume an experiment and write its report")
    _add_spec(run)
    _add_folders(run)
    run.add_argument(
        "--executor", choices=("local", "ray"), help="one trial at a time, or in parallel by Ray Tune"
    )
    run.add_argument(
        "--ray-address", metavar="HOST:PORT", help="join this Ray cluster (implies --executor ray)"
    )
    run.add_argument("--yes", action="store_true", help="run a plan of many trials without confirmation")
    run.add_argument("--quiet", action="store_true", help="print errors only")

    init = _add(verbs, "init", "inspect a folder of audio and write a commented spec for it")
    init.add_argument("folder", type=Path, metavar="FOLDER")
    init.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the folder's name, .yaml")
    init.add_argument("--model", default="pocket", metavar="ID", help="default: pocket")
    init.add_argument("--force", action="store_true", help="overwrite an existing spec")

    _add_validate(verbs)
    plan = _add(verbs, "plan", "show every trial, why it would run, and what it would take")
    _add_spec(plan)
    _add_runs_dir(plan)
    plan.add_argument(
        "--probe", action="store_true", help="measure memory and time of models without an earlier run"
    )
    _add_json(plan)

    status = _add(verbs, "status", "show how far a run is (exit code 3 while it is incomplete)")
    status.add_argument("target", type=Path, metavar="SPEC|RUN_DIR")
    _add_runs_dir(status)
    _add_json(status)

    clean = _add(verbs, "clean", "list unused cache entries of a folder of runs, and remove them")
    _add_runs_dir(clean)
    clean.add_argument("--yes", action="store_true", help="remove what is listed")
    clean.add_argument(
        "--old-trials", action="store_true", help="include trials that are no longer in their run's spec"
    )
    _add_json(clean)

    report = _add(verbs, "report", "render the report of a run again from its files")
    _add_run(report)
    _add_reports_dir(report)

    _add_take_away(verbs)
    _add_convert(verbs)

    index = _add(verbs, "index", "write an overview page and a leaderboard over a folder of runs")
    index.add_argument("runs", type=Path, metavar="RUNS_DIR|SPEC", help="the runs of a spec's folder of runs")
    _add_runs_dir(index)
    _add_reports_dir(index)

    score = _add(verbs, "score", "score any folder of audio against another")
    score.add_argument("--reference", required=True, type=Path, metavar="DIR", help="real recordings")
    score.add_argument("--generated", required=True, type=Path, metavar="DIR", help="clips to be scored")
    score.add_argument("--metric", required=True, action="append", dest="metrics", metavar="NAME")
    score.add_argument(
        "--prompt", metavar="TEXT", help="text that the clips were generated from, for clap_score"
    )
    score.add_argument(
        "--clip-s", type=_read_seconds, metavar="S", help="cut all files to this length; default: whole files"
    )
    score.add_argument(
        "--model",
        metavar="ID",
        help="model whose codec `encodec` uses and whose rate `mfcc20` uses; default: pocket",
    )
    score.add_argument(
        "--no-guards",
        action="store_true",
        help="scores only, without levels, variety, silence, loops, copies",
    )
    score.add_argument("--quiet", action="store_true", help="no progress")
    _add_json(score)

    compare = _add(
        verbs, "compare", "compare two runs or two trials, with paired tests where they share noise"
    )
    for name in ("first", "second"):
        compare.add_argument(
            name,
            type=Path,
            metavar="SPEC|RUN_DIR[:TRIAL]",
            help="a run, its results.json, or one of its trials",
        )
    _add_runs_dir(compare)
    _add_json(compare)

    specs = _add(verbs, "specs", "list the specs that come with lora_bench, or print one to start from")
    specs.add_argument("name", nargs="?", metavar="NAME", help="such as quickstart; default: list all")
    _add(verbs, "schema", "print the JSON Schema of a spec, for editors")
    doctor = _add(verbs, "doctor", "report what this machine can run, and what is missing")
    doctor.add_argument(
        "--model", metavar="ID", help="load this model offline and report what it is or lacks"
    )
    _add_json(doctor)
    return parser


def _add_validate(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
) -> None:
    validate = _add(
        verbs, "validate", "check specs and the files that they name; list every problem with its place"
    )
    validate.add_argument("specs", nargs="+", type=Path, metavar="SPEC")
    validate.add_argument(
        "--spec-only",
        action="store_true",
        help="do not look for recordings, captions and models on this machine",
    )


def _read_seconds(text: str) -> float:
    """A length in seconds above zero."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a length in seconds above 0, such as 8")
    return seconds


def _add_convert(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
) -> None:
    convert = _add(verbs, "convert", "convert a model or an adapter between transformers and audiocraft")
    convert.add_argument(
        "source", metavar="SOURCE", help="pocket, a hub id, a model's or an adapter's folder, a checkpoint.th"
    )
    convert.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="a new folder")
    convert.add_argument(
        "--form",
        choices=("transformers", "audiocraft"),
        help="default: the format that the source does not have",
    )
    convert.add_argument(
        "--adapter", type=Path, metavar="DIR", help="merge this adapter into the weights of a model"
    )
    convert.add_argument("--base", metavar="MODEL", help="the converted model that an adapter is for")


def _add_take_away(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
) -> None:
    generate = _add(
        verbs, "generate", "generate clips with an adapter and with the base model, from the same noise"
    )
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--seconds", type=float, metavar="S", help="default: the length of the run's clips")
    generate.add_argument(
        "--scale", type=float, default=1.0, metavar="0..1", help="strength of the adapter; default: 1"
    )
    generate.add_argument("--clip", type=int, default=0, metavar="N", help="which noise; default: 0")
    generate.add_argument("--seed", type=int, metavar="N", help="root of the noise; default: the run's")
    generate.add_argument(
        "--to", type=Path, metavar="FILE", help="a .wav or .flac; default: by trial and prompt"
    )
    generate.add_argument("--force", action="store_true", help="overwrite existing files")
    generate.add_argument("--quiet", action="store_true", help="no progress")

    export = _add(verbs, "export", "write an adapter or merged weights, with a model card")
    export.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="a new folder")
    export.add_argument(
        "--merged", action="store_true", help="merge the adapter into the weights, for transformers"
    )
    export.add_argument("--license", metavar="ID", help="for the model card; default: the base weights'")
    export.add_argument(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="upload to the Hugging Face Hub too, private unless --public",
    )
    export.add_argument("--public", action="store_true", help="make a new repository public")
    for parser in (generate, export):
        _add_run(parser)
        parser.add_argument(
            "--trial", default="best", metavar="NAME", help="name or id of a trained trial; default: best"
        )
        parser.add_argument(
            "--metric", metavar="NAME", help="what best means; default: the run's first metric"
        )


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    return verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spec", type=Path, metavar="SPEC", help="YAML file, or a shipped spec, such as quickstart"
    )
    parser.add_argument(
        "-o", "--override", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="change a field, such as lora.rank=16: in every trial, also where a variant states it; may be given "
        "several times (an override that changes nothing, or of an axis of the grid, is an error)",
    )  # fmt: skip


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="SPEC|RUN_DIR", help="a run, by its spec or its folder")
    _add_runs_dir(parser)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    _add_runs_dir(parser)
    _add_reports_dir(parser)


def _read_folder(text: str) -> Path:
    """A folder of this machine's file systems.

    Raises:
        argparse.ArgumentTypeError: a URL, which would become a folder named after its scheme.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URL; expected a folder (on a cluster one that every machine mounts under the same path), "
            "for states and locks are files that are renamed in place"
        )
    return Path(text)


def _add_runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir", type=_read_folder, default=Path("runs"), metavar="DIR", help="default: runs"
    )


def _add_reports_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reports-dir", type=_read_folder, default=Path("reports"), metavar="DIR", help="default: reports"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable, on stdout")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become messages on stderr."""
    print_legibly()
    return call_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as error:  # argparse has printed the usage, or the help
        return error.code if isinstance(error.code, int) else EXIT_FAILURE
    set_defaults()
    if arguments.verb in COMPUTING_VERBS or getattr(arguments, "probe", False):
        choose_waiting()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with _terminate_as_interrupt():
        return int(import_module(f"lora_bench.cli.commands.{arguments.verb}").execute(arguments))


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
