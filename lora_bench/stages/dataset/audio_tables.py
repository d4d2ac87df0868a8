"""Tables with a column of sounds: parquet files, and Arrow files as Hugging Face's `datasets` saves them.

A sound is a structure of `bytes` and `path`.  Other columns with text, numbers or lists of them become fields of
captions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lora_bench.errors import DatasetError, StoreError
from lora_bench.slugs import spell_path
from lora_bench.stages.dataset.unpacked_folder import UnpackedFolder

if TYPE_CHECKING:
    import pyarrow

N_ROWS = 16
"""Rows in memory at a time."""
TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})


def unpack_table(table: Path, target: UnpackedFolder, prefix: str = "") -> list[Mapping[str, object]]:
    """Write the sounds of a table, and return what other columns say about each file, `file_name` first.

    Raises:
        DatasetError: the table is damaged, has no column of sounds, or a row has none.
        StoreError: the disk is full.
    """
    import pyarrow

    lines: list[Mapping[str, object]] = []
    try:
        with _open(table) as (schema, batches):
            column = find_sounds(schema)
            if column is None:
                names = ", ".join(f"`{name}`" for name in schema.names)
                raise target.complain(
                    f"{spell_path(table.name)} has no column of sounds (columns: {names}); expected one of the type "
                    "Audio, a structure with `bytes` and `path`"
                )
            kept = [field.name for field in schema if field.name != column and _is_plain(field.type)]
            index = 0
            for batch in batches:
                for row in batch.select([column, *kept]).to_pylist():
                    name = _write_sound(row[column], table, index, target, prefix)
                    fields = {key: row[key] for key in kept if row[key] is not None}
                    lines.append({"file_name": name, **fields})
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, DatasetError | StoreError):
            raise
        raise target.complain(
            f"{spell_path(table.name)} cannot be read ({str(error).splitlines()[0]}); get it again"
        ) from error
    return lines


def count_rows(table: Path) -> int | None:
    """Count the rows of a table; None if it is damaged or has no column of sounds."""
    import pyarrow
    import pyarrow.parquet

    try:
        if table.suffix.lower() == ".parquet":
            return int(pyarrow.parquet.ParquetFile(table).metadata.num_rows)
        with _open(table) as (schema, batches):
            return None if find_sounds(schema) is None else sum(batch.num_rows for batch in batches)
    except (pyarrow.ArrowException, OSError):
        return None


def find_sounds(schema: pyarrow.Schema) -> str | None:
    """Return the first column of sounds: one that Hugging Face's features name so, else one that looks like it."""
    import pyarrow

    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features: Any = json.loads(metadata).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        features = {}
    for field in schema:
        stated = features.get(field.name) if isinstance(features, dict) else None
        kind = stated.get("_type") if isinstance(stated, dict) else None
        if not pyarrow.types.is_struct(field.type) or kind not in {"Audio", None}:
            continue
        inner = [field.type.field(index) for index in range(field.type.num_fields)]
        types = {part.name: part.type for part in inner}
        if "bytes" in types and (
            pyarrow.types.is_binary(types["bytes"]) or pyarrow.types.is_large_binary(types["bytes"])
        ):
            return field.name
    return None


@contextmanager
def _open(table: Path) -> Iterator[tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]]:
    import pyarrow.ipc
    import pyarrow.parquet

    if table.suffix.lower() == ".parquet":
        with pyarrow.parquet.ParquetFile(table) as file:
            yield file.schema_arrow, file.iter_batches(batch_size=N_ROWS)
        return
    with pyarrow.memory_map(str(table)) as source:
        try:
            stream = pyarrow.ipc.open_stream(source)
            yield stream.schema, iter(stream)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            file = pyarrow.ipc.open_file(source)
            yield file.schema, (file.get_batch(index) for index in range(file.num_record_batches))


def _is_plain(kind: pyarrow.DataType) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
    )


def _write_sound(sound: Any, table: Path, index: int, target: UnpackedFolder, prefix: str) -> str:
    """Write one sound; return its name, which has its row's number."""
    stated = str((sound or {}).get("path") or "")
    original = PurePosixPath(stated.replace("\\", "/"))
    name = f"{prefix}{index:06d}_{original.name.lstrip('.') or 'sound'}"
    data = (sound or {}).get("bytes")
    if data is not None:
        target.write(name, io.BytesIO(data))
        return name
    linked = Path(stated) if original.is_absolute() else table.parent / stated
    if not stated or not linked.is_file():
        where = f"its file {spell_path(stated)} is not there" if stated else "it has neither bytes nor a path"
        raise target.complain(
            f"{spell_path(table.name)}, row {index}: no sound, because {where}; save the dataset with its sounds"
        )
    path = target.place(name)
    if path is not None:
        path.symlink_to(linked.resolve())
    return name
