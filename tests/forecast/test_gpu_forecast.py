"""Forecasts for a GPU: against counts on a fake one, against the product's choices, and as `plan` shows them.

`benchmarks/gpu_counts.py` compares the larger shapes.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from benchmarks import gpu_counts
from benchmarks.fake_gpu import GIB, SHAPES, build_model, fake_gpu
from benchmarks.gpu_counts import (
    LORA,
    count_codec,
    count_decoding,
    count_training,
    count_whole,
    find_published,
)
from lora_bench.cli.main import main
from lora_bench.errors import UsageError
from lora_bench.forecast import Forecaster, History, roofline, stage_memory
from lora_bench.forecast.cards import CARDS, choose_card, find_card
from lora_bench.forecast.footprint import HALF, Arithmetic, estimate_training
from lora_bench.forecast.stage_memory import (
    choose_batch,
    count_window_steps,
    estimate_codec,
    estimate_decoding,
)
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding import loop
from lora_bench.planning.plan import plan_experiment
from lora_bench.spec import ExperimentSpec
from lora_bench.spec.schema import GenerationSpec, TrainSpec
from lora_bench.stages import generate, tokens

SMALL = SHAPES["small"]
TOLERANCE = 0.1
SPEC = """schema: 1
model: {id: facebook/musicgen-small}
dataset: {builtin: chiptune, clip_s: 10}
prompts: [a, b]
generation: {n_clips: 20, clip_s: 8}
metrics: [mfcc20]
defaults: {train: {steps: 100, batch_size: 4}}
trials: {variants: [{name: r16}]}
"""


def test_decoding_is_forecast_within_a_tenth() -> None:
    n_clips, clip_s = 16, 8.0
    counts = count_whole(SMALL, lambda shape: count_decoding(shape, n_clips, clip_s, LORA))
    shape = find_published("small")
    generation = GenerationSpec(clip_s=clip_s, n_clips=n_clips, batch_size=n_clips)
    assert estimate_decoding(shape, LORA, generation, n_clips).peak == pytest.approx(
        counts.peak, rel=TOLERANCE
    )
    work = roofline.count_decode_step(shape, LORA, generation, n_clips, n_attended=448)
    assert work.n_bytes == pytest.approx(counts.n_bytes, rel=TOLERANCE)
    assert work.flop == pytest.approx(counts.flop, rel=TOLERANCE)
    assert work.launches == pytest.approx(counts.launches, rel=TOLERANCE)


@pytest.mark.parametrize("is_checkpointed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_training_is_forecast_within_a_tenth(is_checkpointed: bool) -> None:
    train = TrainSpec(batch_size=4, gradient_checkpointing=is_checkpointed, caption_dropout=0.0)
    counts = count_whole(SMALL, lambda shape: count_training(shape, train, 10.0, LORA))
    shape = find_published("small")
    found = estimate_training(shape, LORA, train, 10.0, Arithmetic("cuda", HALF), keeps_encoders=False)
    assert found.peak == pytest.approx(counts.peak, rel=TOLERANCE)
    work = roofline.count_training_step(shape, LORA, train, 10.0)
    assert work.n_bytes == pytest.approx(counts.n_bytes, rel=TOLERANCE)
    assert work.flop == pytest.approx(counts.flop, rel=TOLERANCE)
    assert work.launches == pytest.approx(counts.launches, rel=0.15)


def test_the_codec_is_forecast_within_a_tenth() -> None:
    few, more = (count_codec(n_clips, 2.0) for n_clips in (2, 6))
    shape = find_published("small")
    assert estimate_codec(shape, 4, 2.0) == pytest.approx(more.peak - few.peak, rel=TOLERANCE)
    work = roofline.count_codec(shape, 4, 2.0)
    assert work.flop == pytest.approx(more.flop - few.flop, rel=TOLERANCE)
    assert work.n_bytes == pytest.approx(more.n_bytes - few.n_bytes, rel=TOLERANCE)


def test_constants_are_those_of_the_product() -> None:
    assert (stage_memory.BUCKET, stage_memory.TEXT_UNIT) == (loop.BUCKET, decoding.TEXT_UNIT)
    assert (decoding.MEMORY_FRAC, decoding.MAX_BATCH["cuda"]) == (
        stage_memory.MEMORY_FRAC,
        stage_memory.MAX_BATCH,
    )
    assert (generate.SOUND_BATCH["cuda"], tokens.BATCH_S) == (
        stage_memory.SOUND_BATCH,
        stage_memory.ENCODED_S,
    )


@pytest.mark.parametrize(("card_gib", "clip_s"), [(12.0, 8.0), (24.0, 30.0)])
def test_the_batch_is_the_one_that_decoding_chooses(card_gib: float, clip_s: float) -> None:
    shape = replace(find_published("small"), n_frozen=0)
    generation = GenerationSpec(clip_s=clip_s, n_clips=10_000)
    resident = stage_memory.count_resident(shape, None, HALF)
    free = (card_gib - stage_memory.CONTEXT_GIB) * GIB - resident
    with (
        fake_gpu(free) as device,
        patch.object(decoding, "GraphRecorder", lambda _: None),
        torch.no_grad(),
    ):
        model = build_model(replace(SMALL, text_layers=1), device, torch.bfloat16)
        chosen = decoding.Decoder(model, generation).choose_batch_size(round(clip_s * 50))
    equal = math.ceil(generation.n_clips / math.ceil(generation.n_clips / chosen))
    assert choose_batch(shape, None, generation, card_gib) == pytest.approx(equal, abs=1)
    assert 1 < chosen < stage_memory.MAX_BATCH
    assert choose_batch(shape, None, generation.model_copy(update={"n_clips": 3}), card_gib) == 3
    assert choose_batch(shape, None, generation.model_copy(update={"batch_size": 5}), card_gib) == 5


def test_long_clips_are_decoded_in_windows_of_one_size() -> None:
    shape = find_published("small")
    steps = {
        clip_s: count_window_steps(shape, GenerationSpec(clip_s=clip_s)) for clip_s in (8.0, 30.0, 48.0, 60.0)
    }
    assert steps == {8.0: [403], 30.0: [1503], 48.0: [1503, 1503], 60.0: [1503, 1503, 1203]}
    caches = {
        estimate_decoding(shape, None, GenerationSpec(clip_s=clip_s), 10).cache for clip_s in (30.0, 60.0)
    }
    assert len(caches) == 1


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 80GB"), ("NVIDIA H100 PCIe", "H100 PCIe 80GB"), ("NVIDIA H100 NVL", None),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"), ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090 24GB"), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", "T4 16GB"), ("NVIDIA L4", "L4 24GB"), ("NVIDIA L40S", "L40S 48GB"), ("NVIDIA A10G", None),
        ("cpu", None), ("gpu", None),
    ],
)  # fmt: skip
def test_a_card_is_found_by_the_name_that_the_driver_gives(device: str, name: str | None) -> None:
    found = find_card(device)
    assert (found and found.name) == name


def test_a_card_is_chosen_by_its_name_or_what_is_clear_of_it() -> None:
    for card in CARDS:
        assert choose_card(card.name) is card
    assert choose_card("rtx-4090").name == "RTX 4090 24GB"
    assert choose_card("NVIDIA H100 80 GB").name == "H100 80GB"
    with pytest.raises(UsageError, match="--gpu A100: it may be A100 80GB or A100 PCIe 80GB or A100 40GB"):
        choose_card("A100")
    for unknown in ("B300", ""):
        with pytest.raises(
            UsageError, match=r"is not known, expected one of H200 141GB, H100 80GB, .*RTX 4070 12GB"
        ):
            choose_card(unknown)


def write_spec(folder: Path) -> str:
    (folder / "t.yaml").write_text(SPEC, encoding="utf-8")
    return str(folder / "t.yaml")


def test_plan_forecasts_on_paper_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, runs = write_spec(tmp_path), str(tmp_path / "runs")
    main(
        ["plan", spec, "--runs-dir", runs, "--gpu", "H100 80GB"]
    )  # fails after the plan: the model is not here
    out = capsys.readouterr().out
    assert (
        "on paper: H100 80GB by its data sheet (80 GB, 3350 GB/s, 989 TFLOP/s in bfloat16, 67 in float32)"
        in out
    )
    assert "assumed, not measured: 50% of these peaks are reached" in out
    assert "training 3.1 (4 slices of 10 s)" in out
    assert "(20 clips of 8 s at once), codes to sound" in out
    assert "warning" not in out
    main(["plan", spec, "--runs-dir", runs, "--gpu", "H100 80GB", "--json"])
    (zero_shot, tuned) = (trial["predicted"] for trial in json.loads(capsys.readouterr().out)["trials"])
    assert zero_shot["stages"]["training"] is None
    assert (tuned["device"], tuned["time_basis"], tuned["memory_gib"]) == (
        "H100 80GB", "data sheet", tuned["stages"]["training"],
    )  # fmt: skip
    assert tuned["time_s"] > zero_shot["time_s"] > 0
    main(["plan", spec, "--runs-dir", runs, "--json"])
    assert not {"device", "stages"} & json.loads(capsys.readouterr().out)["trials"][1]["predicted"].keys()


def test_a_share_that_is_too_small_is_said_with_a_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, runs = write_spec(tmp_path), str(tmp_path / "runs")
    options = ["--runs-dir", runs, "--gpu", "rtx 4090", "-o", "resources.gpu=0.25"]
    main(["plan", spec, *options])
    out = capsys.readouterr().out
    assert (
        "resources.gpu 0.25 lets 4 trials share RTX 4090 24GB, 5.6 GiB each; set generation.batch_size" in out
    )
    main(["plan", spec, *options, "-o", "generation.batch_size=2", "-o", "train.batch_size=1"])
    assert "warning" not in capsys.readouterr().out


def test_an_unknown_gpu_and_a_probe_of_another_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path)
    assert main(["plan", spec, "--gpu", "Z9000"]) == 2
    assert "--gpu Z9000: this GPU is not known, expected one of H200 141GB" in capsys.readouterr().err
    assert main(["plan", spec, "--gpu", "T4", "--probe"]) == 2


def test_a_card_without_bfloat16_computes_in_float32() -> None:
    base = {
        "schema": 1, "name": "t", "model": {"id": "facebook/musicgen-small"}, "dataset": {"builtin": "chiptune"},
        "prompts": ["a"], "metrics": ["mfcc20"],
    }  # fmt: skip
    trial = plan_experiment(ExperimentSpec.model_validate(base)).trials[1]
    old, new = (Forecaster(History(()), card=choose_card(name)).predict(trial) for name in ("T4", "L4"))
    assert old.stages is not None
    assert new.stages is not None
    n_decoder = gpu_counts.FLOAT32 // 2 * 420e6 / GIB
    assert old.stages.encoding - new.stages.encoding == pytest.approx(n_decoder, rel=0.1)
    assert (old.time_s or 0) > (new.time_s or 0)
