"""Matrix products of few rows: this machine's limits, and how near to them decoding's ways of multiplying come.

    python benchmarks/row_products.py --out benchmarks/results/row_products.md

One pass over the linear layers that MusicGen small reads in every decoding step (24 layers, 352 M numbers; every
layer has matrices of its own, so that none stays in a cache).  Limits: the rate at which memory is read (a sum over
1.4 GB), and that of a square float32 product.  The bound of a pass is the larger of the times that these two ask for.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lora_bench.models.decoding import compiled
from lora_bench.models.decoding.kernels import Kernel, Product, has_exact_int8
from lora_bench.models.decoding.small_batch_step import MatrixStore
from lora_bench.models.linears import PackedLinear

N_LAYERS, WIDTH, FFN = 24, 1024, 4096
SHAPES = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (FFN, WIDTH), (WIDTH, FFN))
BYTES = {"plain": 4, "int8": 1, "streamed halves": 2, "streamed int8": 1}
SQUARE = 2048


def best_s(work: Callable[[], object], repeats: int) -> float:
    """Shortest of some times, after one that warms up."""
    work()
    times: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def multiply_all(products: Sequence[Product], sides: Sequence[Tensor]) -> None:
    """One pass."""
    for product, x in zip(products, sides, strict=True):
        product(x)


def prepare(way: str, linear: PackedLinear, n_rows: int) -> Product:
    """A product; streamed ones are otherwise called within a compiled step, without Python between them."""
    if not way.startswith("streamed"):
        return Kernel(way).prepare(linear)
    store = MatrixStore(1, is_int8=way.endswith("int8"))
    store.put(linear)
    matrix = store.finish()
    y = torch.empty(n_rows, len(linear.weight))

    def multiply(x: Tensor) -> Tensor:
        compiled.multiply(x.clone().numpy(), matrix, 0, y.numpy(), compiled.WRITE)  # it overwrites x
        return y

    return multiply


def list_ways() -> list[str]:
    """All but the library's 8-bit products where they are not exact, and so not used."""
    return [way for way in BYTES if way != "int8" or has_exact_int8()]


def measure_limits(repeats: int) -> tuple[float, float]:
    """Bytes per second that are read, and float32 operations per second of a square product."""
    numbers = torch.ones(360_000_000)
    read = numbers.nbytes / best_s(numbers.sum, repeats)
    square = torch.randn(SQUARE, SQUARE)
    return read, 2 * SQUARE**3 / best_s(lambda: square @ square, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    generator = torch.Generator().manual_seed(0)
    linears = [
        PackedLinear((torch.randn(o, i, generator=generator) * 0.02).half().float())
        for _ in range(N_LAYERS)
        for o, i in SHAPES
    ]
    n_weights = sum(linear.weight.numel() for linear in linears)
    with torch.inference_mode():
        read, rate = measure_limits(arguments.repeats)
        times: dict[tuple[str, int], float] = {}
        for way in list_ways():
            for n_rows in arguments.rows:
                products = [prepare(way, linear, n_rows) for linear in linears]
                inputs = {i: torch.randn(n_rows, i) for _, i in SHAPES}
                sides = [inputs[linear.weight.shape[1]] for linear in linears]
                work = partial(multiply_all, products, sides)
                times[way, n_rows] = best_s(work, arguments.repeats)
                print(f"{way} {n_rows}: {times[way, n_rows] * 1e3:.1f} ms", flush=True)
    page = write_page(times, arguments, read, rate, n_weights, load)
    print(page)
    if arguments.out is not None:
        arguments.out.write_text(page, encoding="utf-8")


def write_page(
    times: dict[tuple[str, int], float],
    arguments: argparse.Namespace,
    read: float,
    rate: float,
    n_weights: int,
    load: float,
) -> str:
    """The results as a page."""
    about = (
        f"`python benchmarks/row_products.py`: one pass over {n_weights / 1e6:.0f} M numbers, milliseconds, best of "
        f"{arguments.repeats}; in brackets how many times the bound."
    )
    limits = (
        f"Memory is read at {read / 1e9:.1f} GB/s; a float32 product of {SQUARE} x {SQUARE} runs at "
        f"{rate / 1e9:.0f} GFLOP/s."
    )
    machine = (
        f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}; load {load:.1f} before.  The bound of int8 is "
        "reading alone."
    )
    head = " | ".join(f"{n} rows" for n in arguments.rows)
    lines = ["# Matrix products of few rows", "", about, "", limits, "", f"| way | {head} |"]
    lines.append("|---|" + "---:|" * len(arguments.rows))
    for way, width in BYTES.items():
        cells: list[str] = []
        for n_rows in arguments.rows:
            if (way, n_rows) not in times:
                cells.append("not exact here, and not used")
                continue
            floor = n_weights * width / read
            if not way.endswith("int8"):  # its arithmetic has another rate
                floor = max(floor, 2 * n_weights * n_rows / rate)
            cells.append(f"{times[way, n_rows] * 1e3:.0f} ({times[way, n_rows] / floor:.2f})")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", machine, ""])


if __name__ == "__main__":
    main()
