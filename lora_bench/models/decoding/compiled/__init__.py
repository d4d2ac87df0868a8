"""A decoder's layers in one compiled function.

numba compiles it when it is first called on a machine (some seconds; kept in a cache afterwards).  Matrices are
read once per step, in the order in which they lie in memory; what stands between them (norms, attention,
activation, residuals) costs no calls from Python.

A row's result depends on neither the other rows nor the number of threads: every output number is one dot
product in one order, 16 partial sums over the inputs added up as a tree, done by one thread.

Axes, here and in all modules: `L` layers, `O` outputs, `I` inputs, `R` rows (clips, then their null halves), `N`
clips, `H` heads, `T` positions, `D` width, `S` tokens of the prompt.

compiler.py     numba's compiler, with a cache that knows when a callee in another file has changed
records.py      what crosses from Python: matrices, norms, what attention sees
dots.py         dot products as vectors: halves, 8 bits, float32
products.py     a matrix with rows: scales, adapter, bias, activation
attention.py    to the past and to the text
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
