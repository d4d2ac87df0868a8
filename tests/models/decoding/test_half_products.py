"""Half-precision products with an adapter, against the same product in float64."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from lora_bench.models import device as devices
from lora_bench.models.decoding.half_products import HalfProduct
from lora_bench.models.decoding.kernels import choose_kernel
from lora_bench.models.linears import PackedLinear, pack_linears

ROUNDING = 2.0**-8  # of bfloat16


def make_linear(
    n_outputs: int, n_inputs: int, rank: int, *, dora: bool = False, bias: bool = False
) -> PackedLinear:
    generator = torch.Generator().manual_seed(n_outputs)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    return PackedLinear(
        draw(n_outputs, n_inputs).bfloat16(),
        draw(n_outputs).bfloat16() if bias else None,
        draw(rank, n_inputs) if rank else None,
        draw(n_outputs, rank) if rank else None,
        1.0 + 0.1 * draw(n_outputs) if dora else None,
    )


def multiply_exactly(linear: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    weight = linear.weight.double()
    if linear.down is not None and linear.up is not None:
        weight = weight + linear.up.double() @ linear.down.double()
    if linear.scale is not None:
        weight = linear.scale.double()[:, None] * weight
    y = x.double() @ weight.T
    return y if linear.bias is None else y + linear.bias.double()


@pytest.mark.parametrize("rank", [0, 3, 16])
@pytest.mark.parametrize(("dora", "bias"), [(False, False), (True, False), (False, True)])
def test_the_product_is_that_of_float64_but_for_rounding(rank: int, dora: bool, bias: bool) -> None:
    linear = make_linear(40, 64, rank, dora=dora and rank > 0, bias=bias)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = multiply_exactly(linear, x)
    found = HalfProduct(linear)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=4 * ROUNDING, atol=8 * ROUNDING)


def test_packed_layers_with_and_without_adapters_keep_their_places() -> None:
    linear = pack_linears([make_linear(24, 32, 4), make_linear(16, 32, 0), make_linear(8, 32, 2)])
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    torch.testing.assert_close(
        HalfProduct(linear)(x).double(), multiply_exactly(linear, x), rtol=4 * ROUNDING, atol=8 * ROUNDING
    )


def test_an_update_below_the_grid_of_the_matrix_is_not_lost() -> None:
    size = 256
    weight = torch.ones(8, size).bfloat16()
    update = torch.full((8, 1), 2.0**-10)  # half a step of the grid near 1 is 2**-9
    linear = PackedLinear(weight, None, torch.ones(1, size), update)
    x = torch.ones(1, size).bfloat16()
    x[:, ::2] = -1.0  # the matrix alone gives zero, the update as well
    x[:, 0] = 1.0
    found = HalfProduct(linear)(x)
    assert found.double() == pytest.approx(multiply_exactly(linear, x), rel=2 * ROUNDING)
    folded = (weight.float() + update @ torch.ones(1, size)).bfloat16()
    assert torch.equal(folded, weight)


def test_halves_on_a_gpu_have_products_of_their_own_and_float32_has_not() -> None:
    with patch.object(devices, "is_gpu", lambda _: True):
        gpu = torch.device("cuda")
        assert choose_kernel(gpu, torch.bfloat16).name == "halves"
        assert choose_kernel(gpu, torch.float16).name == "halves"
        assert choose_kernel(gpu, torch.float32).name == "plain"
    assert choose_kernel(torch.device("cpu"), torch.bfloat16).name == "plain"
