"""On a GPU: captured steps, the default bfloat16, their memory, and training with the fused optimiser.

Run with `pytest -m gpu`.  `test_cuda_checks.py` runs the same checks on the CPU.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from support.gpu_checks import (
    HALF_TOLERANCE,
    add_update,
    decode_parts,
    have_equal_bits,
    measure_error,
    train_whole_and_in_parts,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_bench.cli.main import main
from lora_bench.errors import ResourceError
from lora_bench.machine.gpus import list_names
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding.decoder import Decoder, generate_batches, generate_codes
from lora_bench.models.decoding.loop import BUCKET
from lora_bench.models.device import name_device
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
PROMPT = "a song with drums"
N_FRAMES = 2 * BUCKET + 9


@pytest.fixture
def on_gpu(tiny_folder: Path) -> Iterator[MusicModel]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a step that cannot be captured
        yield load_model(ModelSpec(id=str(tiny_folder), dtype="float32"), device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_captured_steps_give_the_greedy_tokens_of_the_cpu(
    tiny: TransformersMusicGen, on_gpu: MusicModel, guidance: float
) -> None:
    generation = GenerationSpec(guidance=guidance, top_k=1, batch_size=4)
    decoder = Decoder(on_gpu, generation)
    for prompt in (PROMPT, "calm", PROMPT):
        expected = generate_codes(tiny, prompt, range(6), N_FRAMES, generation, SilentProgress())
        batches = generate_batches(on_gpu, prompt, range(6), N_FRAMES, generation, SilentProgress(), decoder)
        assert torch.equal(torch.cat([batch.codes for batch in batches]), expected)


def test_captured_steps_draw_the_noise_of_the_cpu(tiny: TransformersMusicGen, on_gpu: MusicModel) -> None:
    generation = GenerationSpec(top_k=40, batch_size=4)
    expected = generate_codes(tiny, PROMPT, range(8), N_FRAMES, generation, SilentProgress())
    found = generate_codes(on_gpu, PROMPT, range(8), N_FRAMES, generation, SilentProgress())
    assert float((found == expected).float().mean()) > 0.9  # rounding may turn a draw at a border


def test_the_batch_follows_the_free_memory_of_the_gpu(on_gpu: MusicModel) -> None:
    assert 1 <= Decoder(on_gpu, GenerationSpec()).choose_batch_size(N_FRAMES) <= 256


def test_eight_bits_are_refused(on_gpu: MusicModel) -> None:
    with pytest.raises(ResourceError, match="int8 is for CPUs"):
        Decoder(on_gpu, GenerationSpec(quantization="int8"))


@pytest.fixture
def in_halves(tiny_folder: Path) -> MusicModel:
    """The default of a GPU."""
    model = load_model(ModelSpec(id=str(tiny_folder)), device="cuda")
    assert model.dtype == torch.bfloat16
    return model


@pytest.mark.parametrize("adapted", [False, True])
def test_logits_in_bfloat16_are_those_of_float32_on_the_cpu(
    tiny: TransformersMusicGen, in_halves: MusicModel, adapted: bool
) -> None:
    if adapted:
        for model in (tiny, in_halves):
            add_update(model, LoraSpec(rank=4, targets="all"))
    assert measure_error(tiny, in_halves) < HALF_TOLERANCE


@pytest.mark.parametrize("adapted", [False, True])
def test_several_batches_replay_what_one_batch_computes(in_halves: MusicModel, adapted: bool) -> None:
    if adapted:
        add_update(in_halves, LoraSpec(rank=4, targets="all"))
    parts = [range(start, start + 4) for start in (0, 4, 8)]
    expected = decode_parts(in_halves, parts, N_FRAMES, 4, together=False)
    assert torch.equal(decode_parts(in_halves, parts, N_FRAMES, 4, together=True), expected)
    assert torch.equal(decode_parts(in_halves, [range(12)], N_FRAMES, 4, together=True), expected)


def test_replays_read_no_freed_memory_and_free_theirs(
    in_halves: MusicModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", partial(torch.cuda.graph, check_input_liveness=True))
    decode_parts(in_halves, [range(4)], N_FRAMES, 4, together=True)  # workspaces of the libraries stay
    gc.collect()
    before = torch.cuda.memory_allocated()
    gc.disable()  # nothing waits for the collector of cycles
    try:
        decode_parts(in_halves, [range(8)], N_FRAMES, 4, together=True)
        assert torch.cuda.memory_allocated() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_that_was_interrupted_ends_with_the_same_bits(
    dtype: Literal["float32", "bfloat16"], tiny_folder: Path, tmp_path: Path
) -> None:
    model = load_model(ModelSpec(id=str(tiny_folder), dtype=dtype), device="cuda")
    # flash attention adds gradients in any order
    with sdpa_kernel(SDPBackend.MATH):
        whole, again, parts = train_whole_and_in_parts(
            model, tmp_path, LoraSpec(rank=2, targets="all", dropout=0.1)
        )
    assert have_equal_bits(whole, again)
    assert have_equal_bits(whole, parts)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has fewer than two GPUs")
def test_a_second_gpu_computes_what_the_first_does(tiny_folder: Path) -> None:
    spec = ModelSpec(id=str(tiny_folder), dtype="float32")
    first, second = (load_model(spec, device=f"cuda:{index}") for index in range(2))
    assert torch.cuda.current_device() == 0
    expected, found = (
        decode_parts(model, [range(4)], N_FRAMES, 4, together=True) for model in (first, second)
    )
    if torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1):
        assert torch.equal(found, expected)
    else:
        assert float((found == expected).float().mean()) > 0.9


def test_doctor_names_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    out = capsys.readouterr().out
    assert torch.cuda.get_device_name(0) in out


def test_the_forecast_knows_the_gpu_by_the_name_that_trials_keep() -> None:
    if not list_names():
        pytest.skip("the driver lists no GPUs here")
    assert name_device(torch.device("cuda")) in list_names()
