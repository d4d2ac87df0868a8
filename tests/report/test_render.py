from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import av
import numpy as np
import pytest
from support.fake_run import (
    PLAIN_PROMPTS,
    PROMPT_HTML,
    PROMPT_KOREAN,
    FakeRun,
    FakeTrial,
    contrast,
    zero_shot,
)
from support.light_imports import REFUSE_HEAVY

from lora_bench.errors import StoreError
from lora_bench.report.audio.spectrogram import HEIGHT, WIDTH, draw_spectrogram
from lora_bench.report.formatting import format_interval, format_value, format_with_error, shorten, text_width
from lora_bench.report.render import render_report
from lora_bench.report.writers.svg import nice_ticks


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    run = FakeRun(n_wavs=2, n_references=2, prompts=[PROMPT_HTML, PROMPT_KOREAN]).write(tmp_path / "runs")
    first = render_report(run, tmp_path / "reports")
    before = read_all(tmp_path / "reports" / "invented")
    render_report(run, tmp_path / "reports")
    assert read_all(tmp_path / "reports" / "invented") == before
    assert sorted(path.name for path in first) == sorted(before)
    render_report(run, tmp_path / "other")
    assert read_all(tmp_path / "other" / "invented") == before


def test_all_files_of_a_report_are_written(tmp_path: Path) -> None:
    render_report(FakeRun().write(tmp_path / "runs"), tmp_path / "reports")
    names = set(read_all(tmp_path / "reports" / "invented"))
    assert names == {
        "report.md", "details.md", "report.html", "results.csv", "results.json", "results.parquet",
        "levels.svg", "losses.svg",
    }  # fmt: skip
    results = json.loads((tmp_path / "reports" / "invented" / "results.json").read_text())
    assert results["complete"] is True


def test_plots_are_well_formed_and_hold_every_value(tmp_path: Path) -> None:
    render_report(
        FakeRun(prompts=[PROMPT_HTML, PROMPT_KOREAN]).write(tmp_path / "runs"), tmp_path / "reports"
    )
    for name, n_dots in (("levels.svg", 6), ("losses.svg", 0)):
        root = ET.parse(tmp_path / "reports" / "invented" / name).getroot()
        hinted = [dot for dot in root.iter("{http://www.w3.org/2000/svg}circle") if len(dot)]
        assert len(hinted) == n_dots
        lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
        assert len(lines) == (2 if name == "losses.svg" else 0)


def test_plots_of_metrics_that_are_gone_are_removed(tmp_path: Path) -> None:
    run = FakeRun(metrics=["mfcc20", "encodec"])
    render_report(run.write(tmp_path / "runs"), tmp_path / "reports")
    (tmp_path / "reports" / "invented" / "notes.txt").write_text("mine")
    run.metrics = ["mfcc20"]
    for path in (tmp_path / "runs" / "invented" / "trials").glob("*/adapter"):
        path.rmdir()
    render_report(run.write(tmp_path / "runs"), tmp_path / "reports")
    names = set(read_all(tmp_path / "reports" / "invented"))
    assert "scores-2.svg" not in names
    assert "notes.txt" in names


