"""A run with clips, references, scores and a contrast, and its listening page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_bench.listening.create import Wishes, WrittenPage, write_study
from lora_bench.listening.study import Study
from lora_bench.report.view import RunView
from lora_bench.results.gather import gather_results
from support.fake_run import PROMPT_HTML, PROMPT_KOREAN, FakeRun, FakeTrial, contrast, zero_shot

SMALL, LARGE = FakeTrial("r4-attention", base=0.5), FakeTrial("r16-all", base=0.3)


def write_run(folder: Path) -> Path:
    """Three configurations, of which the larger one scores better, with six clips of two prompts."""
    return FakeRun(
        trials=[zero_shot(), SMALL, LARGE],
        prompts=[PROMPT_HTML, PROMPT_KOREAN],
        metrics=("mfcc20", "encodec"),
        n_wavs=6,
        n_references=4,
        contrasts=[
            contrast(SMALL, "mfcc20", None, "inconclusive", delta=-0.1),
            contrast(LARGE, "mfcc20", None, "better", delta=-0.6),
        ],
    ).write(folder)


@dataclass
class ListeningRun:
    """A run's folder and the page that was written last."""

    folder: Path
    page: WrittenPage

    @property
    def study(self) -> Study:
        return self.page.study

    @property
    def text(self) -> str:
        return self.page.path.read_text(encoding="utf-8")

    def view(self) -> RunView:
        return RunView(gather_results(self.folder), self.folder)


def make_listening_run(place: Path) -> ListeningRun:
    """A run and its page below a folder."""
    folder = write_run(place / "runs")
    return ListeningRun(folder, write_study(folder, Wishes()))
