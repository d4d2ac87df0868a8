"""Capture a decoding step as a CUDA graph, which replays all its kernels with one call of the driver.

A graph reads memory by address.  What it does not allocate itself must stay alive, and in place, as long as it is
replayed: the caller keeps everything that `work` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

N_WARM_UPS = 2


class GraphRecorder:
    """Captures graphs on one stream and into one pool of memory; they may be replayed in any order, not at once.

    A stream has a workspace of cuBLAS of its own, so warm-ups and captures share one.

    Args:
        device: a GPU, not necessarily the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device=device)
        self.renew_pool()

    def renew_pool(self) -> None:
        """Take another pool once all graphs are gone: torch does not reopen an empty one."""
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Callable[[], None], state: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """Capture one call of `work`.

        Args:
            work: runs without any value that the CPU needs.
            state: what it changes; it is restored after the warm-up.

        Raises:
            RuntimeError: it cannot be captured.
        """
        before = [tensor.clone() for tensor in state]
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        # around the capture too: torch stays on its stream after one that failed
        with torch.cuda.stream(self._stream):
            for _ in range(N_WARM_UPS):
                work()
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                work()
        current.wait_stream(self._stream)
        return graph
