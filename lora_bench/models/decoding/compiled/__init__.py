"""A decoder's layers in one compiled function.

numba compiles it at its first call on a machine (some seconds; cached afterwards).  Matrices are read once per step, in
the order of their memory; norms, attention, activation and residuals between them need no calls from Python.

A row's result depends neither on other rows nor on the number of threads: every output is one dot product in one order
(16 partial sums over the inputs, added as a tree), computed by one thread.

Axes, here and in all modules: `L` layers, `O` outputs, `I` inputs, `R` rows (clips, then their null halves), `N`
clips, `H` heads, `T` positions, `D` width, `S` tokens of the prompt.

compiler.py     numba's compiler, with a cache that knows when a callee in another file has changed
records.py      arguments from Python: matrices, norms, inputs of attention
dots.py         dot products as vectors: float16, 8 bits, float32
products.py     a matrix times rows: scales, adapter, bias, activation
attention.py    attention to the past and to the text
layers.py       all layers of a step, and the heads
"""

from lora_bench.models.decoding.compiled.layers import run_heads, run_layers
from lora_bench.models.decoding.compiled.products import multiply
from lora_bench.models.decoding.compiled.records import (
    ADD,
    GELU,
    HALF_SHIFT,
    LANES,
    RELU,
    WRITE,
    Attended,
    Heads,
    Layers,
    Matrix,
    Norms,
    Ways,
)

__all__ = [
    "ADD",
    "GELU",
    "HALF_SHIFT",
    "LANES",
    "RELU",
    "WRITE",
    "Attended",
    "Heads",
    "Layers",
    "Matrix",
    "Norms",
    "Ways",
    "multiply",
    "run_heads",
    "run_layers",
]
