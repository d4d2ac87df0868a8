"""The folder of a paper: tables, figures, methods and references of runs, a document that holds them, the archive."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_bench.errors import ResourceError, UsageError
from lora_bench.machine.programs import ProgramError, call_program
from lora_bench.report.answer import Answer
from lora_bench.report.answer_lines import describe_lacks, describe_levels
from lora_bench.report.contents import choose_title
from lora_bench.report.paper.archive import write_archive
from lora_bench.report.paper.joint import build_verdict_table, list_verdicts, write_numbers
from lora_bench.report.paper.latex import escape_latex, write_table
from lora_bench.report.paper.methods import write_methods
from lora_bench.report.paper.references import Citations
from lora_bench.report.paper.tikz import write_figure
from lora_bench.report.plots.forest import draw_forest
from lora_bench.report.plots.scores import draw_losses, draw_scores
from lora_bench.report.plots.study import build_study_plots
from lora_bench.report.sections.answer import build_answer_table
from lora_bench.report.sections.scores import SEE_DETAILS, metric_table
from lora_bench.report.sections.study import build_study
from lora_bench.report.sections.tuning import build_tuning
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Figure, Heading, Table
from lora_bench.results.gather import gather_results
from lora_bench.slugs import prompt_slug
from lora_bench.store import write_text

DOCUMENT, BIBLIOGRAPHY, ARCHIVE, READ_ME = "paper.tex", "references.bib", "numbers.tar.gz", "README.md"
NUMBERS, VERDICTS = "numbers.tex", "verdicts"
COMPILERS = ("pdflatex", "bibtex")
COMPILE_LIMIT_S = 300.0
_FLAGS = ("-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape")

_HEAD = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage[margin=25mm]{geometry}
\usepackage{booktabs}
\usepackage{adjustbox}
\usepackage{tikz}
\usepackage{placeins}
\usepackage[tableposition=top]{caption}
"""
_ALONE = r"""\documentclass[border=2pt]{standalone}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{tikz}
\begin{document}
\input{%s.tikz}
\end{document}
"""
_READ_ME = """# {title}

- `{document}` is a document that holds everything: take from it what you need, or compile it with `pdflatex`, `bibtex`
  and twice `pdflatex`.
- `tables/`, `methods/`: LaTeX, for `booktabs` and `adjustbox`. `figures/`: TikZ (`.tikz`), each with a document of its
  own (`.tex`) that gives its PDF.
- `{numbers}` defines `\\Number{{RUN/CONFIGURATION/zero-shot/difference}}` and the like, for running text.
- `{bibliography}` cites the models, metrics, adapters and software that were used.
- `{archive}` holds the numbers of every run and their SHA-256 sums. To check and to rebuild the reports:

```sh
tar xzf {archive} && sha256sum --check --quiet SHA256SUMS
{commands}
```
"""


@dataclass(frozen=True)
class PaperRun:
    """A run in a paper.

    Attributes:
        name: of its files.
    """

    name: str
    folder: Path
    answer: Answer

    @property
    def view(self) -> RunView:
        """Its results."""
        return self.answer.view


def read_runs(folders: Sequence[Path]) -> list[PaperRun]:
    """Read the results of runs.

    Raises:
        StoreError: a folder holds no run.
        UsageError: a run is named twice.
    """
    runs: list[PaperRun] = []
    for folder in folders:
        view = RunView(gather_results(folder), folder)
        name = prompt_slug(view.results.name)
        if any(run.name == name for run in runs):
            raise UsageError(
                f"{folder}: a run named {view.results.name!r} is already in the paper; name each once"
            )
        runs.append(PaperRun(name, folder, Answer(view)))
    return runs


