"""Matrix products of few rows against float64 and integers, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models.decoding import kernels
from lora_bench.models.decoding.kernels import BLOCK, Kernel, choose_kernel, has_exact_int8, quantize_rows
from lora_bench.models.linears import PackedLinear, pack_linears

CPU = torch.device("cpu")
ROWS = (1, 2, 3, 7, 16, 33, 50, 64)


@pytest.fixture
def exact() -> None:
    if not has_exact_int8():
        pytest.skip("measured: this processor's library cuts 8-bit sums off; steps are compiled instead")


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[PackedLinear, Tensor], Tensor]], bool]:
    """What `has_exact_int8` says of a library that multiplies like a function."""

    def measure(multiply: Callable[[PackedLinear, Tensor], Tensor]) -> bool:
        def make(linear: PackedLinear) -> Callable[[Tensor], Tensor]:
            return lambda x: multiply(linear, x)

        monkeypatch.setattr(kernels, "_Int8Product", make)
        return has_exact_int8.__wrapped__()

    return measure


def make_linear(
    seed: int, *, halves: bool = False, adapter: bool = False, dora: bool = False
) -> PackedLinear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(96, 160, generator=generator) * 0.05
    if halves:
        weight = weight.half().float()
    down = torch.randn(4, 160, generator=generator) if adapter else None
    up = torch.randn(96, 4, generator=generator) * 0.1 if adapter else None
    scale = torch.rand(96, generator=generator) + 0.5 if dora else None
    return pack_linears([PackedLinear(weight, None, down, up, scale)])


def make_input(n_rows: int) -> Tensor:
    return torch.randn(n_rows, 160, generator=torch.Generator().manual_seed(7))


def exactly(linear: PackedLinear, x: Tensor) -> Tensor:
    y = x.double() @ linear.weight.double().T
    if linear.down is not None and linear.up is not None:
        y = y + x.double() @ linear.down.double().T @ linear.up.double().T
    return y if linear.scale is None else y * linear.scale.double()


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("adapter", "dora"), [(False, False), (True, False), (True, True)])
def test_products_are_those_of_float32(halves: bool, adapter: bool, dora: bool) -> None:
    linear = make_linear(1, halves=halves, adapter=adapter, dora=dora)
    for n_rows in ROWS:
        x = make_input(n_rows)
        product = Kernel("plain").prepare(linear)
        torch.testing.assert_close(product(x).double(), exactly(linear, x), rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("adapter", [False, True])
def test_exact_eight_bits_of_a_row_are_the_same_in_any_batch(adapter: bool) -> None:
    product = Kernel("int8").prepare(make_linear(2, adapter=adapter))
    together = product(make_input(200))
    for n_rows in ROWS:
        assert torch.equal(product(make_input(200)[:n_rows]), together[:n_rows]), n_rows


@pytest.mark.usefixtures("exact")
def test_eight_bits_are_what_integers_say() -> None:
    linear, x = make_linear(3), make_input(9) * torch.logspace(-3, 3, 9)[:, None]
    codes, scale = quantize_rows(linear.weight)
    assert int(codes.min()) >= -127
    assert set(codes.abs().amax(dim=1).tolist()) == {127}
    peak = x.abs().amax(dim=1, keepdim=True)
    x_codes = (x / peak * 127).round()
    expected = (x_codes.double() @ codes.double().T) * (peak.double() / 127) * scale.double()
    found = Kernel("int8").prepare(linear)(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    error = (found - F.linear(x, linear.weight)).norm() / F.linear(x, linear.weight).norm()
    assert 1e-4 < float(error) < 0.02


def test_rows_of_zeros_stay_zeros_in_eight_bits() -> None:
    weight = make_linear(4).weight.clone()
    weight[5] = 0.0
    x = make_input(3)
    x[1] = 0.0
    y = Kernel("int8").prepare(PackedLinear(weight))(x)
    assert torch.equal(y[1], torch.zeros(96))
    assert torch.equal(y[:, 5], torch.zeros(3))
    assert bool(y.isfinite().all())


def test_a_bias_is_added_unrounded() -> None:
    weight, bias = make_linear(5, halves=True).weight, torch.linspace(-3, 3, 96)
    x = make_input(4)
    for kernel in (Kernel("plain"), Kernel("int8")):
        with_bias = kernel.prepare(PackedLinear(weight, bias))(x)
        torch.testing.assert_close(with_bias - kernel.prepare(PackedLinear(weight))(x), bias.expand(4, -1))


def test_the_kernel_follows_device_arithmetic_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for batch_size in (None, 1, 4, 16, 100):
        assert choose_kernel(CPU, torch.float32, batch_size=batch_size) == Kernel("plain", BLOCK, True)
        assert choose_kernel(CPU, torch.bfloat16, batch_size=batch_size) == Kernel("plain", BLOCK)
        assert choose_kernel(torch.device("cuda"), torch.bfloat16, batch_size=batch_size) == Kernel("halves")
    for is_exact in (False, True):
        monkeypatch.setattr(kernels, "has_exact_int8", lambda is_exact=is_exact: is_exact)
        for batch_size in (None, 3):
            found = choose_kernel(CPU, torch.float32, "int8", batch_size)
            assert found == Kernel("int8", BLOCK, is_streamed=not is_exact)
        assert choose_kernel(CPU, torch.float32, "int8", 2).is_streamed


def test_eight_bits_are_refused_where_they_cannot_be_had() -> None:
    with pytest.raises(ResourceError, match=r"quantization: int8 is for CPUs, and this trial runs on cuda:0"):
        choose_kernel(torch.device("cuda:0"), torch.bfloat16, "int8")
    with pytest.raises(ModelError, match=r"model\.dtype is bfloat16; set model\.dtype: float32"):
        choose_kernel(CPU, torch.bfloat16, "int8")


def multiply_codes(linear: PackedLinear, x: Tensor) -> Tensor:
    """Sums of pairs of 8-bit products, [R, O, I / 2], of activations without a sign as the library has them."""
    products = ((x * 127).round() + 128)[:, None] * quantize_rows(linear.weight)[0].float()
    return products.unflatten(-1, (-1, 2)).sum(-1)


def rescale(linear: PackedLinear, sums: Tensor) -> Tensor:
    codes, scale = quantize_rows(linear.weight)
    return (sums - 128 * codes.float().sum(1)) * scale / 127


def test_a_library_that_cuts_sums_off_at_16_bits_is_not_called_exact(
    probe: Callable[[Callable[[PackedLinear, Tensor], Tensor]], bool],
) -> None:
    assert probe(lambda linear, x: rescale(linear, multiply_codes(linear, x).sum(-1)))
    for low, high in ((-(2**15), 2**15 - 1), (-(2**15), 2**20), (-(2**20), 2**15 - 1)):
        assert not probe(
            lambda linear, x, low=low, high=high: rescale(
                linear, multiply_codes(linear, x).clamp(low, high).sum(-1)
            )
        )


def test_without_the_librarys_engine_nothing_is_called_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "INT8_ENGINE", "none of torch's")
    assert not has_exact_int8.__wrapped__()


def test_packing_leaves_torchs_engine_alone() -> None:
    before = torch.backends.quantized.engine
    Kernel("int8").prepare(make_linear(1))
    assert torch.backends.quantized.engine == before
