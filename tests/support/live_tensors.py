"""Counts tensors as they come and go, by hooks of torch: what the estimates are compared with."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveTensors(TorchDispatchMode):
    """Bytes of all storages that operators made and that are still referred to.

    Attributes:
        n_bytes: now.
        peak_bytes: at most since the last `reset`.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.n_bytes = self.peak_bytes = 0
        self._known: set[int] = set()
        self.add(existing)

    def add(self, tensors: Iterable[Any]) -> None:
        """Count tensors that were made before or by an operator."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, n_bytes = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.n_bytes += n_bytes
                self.peak_bytes = max(self.peak_bytes, self.n_bytes)
                weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.n_bytes -= n_bytes

    def reset(self) -> None:
        """Begin a new peak."""
        self.peak_bytes = self.n_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(tree_iter(made))
        return made


def count_saved_bytes(run: Callable[[], Tensor], model_tensors: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `run()`; shared storages once, the model's own not at all."""
    own = {tensor.untyped_storage()._cdata for tensor in model_tensors}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            kept[key] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run()
    n_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return n_bytes
