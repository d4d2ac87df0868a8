"""Render the shipped reports again as the present version does, without running anything.

    python tools/rerender_reports.py [NAME ...]      # folders below reports/; default: all

Numbers come from `results.json`, which stays as it is, as do `results.csv` and `results.parquet`.  It holds neither
clips nor loss curves: the players and the plot of losses are taken over from the page that is there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

from markupsafe import Markup

from lora_bench.planning.run_folder import ReportFolder
from lora_bench.report.audio.choose_clips import Heard
from lora_bench.report.contents import build_report, choose_title
from lora_bench.report.render import write_documents, write_files
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import Block, Clip, Figure, Heading, Listening, Matrix, MatrixRow
from lora_bench.report.writers.svg import STYLE
from lora_bench.results.reading import read_results_file

REPORTS = Path(__file__).parents[1] / "reports"
LOSSES = "losses"
REFERENCE = "reference"
# Markup of lora_bench/report/templates/blocks.html.j2; <h3> is that of versions without a matrix.
_MATRIX = re.compile(r'<section class="matrix">(.*?)</section>', re.DOTALL)
_VOICE = re.compile(r'<th scope="col">(.*?)</th>')
_ROW = re.compile(r'<tr><th scope="row" title="(.*?)">(.*?)</th><td>(\d+)</td>(.*?)</tr>', re.DOTALL)
_CELL = re.compile(r"<td>(.*?)</td>", re.DOTALL)
_PLAYER = re.compile(r'aria-label="([^"]*)" data-sound="([^"]*)" data-gain="([^"]*)"')
_PICTURE = re.compile(r'<img src="([^"]*)"')
_SECTION = re.compile(
    r'<section class="listening"><(?:p class="title"|h3) title="(.*?)">(.*?)</(?:p|h3)>(.*?)</section>',
    re.DOTALL,
)
_CLIP = re.compile(r'<figure class="clip"><figcaption>(.*?)</figcaption>(.*?)</figure>', re.DOTALL)
_AUDIO = re.compile(r'<audio [^>]*?src="([^"]*)"(?: data-gain="([^"]*)")?')
_LOSSES = re.compile(
    r'aria-label="Training and held-out loss over steps".*?<figcaption>(.*?)</figcaption>', re.DOTALL
)


def read_clips(page: str) -> Heard:
    """Return the clips of a page, of this version or an earlier one."""
    matrices = [_read_matrix(found) for found in _MATRIX.findall(page)]
    sections = [
        Listening(unescape(title), unescape(hint), tuple(_list_clips(content)))
        for hint, title, content in _SECTION.findall(page)
    ]
    pairs = tuple(item for item in sections if "; similarity " in item.title)
    if not matrices:
        matrices = list(_arrange(item for item in sections if item not in pairs))
    return Heard(tuple(matrices), pairs)


def _read_matrix(content: str) -> Matrix:
    rows: list[MatrixRow] = []
    for hint, title, index, cells in _ROW.findall(content):
        clips: list[Clip | None] = []
        for cell in _CELL.findall(cells):
            player, picture = _PLAYER.search(cell), _PICTURE.search(cell)
            label = "" if player is None else player[1].removesuffix(f": {title}, clip {index}")
            clips.append(
                player and Clip(unescape(label), None, player[2], picture and picture[1], float(player[3]))
            )
        rows.append(MatrixRow(unescape(title), unescape(hint), int(index), tuple(clips)))
    return Matrix(tuple(unescape(voice) for voice in _VOICE.findall(content)[2:]), tuple(rows))


def _list_clips(content: str) -> Iterator[Clip]:
    for label, inner in _CLIP.findall(content):
        audio, picture = _AUDIO.search(inner), _PICTURE.search(inner)
        sound, gain = (None, 1.0) if audio is None else (audio[1], float(audio[2] or 1.0))
        yield Clip(unescape(label), None, sound, picture and picture[1], gain)


def _arrange(sections: Iterator[Listening]) -> Iterator[Matrix]:
    """Yield sections of one prompt and clip index each as one matrix."""
    kept = [(item, re.fullmatch(r"(.*), clip (\d+)", item.title)) for item in sections]
    rows = [(item, found[1], int(found[2])) for item, found in kept if found]
    voices = list(dict.fromkeys(_name_voice(clip) for item, *_ in rows for clip in item.clips))
    if rows:
        yield Matrix(
            tuple(voices),
            tuple(
                MatrixRow(title, item.hint, index, tuple(by_voice.get(voice) for voice in voices))
                for item, title, index in rows
                for by_voice in [{_name_voice(clip): clip for clip in item.clips}]
            ),
        )


def _name_voice(clip: Clip) -> str:
    return REFERENCE if clip.label.startswith(f"{REFERENCE}:") else clip.label


def read_losses(folder: Path, page: str) -> list[Block]:
    """Return the plot of losses with its heading, in the present style; nothing without one."""
    path, found = folder / f"{LOSSES}.svg", _LOSSES.search(page)
    if found is None or not path.is_file():
        return []
    svg = re.sub(
        r"<style>.*?</style>", lambda _: f"<style>{STYLE}</style>", path.read_text("utf-8"), flags=re.DOTALL
    )
    alt = "Plot of training and held-out loss over steps"
    return [Heading(2, "Training", LOSSES), Figure(LOSSES, alt, unescape(found[1]), Markup(svg))]


def rerender_report(folder: Path) -> list[Path]:
    """Render a shipped report again, and return the files that were written."""
    view = RunView(read_results_file(folder / ReportFolder.results), folder)
    page = (folder / ReportFolder.page).read_text(encoding="utf-8")
    report = build_report(view, read_clips(page))
    front = list(report.front)
    anchors = [block.anchor if isinstance(block, Heading) else None for block in front]
    before = anchors.index("details")
    front[before:before] = read_losses(folder, page)
    return write_files(folder, write_documents(choose_title(view), replace(report, front=tuple(front))))


def main() -> int:
    """Render the reports that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted(path.parent.name for path in REPORTS.glob(f"*/{ReportFolder.results}"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names = parser.parse_args().names or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"{unknown[0]}: is no shipped report; expected one of {', '.join(known)}")
    for name in names:
        for path in rerender_report(REPORTS / name):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