def read_document(path: Path) -> str:
    """Read a document of one's own.

    Raises:
        UsageError: it cannot be read, is not in UTF-8, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--document {path}: cannot be read as LaTeX in UTF-8 ({error})") from error
    if not text.strip():
        raise UsageError(f"--document {path}: is empty; expected a LaTeX document")
    return text


def write_bundle(
    runs: Sequence[PaperRun],
    folder: Path,
    *,
    document: str | None = None,
    with_clips: bool = False,
    with_adapters: bool = False,
) -> list[Path]:
    r"""Write the LaTeX and the archive.

    Args:
        runs: from `read_runs`.
        folder: made if it does not exist; files of the same names are replaced.
        document: LaTeX that stands for the document that holds everything; it takes the other files in by `\input`.
        with_clips: put clips into the archive, too.
        with_adapters: put adapters into the archive, too.

    Returns:
        The files that were written.

    Raises:
        UsageError: it would replace files that no earlier call wrote.
    """
    citations, files = Citations(), dict[str, str]()
    body: list[str] = []
    for run in runs:
        parts = dict(_write_run(run, citations))
        files |= parts
        body.append(_write_section(run, list(parts)))
    titles = " and ".join(choose_title(run.view) for run in runs)
    answers = {run.view.results.name: run.answer for run in runs}
    has_verdicts = any(list_verdicts(answer) for answer in answers.values())
    if has_verdicts:
        files[f"tables/{VERDICTS}.tex"] = write_table(build_verdict_table(answers), VERDICTS)
    files[NUMBERS] = write_numbers(answers)
    files[DOCUMENT] = document or "\n".join(
        [
            _HEAD.rstrip(),
            rf"\title{{{escape_latex(titles)}}}",
            r"\author{}",
            r"\date{}",
            r"\begin{document}",
            r"\maketitle",
            *[rf"\input{{tables/{VERDICTS}}}"] * (len(runs) > 1 and has_verdicts),
            *body,
            r"\bibliographystyle{plain}",
            rf"\bibliography{{{BIBLIOGRAPHY.removesuffix('.bib')}}}",
            r"\end{document}",
            "",
        ]
    )
    files[BIBLIOGRAPHY] = citations.write_bibtex()
    commands = "\n".join(f"lora-bench report {run.name}" for run in runs)
    files[READ_ME] = _READ_ME.format(
        title=titles,
        document=DOCUMENT,
        numbers=NUMBERS,
        bibliography=BIBLIOGRAPHY,
        archive=ARCHIVE,
        commands=commands,
    )
    _refuse_foreign(folder, files)
    folder.mkdir(parents=True, exist_ok=True)
    write_archive(
        folder / ARCHIVE,
        {run.name: run.folder for run in runs},
        with_clips=with_clips,
        with_adapters=with_adapters,
    )
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in [*files, ARCHIVE]]


def _refuse_foreign(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse to replace files of another origin: those of a paper stand next to its archive, which comes first."""
    if (folder / ARCHIVE).is_file():
        return
    for name, text in files.items():
        path = folder / name
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
            raise UsageError(
                f"{path}: was not written by `lora-bench paper`, which would replace it; choose another --to"
            )


def _write_run(run: PaperRun, citations: Citations) -> Iterator[tuple[str, str]]:
    """Yield names and texts of a run's files."""
    yield f"methods/{run.name}.tex", write_methods(run.answer, citations)
    for slug, table in _list_tables(run.answer):
        yield f"tables/{run.name}-{slug}.tex", write_table(table, f"{run.name}-{slug}")
    for figure in _list_figures(run.answer):
        name = f"{run.name}-{figure.slug}"
        yield f"figures/{name}.tikz", write_figure(figure)
        yield f"figures/{name}.tex", _ALONE % name
        yield f"figures/{name}-float.tex", _float_figure(figure, name)


def _list_tables(answer: Answer) -> Iterator[tuple[str, Table]]:
    view = answer.view
    if answer.rows:
        yield "answer", build_answer_table(answer)
    for metric in sorted(view.metrics, key=lambda name: name != answer.metric):
        table = metric_table(view, metric, is_corrected=view.is_corrected(metric))
        yield f"scores-{prompt_slug(metric)}", replace(table, caption=table.caption.removesuffix(SEE_DETAILS))
    yield from (("tuning", block) for block in build_tuning(view) if isinstance(block, Table))
    yield from ((f"study-{index}", table) for index, table in enumerate(_list_study_tables(view), start=1))


