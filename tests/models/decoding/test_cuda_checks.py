"""The checks of `test_cuda.py` on the CPU, with CUDA graphs by a mock: they hold, and they can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from support.fake_graphs import Device, gpu_by_mock
from support.gpu_checks import (
    HALF_TOLERANCE,
    add_update,
    decode_parts,
    have_equal_bits,
    measure_error,
    train_whole_and_in_parts,
)
from torch import Tensor

from lora_bench.models import load_model
from lora_bench.models.decoding import half_products
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec

BUCKET = 8
N_FRAMES = 2 * BUCKET + 3
PARTS = [range(start, start + 4) for start in (0, 4, 8)]
ALL = LoraSpec(rank=4, targets="all")


def multiply(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """`torch.mm`, which has no `out_dtype` on a CPU."""
    return (a.float() @ b.float()).to(out_dtype or a.dtype)


@pytest.fixture
def mock() -> Iterator[Device]:
    with gpu_by_mock(BUCKET) as device, patch.object(half_products.torch, "mm", multiply):
        yield device


@pytest.fixture
def in_halves(tiny_folder: Path) -> TransformersMusicGen:
    return load_model(ModelSpec(id=str(tiny_folder), dtype="bfloat16"), device="cpu")


@pytest.mark.parametrize("adapted", [False, True])
def test_logits_in_bfloat16_stay_within_the_tolerance_and_those_of_another_model_do_not(
    tiny: TransformersMusicGen, in_halves: TransformersMusicGen, adapted: bool, mock: Device
) -> None:
    if adapted:
        for model in (tiny, in_halves):
            add_update(model, ALL)
    assert measure_error(tiny, in_halves) < HALF_TOLERANCE
    if adapted:
        in_halves.remove_adapter()
        assert measure_error(tiny, in_halves) > 2 * HALF_TOLERANCE


def test_several_batches_replay_what_one_batch_computes(
    in_halves: TransformersMusicGen, mock: Device
) -> None:
    add_update(in_halves, ALL)
    expected = decode_parts(in_halves, PARTS, N_FRAMES, 4, together=False)
    n_captures = mock.n_captures
    assert torch.equal(decode_parts(in_halves, PARTS, N_FRAMES, 4, together=True), expected)
    assert mock.n_captures - n_captures == n_captures // len(PARTS)
    assert torch.equal(decode_parts(in_halves, [range(12)], N_FRAMES, 4, together=True), expected)
    assert not mock.reads_after_free


def test_a_training_that_was_interrupted_ends_with_the_same_bits(
    tiny: TransformersMusicGen, tmp_path: Path
) -> None:
    lora = LoraSpec(rank=2, targets="all", dropout=0.1)
    whole, again, parts = train_whole_and_in_parts(tiny, tmp_path, lora)
    assert have_equal_bits(whole, again)
    assert have_equal_bits(whole, parts)
    name = next(iter(parts))
    assert not have_equal_bits(whole, parts | {name: torch.nextafter(parts[name], parts[name] + 1)})
