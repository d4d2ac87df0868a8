"""Matrix products of few rows against float64, integers and each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models import kernels
from lora_bench.models.kernels import Kernel, choose_kernel, quantize_rows
from lora_bench.models.linears import LinearParts, PackedLinear, pack_linears

CPU = torch.device("cpu")
HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
ROWS = (1, 2, 3, 7, 16, 33, 50, 64)


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
    return pack_linears([LinearParts(weight, None, down, up, scale)])


def make_input(n_rows: int) -> Tensor:
    return torch.randn(n_rows, 160, generator=torch.Generator().manual_seed(7))


def exactly(linear: PackedLinear, x: Tensor) -> Tensor:
    y = x.double() @ linear.weight.double().T
    if linear.down is not None and linear.up is not None:
        y = y + x.double() @ linear.down.double().T @ linear.up.double().T
    return y if linear.scale is None else y * linear.scale.double()


@pytest.mark.parametrize("name", ["plain", "packed"])
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("adapter", "dora"), [(False, False), (True, False), (True, True)])
def test_products_are_those_of_float32(name: str, halves: bool, adapter: bool, dora: bool) -> None:
    linear = make_linear(1, halves=halves, adapter=adapter, dora=dora)
    for n_rows in ROWS:
        x = make_input(n_rows)
        product = Kernel(name, 1).prepare(linear, n_rows)
        torch.testing.assert_close(product(x).double(), exactly(linear, x), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["packed", "int8"])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_row_is_the_same_in_any_batch(name: str, adapter: bool) -> None:
    if not HAS_AVX512 and name != "int8":
        pytest.skip("shown for AVX-512 only")
    linear = make_linear(2, adapter=adapter)
    together = Kernel(name, 1).prepare(linear, 200)(make_input(200))
    for n_rows in ROWS:
        alone = Kernel(name, 1).prepare(linear, n_rows)(make_input(200)[:n_rows])
        assert torch.equal(alone, together[:n_rows]), n_rows


def test_eight_bits_are_what_integers_say() -> None:
    linear, x = make_linear(3), make_input(9) * torch.logspace(-3, 3, 9)[:, None]
    codes, scale = quantize_rows(linear.weight)
    assert int(codes.min()) >= -127
    assert set(codes.abs().amax(dim=1).tolist()) == {127}
    peak = x.abs().amax(dim=1, keepdim=True)
    x_codes = (x / peak * 127).round()
    expected = (x_codes.double() @ codes.double().T) * (peak.double() / 127) * scale.double()
    found = Kernel("int8", 1).prepare(linear, 9)(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    error = (found - F.linear(x, linear.weight)).norm() / F.linear(x, linear.weight).norm()
    assert 1e-4 < float(error) < 0.02


def test_rows_of_zeros_stay_zeros_in_eight_bits() -> None:
    weight = make_linear(4).weight.clone()
    weight[5] = 0.0
    x = make_input(3)
    x[1] = 0.0
    y = Kernel("int8", 1).prepare(PackedLinear(weight), 3)(x)
    assert torch.equal(y[1], torch.zeros(96))
    assert torch.equal(y[:, 5], torch.zeros(3))
    assert bool(y.isfinite().all())


def test_a_bias_is_added_unrounded() -> None:
    weight, bias = make_linear(5, halves=True).weight, torch.linspace(-3, 3, 96)
    x = make_input(4)
    for name in ("plain", "packed", "int8"):
        kernel = Kernel(name, 1)
        with_bias = kernel.prepare(PackedLinear(weight, bias), 4)(x)
        torch.testing.assert_close(with_bias - kernel.prepare(PackedLinear(weight), 4)(x), bias.expand(4, -1))


def test_a_packed_product_refuses_other_rows() -> None:
    product = Kernel("packed", 1).prepare(make_linear(1), 4)
    with pytest.raises(ValueError, match="packed for 4 rows, got 5"):
        product(make_input(5))


def test_the_kernel_follows_device_arithmetic_and_batch() -> None:
    assert choose_kernel(CPU, torch.float32) == Kernel("packed", 1)
    assert choose_kernel(CPU, torch.float32, batch_size=16) == Kernel("packed", 1)
    assert choose_kernel(CPU, torch.float32, batch_size=4) == Kernel("packed", 1, is_streamed=True)
    assert choose_kernel(CPU, torch.bfloat16) == Kernel("plain", 16)
    assert choose_kernel(torch.device("cuda"), torch.bfloat16, batch_size=1).name == "plain"
    assert choose_kernel(CPU, torch.float32, "int8") == Kernel("int8", 1)
    assert choose_kernel(CPU, torch.float32, "int8", 3) == Kernel("int8", 1)
    assert choose_kernel(CPU, torch.float32, "int8", 2) == Kernel("int8", 1, is_streamed=True)


def test_the_heads_are_not_rounded() -> None:
    linear, x = make_linear(6), make_input(4)
    kernel = Kernel("int8", 1)
    torch.testing.assert_close(
        kernel.prepare_exactly(linear, 4)(x), F.linear(x, linear.weight), rtol=1e-5, atol=1e-5
    )
    assert not torch.allclose(kernel.prepare(linear, 4)(x), F.linear(x, linear.weight), rtol=1e-5, atol=1e-5)


def test_eight_bits_are_refused_where_they_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match=r"quantization: int8 is for CPUs, and this trial runs on cuda:0"):
        choose_kernel(torch.device("cuda:0"), torch.bfloat16, "int8")
    with pytest.raises(ModelError, match=r"model\.dtype is bfloat16; set model\.dtype: float32"):
        choose_kernel(CPU, torch.bfloat16, "int8")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    needed = "needs a CPU with AVX-512 VNNI for large batches, which this one lacks.*batch_size to 2 or less"
    with pytest.raises(ResourceError, match=needed):
        choose_kernel(CPU, torch.float32, "int8")
    assert choose_kernel(CPU, torch.float32, "int8", 2).is_streamed  # its sums do without
    assert kernels.choose_kernel(CPU, torch.float32).name == "packed"


def test_packing_leaves_torchs_engine_alone() -> None:
    before = torch.backends.quantized.engine
    Kernel("int8", 1).prepare(make_linear(1), 2)
    assert torch.backends.quantized.engine == before
