"""One compiled decoding step on a CPU: matrices are read once, and rows do not depend on each other.

The slow reference is `DecoderStep` with plain products.  Import this module only where it is needed: numba takes a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import numba
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_bench.models.decoding import compiled
from lora_bench.models.decoding.compiled import HALF_SHIFT, LANES, Attended, Layers, Matrix, Norms
from lora_bench.models.decoding.kernels import quantize_rows
from lora_bench.models.decoding.kv_cache import GrowingPast, KeyValueCache
from lora_bench.models.decoding.step import TextReader
from lora_bench.models.linears import PackedLinear
from lora_bench.models.records import DecoderWeights, LayerNormWeights, ModelInfo, TextState

_NUMBA = cast("Any", numba)  # its functions for threads have no types
MATRICES = ("self_qkv", "self_out", "cross_q", "cross_out", "ffn_in", "ffn_out")


def can_stream(weights: DecoderWeights) -> bool:
    """Return whether the compiled code supports a decoder's shapes and activation."""
    first = weights.layers[0]
    shapes = [getattr(first, name).weight.shape for name in MATRICES] + [weights.heads.weight.shape]
    return _find_activation(weights.activation) is not None and all(
        n_inputs % LANES == 0 and n_outputs % 2 == 0 for n_outputs, n_inputs in shapes
    )


class StreamedStep(TextReader):
    """A step like `DecoderStep`, in float32 on a CPU, with a growing past.

    Args:
        weights: layers are copied one by one, in float16 if all of their numbers are float16; an adapter then stays
            separate.
        info: of the model.
        n_clips: rows of every step.
        guidance: scale; 1 is off.
        is_int8: round layers to 8 bits (see `kernels.py`).
    """

    def __init__(
        self, weights: DecoderWeights, info: ModelInfo, n_clips: int, guidance: float, *, is_int8: bool
    ) -> None:
        super().__init__(weights, info, n_clips, guidance)
        self._layers = _store_layers(weights, is_int8)
        heads = MatrixStore(1, is_int8=False)
        heads.put(weights.heads)
        self._heads = compiled.Heads(_store_norms([[weights.norm]]), heads.finish(), self._layers.ways)
        self._attended: tuple[KeyValueCache, Attended] | None = None

    def adapt(self, n_clips: int) -> bool:
        """See `TextReader.adapt`; any number is possible."""
        self.n_clips = n_clips
        return True

    def read_text(self, state: TextState) -> bool:
        """See `TextReader.read_text`."""
        is_new = super().read_text(state)
        if is_new:
            self._attended = None
        return is_new

    def __call__(self, tokens: Tensor, position: Tensor, past: GrowingPast) -> Tensor:
        """Read tokens int64 [N, K] and return logits float32 [N, K, V]; see `DecoderStep.__call__`."""
        x = self.embed(tokens, position)
        logits = torch.empty(self.n_clips, len(self._heads.matrix.weight[0]))
        attended = self._look_at(past.cache)
        _take_threads()
        rows = x.numpy()
        compiled.run_layers(rows, self.n_clips, self._layers, attended, past.position)
        compiled.run_heads(rows, self.n_clips, float(self.guidance), self._heads, logits.numpy())
        return logits.view(self.n_clips, *self.codebooks)

    def _look_at(self, cache: KeyValueCache) -> Attended:
        """Return past and text as arrays, cached until the prompt or the cache changes."""
        if self._attended is None or self._attended[0] is not cache:
            past = [
                part.view(torch.int16) if part.dtype == torch.bfloat16 else part
                for part in (cache.keys, cache.values)
            ]
            text = [torch.cat(parts) for parts in zip(*self.text, strict=True)]
            arrays = [part.numpy() for part in (*past, *text)]
            self._attended = (cache, compiled.Attended(*arrays))
        return self._attended[1]


def _take_threads() -> None:
    """Use as many threads as torch may use in this Python thread."""
    _start_threads()
    _NUMBA.set_num_threads(min(torch.get_num_threads(), _NUMBA.config.NUMBA_NUM_THREADS))


@cache
def _start_threads() -> None:
    """Start numba's threads once per process, and restore torch's number: both may share one OpenMP library."""
    n_threads = torch.get_num_threads()
    _NUMBA.set_num_threads(1)
    torch.set_num_threads(n_threads)


