"""Compiled steps against `DecoderStep` with plain products, and their products against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from lora_bench.models.decoding import compiled
from lora_bench.models.decoding.decoder import Decoder, generate_batches
from lora_bench.models.decoding.kernels import BLOCK, Kernel, has_exact_int8, quantize_rows
from lora_bench.models.decoding.kv_cache import GrowingPast, KeyValueCache
from lora_bench.models.decoding.small_batch_step import MatrixStore, StreamedStep, can_stream
from lora_bench.models.decoding.step import DecoderStep, TextReader
from lora_bench.models.linears import PackedLinear
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

AddAdapter = Callable[[TransformersMusicGen, LoraSpec], None]
N_INPUTS, N_OUTPUTS = 160, 98
ROWS = (1, 2, 3, 5, 7, 16)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def store(*linears: PackedLinear, is_int8: bool = False) -> compiled.Matrix:
    made = MatrixStore(len(linears), is_int8)
    for linear in linears:
        made.put(linear)
    return made.finish()


def multiply(x: Tensor, matrix: compiled.Matrix, layer: int = 0, how: int = compiled.WRITE) -> Tensor:
    y = torch.full((len(x), matrix.weight.shape[1]), 0.5)
    compiled.multiply(x.clone().numpy(), matrix, layer, y.numpy(), how)
    return y


def exactly(linear: PackedLinear, x: Tensor) -> Tensor:
    y = x.double() @ linear.weight.double().T
    if linear.down is not None and linear.up is not None:
        y = y + x.double() @ linear.down.double().T @ linear.up.double().T
    if linear.scale is not None:
        y = y * linear.scale.double()
    return y if linear.bias is None else y + linear.bias.double()


def as_halves(weight: Tensor) -> Tensor:
    return weight.half().float()


PLAIN = PackedLinear(draw(1, N_OUTPUTS, N_INPUTS) * 0.05)
HALVES = PackedLinear(as_halves(PLAIN.weight))
ADAPTED = PackedLinear(HALVES.weight, None, draw(2, 4, N_INPUTS), draw(3, N_OUTPUTS, 4) * 0.1)
DORA = PackedLinear(PLAIN.weight, None, ADAPTED.down, ADAPTED.up, torch.rand(N_OUTPUTS) + 0.5)
BIASED = PackedLinear(HALVES.weight, torch.linspace(-3, 3, N_OUTPUTS))
ALL = [PLAIN, HALVES, ADAPTED, DORA, BIASED]


@pytest.mark.parametrize("linear", ALL, ids=["float32", "halves", "adapter", "dora", "bias"])
@pytest.mark.parametrize("n_rows", ROWS)
def test_products_are_those_of_float32(linear: PackedLinear, n_rows: int) -> None:
    x = draw(7, n_rows, N_INPUTS)
    torch.testing.assert_close(multiply(x, store(linear)).double(), exactly(linear, x), rtol=1e-5, atol=2e-5)


def test_a_product_may_be_added_or_activated() -> None:
    x, matrix = draw(7, 3, N_INPUTS), store(PLAIN)
    plain = multiply(x, matrix)
    torch.testing.assert_close(multiply(x, matrix, how=compiled.ADD), plain + 0.5)
    gelu = multiply(x, matrix, how=compiled.GELU)
    torch.testing.assert_close(gelu, torch.nn.functional.gelu(plain), rtol=1e-5, atol=1e-6)
    assert torch.equal(multiply(x, matrix, how=compiled.RELU), plain.relu())


def test_layers_with_and_without_an_adapter_share_an_array() -> None:
    x = draw(7, 2, N_INPUTS)
    linears = [HALVES, ADAPTED, DORA, BIASED]  # the third one holds no halves
    matrix = store(*linears)
    assert matrix.weight.dtype == np.float32
    for layer, linear in enumerate(linears):
        found = multiply(x, matrix, layer)
        torch.testing.assert_close(found.double(), exactly(linear, x), rtol=1e-5, atol=2e-5)


def test_halves_are_kept_as_halves_and_nothing_else_is() -> None:
    assert store(HALVES).weight.dtype == np.int16
    assert store(PLAIN).weight.dtype == np.float32
    large = PackedLinear(torch.full((16, 16), 1024.0))  # times 2^10 it is none
    assert store(large).weight.dtype == np.float32
    x = torch.ones(1, 16)
    assert torch.equal(multiply(x, store(large)), torch.full((1, 16), 16 * 1024.0))


def test_the_smallest_halves_and_zeros_are_exact() -> None:
    bits = torch.arange(0, 32 * 64, dtype=torch.int32)  # zero, all denormal halves, the first normal ones
    tiny = bits.to(torch.int16).view(torch.float16).float().view(32, 64)
    weight = torch.cat([tiny, -tiny])
    assert torch.equal(weight, as_halves(weight))
    assert float(weight[0, 1]) == 2.0**-24
    matrix = store(PackedLinear(weight))
    assert matrix.weight.dtype == np.int16
    for column in (0, 1, 5, 63):
        x = torch.zeros(2, 64)
        x[:, column] = 1.0
        assert torch.equal(multiply(x, matrix)[0], weight[:, column])


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("linear", [PLAIN, HALVES, ADAPTED], ids=["float32", "halves", "adapter"])
def test_a_row_is_the_same_in_any_batch_and_on_any_number_of_threads(
    linear: PackedLinear, is_int8: bool
) -> None:
    x, matrix = draw(7, 16, N_INPUTS), store(linear, is_int8=is_int8)
    together = multiply(x, matrix)
    for n_rows in ROWS:
        for first in (0, 16 - n_rows):
            part = x[first : first + n_rows]
            assert torch.equal(multiply(part, matrix), together[first : first + n_rows])
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert torch.equal(multiply(x, matrix), together)
    finally:
        numba.set_num_threads(before)


def test_eight_bits_are_what_integers_say() -> None:
    x = draw(7, 9, N_INPUTS) * torch.logspace(-3, 3, 9)[:, None]
    codes, scale = quantize_rows(PLAIN.weight)
    peak = x.abs().amax(dim=1, keepdim=True)
    sums = (x / peak * 127).round().double() @ codes.double().T
    expected = sums * (peak.double() / 127) * scale.double()
    found = multiply(x, store(PLAIN, is_int8=True))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0.0)
    zeros = torch.zeros(2, N_INPUTS)
    assert torch.equal(multiply(zeros, store(PLAIN, is_int8=True)), torch.zeros(2, N_OUTPUTS))


def test_eight_bit_sums_are_whole_however_wide_the_matrix_is() -> None:
    width = 16_384  # the largest sums that 8 bits give there do not fit into the 24 bits of a float32
    weight, x = torch.ones(2, width), torch.ones(1, width)
    found = multiply(x, store(PackedLinear(weight), is_int8=True))
    assert torch.equal(found, torch.full((1, 2), float(width)))


def run(
    step: DecoderStep | StreamedStep, model: TransformersMusicGen, n_steps: int, dtype: torch.dtype
) -> Tensor:
    """Logits [steps, N, K, V] of random tokens, the same for every step."""
    info, weights = model.info, model.decoder_weights()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, info.codebook_size, (n_steps, 8, info.n_codebooks), generator=generator)
    step.read_text(model.encode_text(["a song with drums"])[0])
    past = GrowingPast(KeyValueCache.allocate(weights, step.n_rows, n_steps, dtype))
    found: list[Tensor] = []
    with torch.inference_mode():
        for position in range(n_steps):
            past.position = position
            found.append(step(tokens[position, : step.n_clips], step.positions[position], past))
    return torch.stack(found)


@pytest.fixture
def reference(tiny: TransformersMusicGen) -> Iterator[Callable[[TextReader], Tensor]]:
    """Logits of plain products."""

    def decode(step: TextReader) -> Tensor:
        plain = DecoderStep(tiny.decoder_weights(), tiny.info, step.n_clips, step.guidance, Kernel("plain"))
        return run(plain, tiny, 30, torch.float32)

    yield decode
    tiny.remove_adapter()


LORAS = [None, LoraSpec(rank=4, targets="all"), LoraSpec(rank=2, targets="attention", use_dora=True)]


@pytest.mark.parametrize("lora", LORAS, ids=["base", "lora", "dora"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("n_clips", [1, 3])
def test_logits_are_those_of_plain_products(
    tiny: TransformersMusicGen,
    add_adapter: AddAdapter,
    reference: Callable[[TextReader], Tensor],
    lora: LoraSpec | None,
    guidance: float,
    n_clips: int,
) -> None:
    if lora is not None:
        add_adapter(tiny, lora)
    step = StreamedStep(tiny.decoder_weights(), tiny.info, n_clips, guidance, is_int8=False)
    torch.testing.assert_close(run(step, tiny, 30, torch.float32), reference(step), rtol=1e-4, atol=1e-4)


def test_eight_bits_are_near_exact_logits_and_as_near_as_an_exact_librarys(
    tiny: TransformersMusicGen, reference: Callable[[TextReader], Tensor]
) -> None:
    weights = tiny.decoder_weights()
    streamed = StreamedStep(weights, tiny.info, 2, 3.0, is_int8=True)
    library = DecoderStep(weights, tiny.info, 2, 3.0, Kernel("int8"))
    exact = reference(streamed)
    far = {
        name: float((run(step, tiny, 30, torch.bfloat16) - exact).norm() / exact.norm())
        for name, step in (("streamed", streamed), ("library", library))
    }
    assert 1e-4 < far["streamed"] < 0.1
    if has_exact_int8():
        assert 0.7 < far["streamed"] / far["library"] < 1.4


def test_not_a_number_is_not_lost(tiny: TransformersMusicGen) -> None:
    for is_int8 in (False, True):
        step = StreamedStep(tiny.decoder_weights(), tiny.info, 1, 3.0, is_int8=is_int8)
        step._layers.norms.weight[1, 0, 3] = np.nan
        logits = run(step, tiny, 2, torch.bfloat16 if is_int8 else torch.float32)
        assert not bool(logits.isfinite().any())


def test_only_known_shapes_and_activations_are_streamed(tiny: TransformersMusicGen) -> None:
    from dataclasses import replace

    weights = tiny.decoder_weights()
    assert can_stream(weights)
    assert can_stream(replace(weights, activation=torch.relu))
    assert not can_stream(replace(weights, activation=torch.tanh))
    assert not can_stream(replace(weights, heads=PackedLinear(torch.zeros(64, 40))))
    assert not can_stream(replace(weights, heads=PackedLinear(torch.zeros(63, 64))))


def test_other_decoders_are_decoded_as_before(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = GenerationSpec(batch_size=2)
    monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    decoder = Decoder(tiny, generation)
    (batch,) = generate_batches(tiny, "calm", [0, 1], 8, generation, SilentProgress(), decoder)
    assert isinstance(decoder._step, DecoderStep)
    assert decoder._step.n_clips == decoder.block == BLOCK
    assert batch.codes.shape == (2, 4, 8)


def test_matrices_are_stored_once_for_all_batches_and_prompts(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = MatrixStore.finish

    def count(store: MatrixStore) -> compiled.Matrix:
        made.append(1)
        return original(store)

    monkeypatch.setattr(MatrixStore, "finish", count)
    generation = GenerationSpec(batch_size=4)
    decoder = Decoder(tiny, generation)
    for text in ("calm", "loud"):
        batches = generate_batches(tiny, text, range(6), 8, generation, SilentProgress(), decoder)
        assert [len(batch.codes) for batch in batches] == [4, 2]
    assert len(made) == 7