def _list_study_tables(view: RunView) -> Iterator[Table]:
    metric = ""
    for block in build_study(view):
        if isinstance(block, Heading) and block.level == 3:
            metric = block.text
        elif isinstance(block, Table):
            yield replace(block, caption=f"{metric}: {block.caption[:1].lower()}{block.caption[1:]}")


def _list_figures(answer: Answer) -> Iterator[Figure]:
    view = answer.view
    drawn = (draw_forest(answer), draw_scores(view, answer.metric, "levels"), draw_losses(view))
    yield from (figure for figure in drawn if figure is not None)
    yield from build_study_plots(view, limit_to=answer.metric)


def _float_figure(figure: Figure, name: str) -> str:
    return "\n".join(
        [
            r"\begin{figure}[htbp]",
            r"\centering",
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\input{{figures/{name}.tikz}}%",
            r"\end{adjustbox}",
            rf"\caption{{{escape_latex(figure.caption)}}}",
            rf"\label{{fig:{name}}}",
            r"\end{figure}",
            "",
        ]
    )


def _write_section(run: PaperRun, names: Sequence[str]) -> str:
    answer = run.answer
    lines = (answer.headline, describe_levels(answer), describe_lacks(answer))
    shown = [name for name in names if name.startswith("tables/") or name.endswith("-float.tex")]
    return "\n".join(
        [
            rf"\section{{{escape_latex(choose_title(run.view))}}}",
            r"\subsection{Results}",
            *(escape_latex(line) for line in lines if line),
            *(rf"\input{{{name.removesuffix('.tex')}}}" for name in shown),
            r"\FloatBarrier",
            r"\subsection{Methods}",
            rf"\input{{methods/{run.name}}}",
        ]
    )


def find_compiler() -> bool:
    """Return whether TeX is installed."""
    return all(shutil.which(name) for name in COMPILERS)


def compile_bundle(folder: Path) -> list[Path]:
    """Compile the document and each figure with pdfLaTeX.

    Returns:
        The PDFs.

    Raises:
        ResourceError: TeX could not compile a file, or a package is missing; names the log.
    """
    made: list[Path] = []
    for figure in sorted((folder / "figures").glob("*.tikz")):
        _compile("pdflatex", figure.with_suffix(".tex"))
        made.append(figure.with_suffix(".pdf"))
    document = folder / DOCUMENT
    _compile("pdflatex", document)
    aux = document.with_suffix(".aux")
    if aux.is_file() and "\\bibdata" in aux.read_text("utf-8", "replace"):  # else BibTeX fails
        _compile("bibtex", document)
    for _ in range(2):
        _compile("pdflatex", document)
    made.append(document.with_suffix(".pdf"))
    for path in made:
        for suffix in (".aux", ".log", ".out", ".blg", ".bbl"):
            path.with_suffix(suffix).unlink(missing_ok=True)
    return made


def _compile(program: str, document: Path) -> None:
    words = [program, *_FLAGS, document.name] if program == "pdflatex" else [program, document.stem]
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as place:
        outputs = Path(place, "stdout.txt"), Path(place, "stderr.txt")
        try:
            call_program(words, outputs, folder=document.parent, timeout_s=COMPILE_LIMIT_S)
        except ProgramError as error:
            found = re.search(r"^! (.*)$", outputs[0].read_text("utf-8", "replace"), re.MULTILINE)
            reason = f"failed ({found[1]})" if found and not error.is_timeout else str(error)
            raise ResourceError(
                f"{document}: {program} {reason}; the log is {document.with_suffix('.log').name} next to it; a missing "
                ".sty file is in a package of TeX Live, such as texlive-latex-extra"
            ) from error
