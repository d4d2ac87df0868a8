"""`lora-bench paper`: write the LaTeX of runs, their references, and an archive of their numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_bench.cli.options import option, runs_dir_option
from lora_bench.cli.run_places import resolve_run
from lora_bench.errors import EXIT_OK


@dataclass(frozen=True)
class Options:
    """Options of `lora-bench paper`."""

    run: Sequence[Path] = option(
        metavar="SPEC|RUN_DIR", nargs="+", type=Path, help="runs, each given by its spec or its folder"
    )
    runs_dir: Path = runs_dir_option()
    to: Path = option("--to", metavar="FOLDER", help="a folder; made if it does not exist")
    document: Path | None = option(
        "--document",
        metavar="FILE.tex",
        type=Path,
        help="a document of your own in place of paper.tex, which takes the tables, figures and numbers in",
    )
    clips: bool = option("--clips", help="put generated clips into the archive, so that its page plays them")
    adapters: bool = option("--adapters", help="put adapters into the archive")


def execute(options: Options) -> int:
    """Write the folder, compile it where TeX is installed, and print the files.

    Raises:
        UsageError: no such run, one is named twice, the document cannot be read, or the folder holds other files
            of the same names.
        StoreError: a folder holds no run.
        ResourceError: TeX failed; the LaTeX is kept.
    """
    runs = [resolve_run(run, options.runs_dir).absolute() for run in options.run]
    from lora_bench.report.paper.bundle import (
        compile_bundle,
        find_compiler,
        read_document,
        read_runs,
        write_bundle,
    )

    folder = options.to.absolute()
    document = None if options.document is None else read_document(options.document)
    written = write_bundle(
        read_runs(runs),
        folder,
        document=document,
        with_clips=options.clips,
        with_adapters=options.adapters,
    )
    for path in written:
        print(path)
    if not find_compiler():
        print("pdflatex and bibtex are not installed, so there are no PDFs", file=sys.stderr)
        return EXIT_OK
    for path in compile_bundle(folder):
        print(path)
    return EXIT_OK