def test_a_report_can_be_made_from_results_alone(tmp_path: Path) -> None:
    score = {
        "metric": "mfcc20",
        "prompt": None,
        "value": 1.5,
        "se": None,
        "n_generated": 9,
        "n_reference": 9,
        "dim": 20,
    }
    trial = {
        "id": "z-1", "name": "zero-shot", "kind": "zero-shot", "train_seed": None, "state": "done",
        "lora": None, "trainable_params": 0, "adapter": None, "scores": [score],
    }  # fmt: skip
    (tmp_path / "alone").mkdir()
    document = {"schema": 1, "name": "alone", "complete": True, "trials": [trial]}
    (tmp_path / "alone" / "results.json").write_text(json.dumps(document))
    render_report(tmp_path / "alone", tmp_path / "reports")
    assert "| **all prompts** | 1.500 |" in (tmp_path / "reports" / "alone" / "report.md").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"plan\.json"):
        render_report(tmp_path, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("n_trials", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_thousands_of_cells_stay_bounded_and_complete_in_the_csv(tmp_path: Path, n_trials: int) -> None:
    trials = [
        zero_shot(),
        *(FakeTrial(f"r{i}", rank=1 + i % 64, base=0.5 + i / 1000) for i in range(1, n_trials)),
    ]
    metrics = ["mfcc20", "mfcc20-seed", "encodec", "vggish", "clap"]
    prompts = [f"invented prompt {i}" for i in range(9)]
    told = [contrast(trial, metric, None, "better") for trial in trials[1:] for metric in metrics]
    run = FakeRun(trials=trials, metrics=metrics, prompts=prompts, contrasts=told).write(tmp_path / "runs")
    render_report(run, tmp_path / "reports")
    files = read_all(tmp_path / "reports" / "invented")
    assert files["results.csv"].count(b"\n") == 1 + n_trials * len(metrics) * (len(prompts) + 1)
    assert len(files["report.html"]) < 4_000_000
    assert len(files["report.md"]) < 2_000_000
    assert all(len(data) < 100_000 for name, data in files.items() if name.endswith(".svg"))


def test_reports_are_made_without_torch_and_ray(tmp_path: Path) -> None:
    run = FakeRun(n_wavs=1).write(tmp_path / "runs")
    code = (
        f"{REFUSE_HEAVY}from lora_bench.cli.main import main\n"
        "reports = ['--reports-dir', sys.argv[2]]\n"
        "sys.exit(main(['report', sys.argv[1], *reports]) or main(['index', sys.argv[1] + '/..', *reports]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run), str(tmp_path / "blocked")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    render_report(run, tmp_path / "free")
    assert read_all(tmp_path / "blocked" / "invented") == read_all(tmp_path / "free" / "invented")
    assert (tmp_path / "blocked" / "index.html").is_file()


def test_a_spectrogram_is_brightest_at_the_height_of_its_tone() -> None:
    time_s = np.arange(16_000) / 16_000
    brightness = []
    for frequency_hz in (200.0, 3000.0):
        tone = np.sin(2 * np.pi * frequency_hz * time_s).astype(np.float32)
        pixels = decode_png(draw_spectrogram(tone, 16_000))
        brightness.append(int(pixels.mean(axis=1).argmax()))
    low, high = brightness
    # 200 Hz lies ln(4) / ln(160) = 27 % up from 50 Hz, 3000 Hz 81 %; row 0 is the top.
    assert low == pytest.approx(HEIGHT * (1 - 0.27), abs=2)
    assert high == pytest.approx(HEIGHT * (1 - 0.81), abs=2)


@pytest.mark.parametrize("n_samples", [0, 1, 50])
def test_a_spectrogram_of_silence_or_of_almost_nothing_is_dark(n_samples: int) -> None:
    assert decode_png(draw_spectrogram(np.zeros(n_samples, np.float32), 16_000)).max() == 0


def decode_png(data: bytes) -> np.ndarray:
    """Brightness of a PNG's pixels above its darkest colour, read by an independent decoder."""
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
    image = frame.to_ndarray(format="rgb24").astype(int).sum(axis=2)
    assert image.shape == (HEIGHT, WIDTH)
    return image - (4 + 3 + 20)  # the palette's first colour


def test_numbers_have_four_significant_digits() -> None:
    assert [format_value(v) for v in (1.0153, 0.0, 0.00012, 123.456, 12345.6)] == [
        "1.015", "0.000", "0.0001200", "123.5", "12346",
    ]  # fmt: skip


def test_values_are_rounded_to_what_their_error_allows() -> None:
    assert format_with_error(1.0153, 0.0123).replace("\xa0", " ") == "1.015 ± 0.012"
    assert format_with_error(49.53, 7.12).replace("\xa0", " ") == "49.5 ± 7.1"
    assert format_with_error(0.002, 0.0000174).replace("\xa0", " ") == "0.002000 ± 0.000017"
    assert format_with_error(0.5, 0.0) == "0.5000\xa0±\xa00.0000"
    assert format_with_error(0.5, None) == "0.5000"
    assert format_interval(-0.0001, 0.2, signed=True) == "\u22120.00\xa0to\xa0+0.20"
    assert format_interval(1.0, 1.0) == "1.0\xa0to\xa01.0"


@pytest.mark.parametrize("text", [PROMPT_KOREAN, "plain words " * 20, "x" * 300])
def test_shortened_text_fits_its_width(text: str) -> None:
    assert text_width(shorten(text, 40)) <= 40
    assert shorten(text, 40).endswith("…")


def test_ticks_are_round_and_inside_the_range() -> None:
    assert nice_ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(3.0, 3.0) == [3.0]
    assert all(-7.3 <= tick <= 11.1 for tick in nice_ticks(-7.3, 11.1))


def test_minus_is_one_sign_on_the_page_and_a_hyphen_in_text_files(tmp_path: Path) -> None:
    trials = [FakeTrial("r4"), FakeTrial("r8")]
    told = [
        contrast(trial, metric, prompt, verdict, delta=-0.4)
        for trial in trials
        for metric in ("mfcc20", "encodec")
        for prompt, verdict in ((None, "better"), (PLAIN_PROMPTS[0], None))
    ]
    run = FakeRun(trials=[zero_shot(), *trials], metrics=["mfcc20", "encodec"], contrasts=told)
    render_report(run.write(tmp_path / "runs"), tmp_path / "reports")
    files = read_all(tmp_path / "reports" / "invented")
    page = re.sub(
        r"<(style|script)>.*?</\1>|<pre>.*?</pre>", "", files["report.html"].decode(), flags=re.DOTALL
    )
    numbers = re.findall(
        r'[>"( :]([-\u2212]\d[\d.]*)', re.sub(r'(x|y|data-order|points|viewBox)\w*="[^"]*"', "", page)
    )
    assert len(numbers) > 20
    assert {number[0] for number in numbers} == {"\u2212"}
    for name in ("report.md", "details.md", "results.csv", "results.json"):
        assert "\u2212" not in files[name].decode(), name
    assert "| -36 % | -0.40 (-0.50 to -0.30) |" in files["report.md"].decode()
