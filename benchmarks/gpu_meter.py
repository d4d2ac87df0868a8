"""Counts what operators on a fake GPU would cost: launches, traffic, memory, and waits for the device."""

from __future__ import annotations

import linecache
import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

BLOCK = 512  # bytes by which CUDA's allocator rounds up
NO_KERNEL = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "t",
        "detach",
        "alias",
        "unbind",
        "split",
        "split_with_sizes",
        "chunk",
        "as_strided",
        "narrow",
        "lift_fresh",
        "unfold",
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
    ]
)
KERNELS = {
    "topk": 2,
    "cumsum": 2,
    "all": 2,
    "any": 2,
    "convolution": 2,
    "_scaled_dot_product_flash_attention_backward": 3,
    "_scaled_dot_product_efficient_attention_backward": 3,
}
"""Kernels that an operator launches, where it is not one."""
READS_OUTPUT_ONLY = frozenset({"index_select", "embedding", "gather"})
WAITS = frozenset({"equal", "is_nonzero", "nonzero", "masked_select", "_unique2"})


class Meter(TorchDispatchMode):
    """Counts operators on `device`.

    Args:
        device: tensors elsewhere cost nothing.
        existing: tensors that were made before.
        answers: by a part of the line that asks, the numbers of tensors that the CPU reads.

    Attributes:
        launches: kernels.
        n_bytes_moved: bytes that kernels read and write, if nothing stays in caches.
        flop: of products and attention.
        by_op: launches by operator.
        waits: by place, how often the CPU waits for the device.
        uploads: by place, copies from the CPU.
        mixed: by place, operators with tensors of two devices.
        n_bytes: memory of all living tensors.
        peak_bytes: at most since `reset`.
    """

    def __init__(
        self,
        device: torch.device,
        existing: Iterable[Tensor] = (),
        answers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self._answers = answers or {}
        self._kind = device.type
        self._known: set[int] = set()
        self.n_bytes = self.peak_bytes = 0
        self._add(existing)
        self.reset()

    def reset(self) -> None:
        """Begin new counts; memory stays known."""
        self.launches = self.n_bytes_moved = self.flop = 0
        self.by_op: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()
        self.peak_bytes = self.n_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[-1]
        base = name if name.startswith("_") else name.rstrip("_")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in given if self._is_ours(tensor)]
        if base in ("_local_scalar_dense", "item"):
            return self._read_number(func, given, args, kwargs)
        if base in WAITS and ours:
            self.waits[f"{base}: {find_line()}"] += 1
            if base == "equal":
                return False
        if base in ("index", "index_put") and any(tensor.dtype == torch.bool for tensor in ours[1:]):
            self.waits[f"boolean index: {find_line()}"] += 1
        made = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self._add(results)
        if self._is_copy_between_devices(base, given, results):
            return made
        if ours and any(tensor.device.type != self._kind for tensor in given):
            self.mixed[f"{base}: {find_line()}"] += 1
        if (ours or any(map(self._is_ours, results))) and base not in NO_KERNEL:
            self._count(base, func, args, kwargs, ours, results, made)
        return made

    def _is_ours(self, tensor: Tensor) -> bool:
        return tensor.device.type == self._kind

    def _read_number(self, func: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Answer `.item()`, which a fake tensor cannot: as `answers` say, or with 1 or True."""
        if getattr(given[0], "constant", None) is not None:
            return func(*args, **kwargs)
        line = find_line()
        for part, answer in self._answers.items():
            if part in line:
                return answer
        if self._is_ours(given[0]):
            self.waits[find_line()] += 1
        if given[0].dtype == torch.bool:
            return True
        return 1.0 if given[0].dtype.is_floating_point else 1

    def _is_copy_between_devices(self, base: str, given: list[Tensor], results: list[Tensor]) -> bool:
        if base not in ("_to_copy", "copy") or not given:
            return False
        source, target = given[0] if base == "_to_copy" else given[-1], results[0]
        if source.device.type == target.device.type:
            return False
        (self.waits if target.device.type == "cpu" else self.uploads)[f"copy: {find_line()}"] += 1
        return True

    def _count(
        self,
        base: str,
        func: Any,
        args: Any,
        kwargs: Any,
        ours: list[Tensor],
        results: list[Tensor],
        made: Any,
    ) -> None:
        n = KERNELS.get(base, 1)
        self.launches += n
        self.by_op[base] += n
        written = sum(tensor.nbytes for tensor in results if self._is_ours(tensor))
        read = sum(map(count_touched, ours))
        if base in READS_OUTPUT_ONLY:
            read = written
        if base == "index_copy":  # writes its source's rows alone
            read = written = ours[-1].nbytes
        self.n_bytes_moved += read + written
        count_flop = flop_registry.get(func._overloadpacket)
        if count_flop is not None:
            self.flop += count_flop(*args, **kwargs, out_val=made)

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if not self._is_ours(tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known.add(key)
                n_bytes = -(-storage.nbytes() // BLOCK) * BLOCK
                self.n_bytes += n_bytes
                self.peak_bytes = max(self.peak_bytes, self.n_bytes)
                weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.n_bytes -= n_bytes


def count_touched(tensor: Tensor) -> int:
    """Bytes of a tensor, with expanded axes counted once."""
    n = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        n *= size if stride else 1
    return n * tensor.element_size()


def find_line() -> str:
    """The innermost line of lora_bench, or else of transformers, that runs now."""
    frame: FrameType | None = sys._getframe(1)
    library = "elsewhere"
    while frame is not None:
        name = frame.f_code.co_filename
        if "/lora_bench/" in name:
            return _describe_line(name.split("/lora_bench/")[-1], name, frame.f_lineno)
        if "/transformers/" in name and library == "elsewhere":
            library = _describe_line(name.split("/transformers/")[-1], name, frame.f_lineno)
        frame = frame.f_back
    return library


@cache
def _describe_line(place: str, file: str, number: int) -> str:
    return f"{place}: {linecache.getline(file, number).strip()}"
