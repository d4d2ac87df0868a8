"""The rows of `results.csv` as a parquet table, with types."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lora_bench.results.csv_table import CSV_COLUMNS, list_cells, list_columns
from lora_bench.results.run_records import RunResults

_INTEGERS = frozenset(
    {"train_seed", "rank", "trainable_params", "n_generated", "n_reference", "dim", "n_seeds"}
)
_REALS = frozenset({"alpha", "value", "corrected", "se", "ci_low", "ci_high"})
_REAL_ENDINGS = ("delta", "_low", "_high", "_detectable")


def render_parquet(results: RunResults) -> bytes:
    """Return the bytes of the file; the same results give the same bytes under the same version of pyarrow.

    A cell that was not scored has null values and its reason in `unscored`; `prompt` null is all prompts.
    """
    rows = list(list_cells(results))
    names = list_columns(results)
    values = {name: [row.get(name) for row in rows] for name in names}
    kinds = {name: _type_of(name) if name in CSV_COLUMNS else _find_type(values[name]) for name in names}
    schema = pa.schema(list(kinds.items()))
    columns = [_make_array(values[name], kind) for name, kind in kinds.items()]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), stream, compression="zstd")
    return stream.getvalue()


def _type_of(name: str) -> pa.DataType:
    if name in _INTEGERS:
        return pa.int64()
    return pa.float64() if name in _REALS or name.endswith(_REAL_ENDINGS) else pa.string()


def _find_type(values: Sequence[Any]) -> pa.DataType:
    """Return the type of a setting that trials differ in: numbers if all known values are."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return pa.int64() if all(isinstance(value, int) for value in known) else pa.float64()
    return pa.string()


def _make_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column from its buffers: `pyarrow.array` would import pandas, which takes longer than a report."""
    known = np.array([value is not None for value in values], dtype=bool)
    valid = pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    if kind == pa.string():
        texts = [b"" if value is None else str(value).encode(errors="backslashreplace") for value in values]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.Array.from_buffers(
            kind, len(values), [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
        )
    numbers = np.array(
        [0 if value is None else value for value in values],
        dtype=np.int64 if kind == pa.int64() else np.float64,
    )
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(numbers)])