def _find_activation(activation: Callable[[Tensor], Tensor]) -> int | None:
    """Find the compiled activation that gives the same results on some numbers."""
    probe = torch.linspace(-5.0, 5.0, 101)
    found = activation(probe)
    for code, known in ((compiled.GELU, F.gelu), (compiled.RELU, F.relu)):
        if torch.equal(found, known(probe)):
            return code
    return None


def _store_layers(weights: DecoderWeights, is_int8: bool) -> Layers:
    activation = _find_activation(weights.activation)
    if activation is None:
        raise ValueError("this decoder's activation is not compiled; ask can_stream first")
    stores = {name: MatrixStore(len(weights.layers), is_int8) for name in MATRICES}
    norms: list[list[LayerNormWeights]] = []
    for layer in weights.layers:
        norms.append([layer.self_norm, layer.cross_norm, layer.ffn_norm])
        for name, store in stores.items():
            store.put(getattr(layer, name))
    matrices = {name: store.finish() for name, store in stores.items()}
    return compiled.Layers(norms=_store_norms(norms), ways=compiled.Ways(activation), **matrices)


def _store_norms(norms: Sequence[Sequence[LayerNormWeights]]) -> Norms:
    weight, bias = (
        torch.stack([torch.stack([getattr(norm, part) for norm in row]) for row in norms])
        for part in ("weight", "bias")
    )
    return Norms(weight.numpy(), bias.numpy(), norms[0][0].eps)


class MatrixStore:
    """Collects one of the matrices of all layers in one array, layer by layer.

    Args:
        n_layers: number of layers.
        is_int8: round matrices with their adapters; else matrices stay exact, and adapters separate.
    """

    def __init__(self, n_layers: int, is_int8: bool) -> None:
        self._n_layers = n_layers
        self._is_int8 = is_int8
        self._weight: Tensor | None = None
        self._parts: dict[str, list[Tensor | None]] = {
            name: [] for name in ("scale", "down", "up", "factor", "bias")
        }

    def put(self, linear: PackedLinear) -> None:
        """Add the next layer's matrix."""
        scale = None
        if self._is_int8:
            linear = linear.folded()
            stored, scale = quantize_rows(linear.weight)
        else:
            stored = _to_halves(linear.weight)
            if self._weight is not None and self._weight.dtype == torch.float32:
                stored = linear.weight
        if self._weight is None:
            self._weight = stored.new_empty(self._n_layers, *stored.shape)
        elif stored.dtype != self._weight.dtype:  # no halves, but those before were
            self._weight = self._weight.view(torch.float16).float() * 2.0**-HALF_SHIFT
        n_done = len(self._parts["bias"])
        self._weight[n_done] = stored
        found = {
            "scale": scale,
            "down": linear.down,
            "up": linear.up,
            "factor": linear.scale,
            "bias": linear.bias,
        }
        for name, values in self._parts.items():
            values.append(found[name])

    def finish(self) -> Matrix:
        """Return the matrices of all layers; missing parts are empty, or neutral if only some layers have them."""
        weight = cast("Tensor", self._weight)
        n_outputs, n_inputs = weight.shape[1:]
        rank = max((len(down) for down in self._parts["down"] if down is not None), default=0)
        shapes = {"down": (rank, n_inputs), "up": (n_outputs, rank)}
        neutral = {"factor": 1.0}
        arrays: dict[str, Any] = {}
        for name, values in self._parts.items():
            has_any = any(value is not None for value in values)
            shape = shapes.get(name, (n_outputs if has_any else 0,))
            whole = torch.full((self._n_layers, *shape), neutral.get(name, 0.0))
            for target, value in zip(whole, values, strict=True):
                if value is not None:
                    target[tuple(slice(n) for n in value.shape)] = value
            arrays[name] = whole.numpy()
        return Matrix(weight.numpy(), **arrays)


def _to_halves(weight: Tensor) -> Tensor:
    """Return the bits of a float16 matrix times 2^10 as int16, or the matrix itself if it is not float16."""
    halves = (weight * 2.0**HALF_SHIFT).half()
    is_exact = torch.equal(halves.float() * 2.0**-HALF_SHIFT, weight) and torch.equal(
        weight.half().float(), weight
    )
    return halves.view(torch.int16) if is_exact else weight.contiguous()
