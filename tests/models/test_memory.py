"""Running out of memory: recognised, freed before the next attempt, and halved as far as it goes."""

from __future__ import annotations

import weakref

import pytest
import torch

from lora_bench.encoders.assembly import embed_pieces
from lora_bench.errors import OutOfMemoryError
from lora_bench.models.memory import Halving, is_out_of_memory

CPU = torch.device("cpu")
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.mark.parametrize(
    "message",
    [
        NO_MEMORY,
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_allocations_that_fail_inside_of_libraries_are_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


@pytest.mark.parametrize(
    "message", ["CUDA error: an illegal memory access was encountered", "cuDNN error: CUDNN_STATUS_BAD_PARAM"]
)
def test_other_errors_of_a_gpu_are_not(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_what_the_failed_attempt_held_is_gone_before_memory_is_returned() -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    seen: list[bool] = []

    def work(size: int) -> int:
        big = torch.zeros(8)
        held.append(weakref.ref(big))
        if size > 2:
            raise torch.OutOfMemoryError(NO_MEMORY)
        return size

    told: list[tuple[int, int]] = []
    halving = Halving(
        CPU,
        "a clip",
        "wait",
        tell=lambda *sizes: told.append(sizes),
        free=lambda: seen.append(held[-1]() is None),
    )
    assert halving.run(9, work) == 2
    assert told == [(9, 4), (4, 2)]
    assert seen == [True, True]
    assert halving.run(9, work) == 2  # the limit stays
    assert len(told) == 2


def test_a_batch_of_one_that_does_not_fit_is_an_error_with_the_mend() -> None:
    def work(size: int) -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    with pytest.raises(
        OutOfMemoryError, match=r"^a clip did not fit into the memory of cpu \(.* GiB\); wait$"
    ):
        Halving(CPU, "a clip", "wait").run(4, work)


def test_encoders_halve_their_batches_and_keep_the_order() -> None:
    import numpy as np

    from lora_bench.artifacts import AudioClip

    clips = [AudioClip(str(n), str(n), np.full((1, 8), n, dtype=np.float32), 8) for n in range(5)]
    sizes: list[int] = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError(NO_MEMORY)
        return batch[:, :1, :3]

    found = embed_pieces(clips, lambda clip: [clip.audio], run, {"encoder": "test"}, max_samples=1000)
    assert sizes == [5, 2, 2, 1]
    assert found.values[:, 0].tolist() == [0, 1, 2, 3, 4]
