"""numba's compiler, with a cache that knows when a callee in another file has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_PARTS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
# Only explicit `prange` loops are parallel; analysing the rest takes long.
_LOOPS = {"prange": True, **dict.fromkeys(_PARTS, False)}
_DIGEST_CHARS = 12


def compiled(*, parallel: bool = False) -> Callable[[Function], Function]:
    """Return numba's compiler, with its cache if a folder for it is writable.

    A compiled function contains the functions that it calls, but numba's cache checks only the function's own file.
    Entries are therefore named after all sources in the function's folder, so that a change of any invalidates them.

    Sums are in the order of the source (no fast math): a function that was compiled just now and one from the cache may
    be inlined in different ways, and must still give the same bits.
    """

    def decorate(function: Function) -> Function:
        options: dict[str, Any] = {
            "parallel": _LOOPS if parallel else False,
            "nogil": True,
            "error_model": "numpy",
        }
        folder = Path(function.__code__.co_filename).parent
        function.__qualname__ += f".{_digest_sources(folder)}"  # part of the names of its files in the cache
        try:
            made: Any = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no writable folder: compile in every process
            made = numba.njit(**options)(function)
        return made

    return decorate


@cache
def _digest_sources(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        source = file.read_bytes()
        digest.update(f"{file.name} {len(source)} ".encode() + source)
    return digest.hexdigest()[:_DIGEST_CHARS]
