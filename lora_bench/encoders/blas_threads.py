"""One thread of BLAS for features: the last bits of a matrix product depend on the number of threads.

With one thread a clip has the same vectors in every process of a machine, whatever else it runs.  Nothing is lost: a
product of a clip's features takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


@contextmanager
def use_one_blas_thread() -> Iterator[int]:
    """Let numpy's and scipy's BLAS use one thread in this process; gives the number that it would have used."""
    libraries = ThreadpoolController().select(user_api="blas")
    n_threads = max((int(each["num_threads"]) for each in libraries.info()), default=1)
    with libraries.limit(limits=1):
        yield n_threads
