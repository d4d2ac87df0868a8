"""Take the pictures of docs/reports.md in Chromium, into docs/images/.

    python tools/screenshots.py [NAME ...]

Three reports are those in reports/; an incomplete run and one of 200 trials are invented by the tests' and benchmarks'
builders.  Each is taken on a desk in light and dark colours, and on a phone; the same pages give the same pictures.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.browser import Page  # noqa: E402
from support.fake_run import FakeRun, FakeTrial, contrast, zero_shot  # noqa: E402

from benchmarks.report_size import write_run  # noqa: E402
from lora_bench.report.render import render_report  # noqa: E402

FOLDER = ROOT / "docs" / "images"
MAX_BYTES = 120_000
MAX_TOTAL_BYTES = 1_200_000
N_COLOURS = 128
REASON = "the loss is not finite at step 12; lower train.lr"


LOADED = """[...document.images].every((image) => {
  const box = image.getBoundingClientRect();
  return image.complete || box.bottom < 0 || box.top > innerHeight;
})"""


@dataclass(frozen=True)
class View:
    """One picture of a page; `part` is the id of the heading to begin at."""

    name: str
    width: int
    height: int
    scheme: Literal["light", "dark"] = "light"
    part: str = ""


VIEWS = (View("light", 1280, 800), View("dark", 1280, 800, "dark"), View("phone", 390, 844))
PARTS = (
    View("effects", 1280, 800, part="effects"),
    View("listen", 1280, 560, part="listen"),
    View("details", 1280, 700, part="details"),
)


def find_shipped(name: str) -> Callable[[Path], Path]:
    """Return a function that returns the page of a shipped report."""
    return lambda _: ROOT / "reports" / name / "report.html"


def render_incomplete(place: Path) -> Path:
    """Return the page of a run with failed, running and queued trials."""
    done = FakeTrial("r4-attention", base=0.7)
    trials = [
        zero_shot(),
        done,
        FakeTrial("r8-attention", state="failed", stage="train", has_scores=False, reason=REASON),
        FakeTrial("r4-all", state="running", stage="generate", has_scores=False),
        FakeTrial("r8-all", state=None, has_scores=False),
    ]
    told = [contrast(done, "mfcc20", None, "inconclusive", delta=-0.08)]
    run = FakeRun(trials=trials, name="incomplete", contrasts=told)
    render_report(run.write(place), place / "reports")
    return place / "reports" / "incomplete" / "report.html"


def render_many(place: Path) -> Path:
    """Return the page of a study of 200 trials."""
    render_report(write_run(place, 200, n_prompts=4), place / "reports")
    return place / "reports" / "many" / "report.html"


PAGES: dict[str, Callable[[Path], Path]] = {
    "quickstart": find_shipped("quickstart"),
    "wesnoth": find_shipped("wesnoth"),
    "rank_targets": find_shipped("rank_targets"),
    "incomplete": render_incomplete,
    "many": render_many,
}


def shrink(picture: bytes) -> bytes:
    """Return a PNG with a palette of few colours."""
    image = (
        Image.open(io.BytesIO(picture))
        .convert("RGB")
        .quantize(N_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def take_pictures(name: str, browser: Page, place: Path) -> list[Path]:
    """Write the pictures of a page, and return their files."""
    page = PAGES[name](place)
    written: list[Path] = []
    for view in (*VIEWS, *(PARTS if name == "quickstart" else ())):
        browser.choose_colours(view.scheme)
        browser.open(page, view.width, view.height)
        browser.evaluate("document.documentElement.style.scrollbarWidth = 'none'")
        if view.part:
            browser.evaluate(
                f"document.getElementById({view.part!r}).scrollIntoView({{behavior: 'instant'}})"
            )
        browser.wait(LOADED)  # pictures of clips are loaded when they come into sight
        path = FOLDER / f"{name}-{view.name}.png"
        path.write_bytes(shrink(browser.capture()))
        written.append(path)
    return written


def main() -> int:
    """Take the pictures that are named, or all; 1 if one is too large, or all together are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *PAGES], help=", ".join(PAGES))
    names = parser.parse_args().names or list(PAGES)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        browser = Page(Path(place) / "profile")
        try:
            written = [path for name in names for path in take_pictures(name, browser, Path(place))]
        finally:
            browser.close()
    for path in written:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    total = sum(path.stat().st_size for path in FOLDER.glob("*.png"))
    print(f"{total:,} bytes in all")
    large = [path for path in written if path.stat().st_size > MAX_BYTES]
    return int(bool(large) or total > MAX_TOTAL_BYTES)


if __name__ == "__main__":
    sys.exit(main())
