"""CUDA graphs that are not there: a capture records operators and the ADDRESSES of their tensors, a replay repeats them.

It keeps these rules of real graphs:

- operators that are captured are not executed;
- memory that is made during a capture belongs to the graph, and lives as long as it does;
- other memory is read by address, and is not kept alive.  A replay that reads freed memory is reported, and finds
  `GARBAGE` there;
- to wait for the device, or to copy from it, ends a capture with an error.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.gpu_meter import find_line
from lora_bench.models import device as devices
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding import loop

GARBAGE = {torch.int64: 2**40}
REFUSED = frozenset({"_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero"})
REFUSAL = "CUDA error: operation not permitted when stream is capturing"


@dataclass
class Device:
    """What happened on the device.

    Attributes:
        n_captures: finished captures.
        reads_after_free: by the place that made the memory, how often a replay read it after it was freed.
        addresses: memory outside of graphs that each graph uses.
        streams: streams that captured.
        pools: number of living graphs by pool.
        reopened: pools that captured again after their last graph was gone.
        fails_at: number of the capture that fails; None is no one.
    """

    n_captures: int = 0
    reads_after_free: Counter[str] = field(default_factory=Counter)
    addresses: list[set[int]] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)
    pools: Counter[Any] = field(default_factory=Counter)
    reopened: list[Any] = field(default_factory=list)
    fails_at: int | None = None


class _Address:
    """A tensor by its place in memory, which is not kept alive."""

    def __init__(self, tensor: Tensor, birth: str, device: Device) -> None:
        self.storage = weakref.ref(tensor.untyped_storage())
        self.n_bytes = tensor.untyped_storage().nbytes()
        self.pointer = tensor.untyped_storage().data_ptr()
        self._meta = (tensor.storage_offset(), tensor.shape, tensor.stride())
        self._dtype = tensor.dtype
        self._birth = birth
        self._device = device

    def read(self) -> Tensor:
        offset, shape, stride = self._meta
        storage = self.storage()
        if storage is not None:
            return torch.empty(0, dtype=self._dtype).set_(storage, offset, shape, stride)
        self._device.reads_after_free[self._birth] += 1
        n = max(1, self.n_bytes // self._dtype.itemsize)
        garbage = torch.full((n,), GARBAGE.get(self._dtype, 1), dtype=self._dtype)
        return garbage.as_strided(shape, stride, offset)


class _Births(TorchDispatchMode):
    """Notes which line made a storage."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.lines:
                    self.lines[storage._cdata] = find_line()
                    weakref.finalize(storage, self.lines.pop, storage._cdata, None)
        return made


class _Recorder(TorchDispatchMode):
    """Records operators of a capture, and restores what they wrote."""

    def __init__(self, births: _Births, device: Device) -> None:
        super().__init__()
        self._births, self._device = births, device
        self.tape: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.own: dict[int, Any] = {}
        self.used: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.split("::")[-1] in REFUSED:
            raise RuntimeError(f"{REFUSAL} ({func._schema.name} at {find_line()})")
        recorded = tree_map(self._refer, (args, kwargs))
        for argument, declared in zip(args, func._schema.arguments, strict=False):
            is_written = declared.alias_info is not None and declared.alias_info.is_write
            if is_written and isinstance(argument, Tensor):
                self._keep_before(argument.untyped_storage())
        made = func(*args, **kwargs)
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self.own[leaf.untyped_storage()._cdata] = leaf.untyped_storage()
        self.tape.append((func, *recorded, tree_map(self._refer, made)))
        return made

    def _refer(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.untyped_storage()._cdata in self.own:
            return value
        storage = value.untyped_storage()
        self.used.add(storage.data_ptr())
        return _Address(value, self._births.lines.get(storage._cdata, "before"), self._device)

    def _keep_before(self, storage: Any) -> None:
        if storage._cdata not in self.own and storage._cdata not in self._before:
            self._before[storage._cdata] = (storage, storage.clone())

    def restore(self) -> None:
        for storage, copy in self._before.values():
            storage.copy_(copy)


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, _Address) else value


class _Graph:
    """In the place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.recorder: Any = None
        self.release: Callable[[], None] = lambda: None

    def replay(self) -> None:
        for func, args, kwargs, made in self.recorder.tape:
            now_args, now_kwargs = tree_map(_read, (args, kwargs))
            for new, old in zip(tree_leaves(func(*now_args, **now_kwargs)), tree_leaves(made), strict=True):
                place = _read(old)
                if isinstance(new, Tensor) and new.numel() and new.data_ptr() != place.data_ptr():
                    place.copy_(new)

    def __del__(self) -> None:
        self.release()


class _Stream:
    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: _Stream) -> None:
        """Streams of the mock do everything at once."""


@contextmanager
def fake_graphs() -> Iterator[Device]:
    """Put graphs of this module in the place of torch's; tensors on the CPU stand for the GPU's."""
    device, births = Device(), _Births()
    main = _Stream()

    @contextmanager
    def capture(graph: _Graph, pool: Any = None, stream: Any = None, **_: Any) -> Iterator[None]:
        if device.pools[pool] == 0 and pool in device.pools:
            device.reopened.append(pool)
        device.pools[pool] += 1

        def release() -> None:
            device.pools[pool] -= 1

        graph.release = release
        device.streams.append(stream)
        recorder = _Recorder(births, device)
        try:
            with recorder:
                yield
                device.n_captures += 1
                if device.n_captures == device.fails_at:
                    raise RuntimeError(REFUSAL)
        finally:
            recorder.restore()
        graph.recorder = recorder
        device.addresses.append(recorder.used)

    replaced = {
        "CUDAGraph": _Graph,
        "graph": capture,
        "Stream": _Stream,
        "current_stream": lambda device=None: main,
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": object,
    }
    with patch.multiple(torch.cuda, **replaced), births:
        yield device


@contextmanager
def gpu_by_mock(bucket: int) -> Iterator[Device]:
    """Decode as on a GPU, on tensors of the CPU, with a graph for each `bucket` positions."""
    with (
        fake_graphs() as device,
        patch.object(devices, "is_gpu", lambda _: True),
        patch.object(loop, "BUCKET", bucket),
        patch.object(decoding, "BUCKET", bucket),
    ):
        yield device
