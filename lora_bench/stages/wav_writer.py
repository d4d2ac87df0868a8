"""Write clips in a thread, while the next ones are generated."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lora_bench.audio import save_wav

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_WAITING = 32
"""Clips that wait to be written; 32 of 30 s at 32 kHz are 120 MB."""


class WavWriter:
    """A thread that writes wav files in order; the end of its `with` block waits for all of them.

    A failed write raises its error when the next clip is put, or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wav-writer")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:  # which is not to be hidden by another
            self._settle(0)

    def put(self, file: Path, audio: NDArray, sample_rate_hz: int) -> None:
        """Queue a clip [C, S] to be written.

        Raises:
            AudioFileError: samples of an earlier clip are not finite.
            StoreError: the disk was full for an earlier clip.
        """
        self._settle(MAX_WAITING - 1)
        self._waiting.append(self._thread.submit(save_wav, file, audio, sample_rate_hz))

    def _settle(self, n_left: int) -> None:
        """Raise the errors of finished writes, and wait until at most `n_left` are unfinished."""
        while self._waiting and (len(self._waiting) > n_left or self._waiting[0].done()):
            self._waiting.popleft().result()
