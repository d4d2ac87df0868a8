"""Read TensorFlow's checkpoint format ("tensor bundle") without TensorFlow.

A bundle is an index and a data file.  The index is a LevelDB table: a footer of 48 bytes points to an index block,
which points to data blocks of prefix-compressed keys.  Each value is a small protocol buffer with type, shape, offset
and size of one tensor in the data file.

Sources: `tensorflow/core/util/tensor_bundle/tensor_bundle.h`,
`tensorflow/core/protobuf/tensor_bundle.proto` and LevelDB's `doc/table_format.md`.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
DT_FLOAT = 1  # tensorflow/core/framework/types.proto
WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 0, 1, 2, 5
CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
CRC_MASK_DELTA = 0xA282EAD8  # LevelDB stores checksums rotated by 15 bits and shifted by this


@dataclass(frozen=True)
class TensorEntry:
    """Type, shape and place of one tensor.

    Attributes:
        dtype: TensorFlow's number of the type; 1 is float32.
        offset: first byte in the data file.
        size: number of bytes.
        crc32c: masked checksum of the bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int


def read_bundle_index(path: Path) -> dict[str, TensorEntry]:
    """Read the entries of all tensors of a checkpoint, by name, from its `.index` file.

    Raises:
        ModelError: the file is missing, damaged or not an uncompressed table.
    """
    try:
        data = path.read_bytes()
        handles = [value for _, value in _table_entries(data)]
        entries: dict[str, TensorEntry] = {}
        for handle in handles:
            for key, value in _block_entries(_read_block(data, *_block_handle(handle)[:2])):
                if key:  # the empty key is the bundle's header
                    entries[key.decode()] = _parse_entry(value)
    except OSError as error:
        raise ModelError(f"{path}: the checkpoint's index cannot be read ({error.strerror})") from error
    except (IndexError, ValueError, struct.error) as error:
        raise ModelError(
            f"{path}: not a readable TensorFlow checkpoint index ({error}); reinstall the package it is from"
        ) from error
    return entries


def read_bundle(folder: Path, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Read all float32 tensors of a checkpoint of one shard.

    Args:
        folder: folder of the checkpoint.
        prefix: beginning of its files' names, before `.index`; may be empty.

    Raises:
        ModelError: a file is missing or damaged.
    """
    entries = read_bundle_index(folder / f"{prefix}.index")
    path = folder / f"{prefix}.data-00000-of-00001"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the checkpoint's tensors cannot be read ({error.strerror})") from error
    return {
        name: read_tensor(entry, data, f"{path}: {name}")
        for name, entry in entries.items()
        if entry.dtype == DT_FLOAT
    }


def read_tensor(entry: TensorEntry, data: bytes, place: str) -> NDArray[np.float32]:
    """Read one float32 tensor from the data file's bytes; errors name `place`.

    Raises:
        ModelError: the entry does not fit the data, or the data are damaged.
    """
    n_values = int(np.prod(entry.shape, dtype=np.int64))
    if entry.shard != 0 or entry.size != 4 * n_values or entry.offset + entry.size > len(data):
        raise ModelError(
            f"{place}: {entry.size} bytes at {entry.offset} of shard {entry.shard} do not fit shape "
            f"{entry.shape} and a file of {len(data)} bytes; reinstall the package it is from"
        )
    found = masked_crc32c(data[entry.offset : entry.offset + entry.size])
    if found != entry.crc32c:
        raise ModelError(
            f"{place}: its {entry.size} bytes are damaged, their checksum is {found:08x}, expected "
            f"{entry.crc32c:08x}; reinstall the package it is from"
        )
    values = np.frombuffer(data, dtype="<f4", count=n_values, offset=entry.offset)
    return values.reshape(entry.shape).astype(np.float32)


def masked_crc32c(data: bytes) -> int:
    """Compute LevelDB's masked CRC-32C of `data`.

    A checksum is linear in its bytes and in its start value, so pieces of equal length are computed in parallel from a
    start of zero.  Each bit of the start value has a row of its own, which tells what it becomes after a piece.
    """
    length = max(1, math.isqrt(len(data)))
    n_single = len(data) % length
    crc = 0xFFFFFFFF
    for byte in data[:n_single]:
        crc = int(_CRC_TABLE[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    pieces = np.frombuffer(data, dtype=np.uint8)[n_single:].reshape(-1, length)
    rows = np.concatenate([pieces, np.zeros((32, length), dtype=np.uint8)])
    states = np.concatenate([np.zeros(len(pieces), dtype=np.uint32), _BITS])
    for column in rows.T:
        states = _CRC_TABLE[(states ^ column) & 0xFF] ^ (states >> 8)
    moved = states[-32:].tolist()
    for piece in states[:-32].tolist():
        crc = functools.reduce(operator.xor, (moved[bit] for bit in range(32) if crc >> bit & 1), piece)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + CRC_MASK_DELTA) & 0xFFFFFFFF


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (table & 1) * np.uint32(CRC32C_POLYNOMIAL)
    return table.astype(np.uint32)


_CRC_TABLE = _crc_table()
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number; return it and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _block_handle(data: bytes, at: int = 0) -> tuple[int, int, int]:
    """Read offset and size of a block; return them and the position after them."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _table_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of the table's index block: last key and handle of each data block."""
    if len(data) < FOOTER_BYTES:
        raise ValueError(f"{len(data)} bytes are too few for a table")
    footer = data[-FOOTER_BYTES:]
    (magic,) = struct.unpack_from("<Q", footer, FOOTER_BYTES - 8)
    if magic != TABLE_MAGIC:
        raise ValueError(f"magic number {magic:#x}, expected {TABLE_MAGIC:#x}")
    _, _, at = _block_handle(footer)  # the meta index is empty in bundles
    offset, size, _ = _block_handle(footer, at)
    yield from _block_entries(_read_block(data, offset, size))


def _read_block(data: bytes, offset: int, size: int) -> bytes:
    """Return the content of a block after checking its trailer (compression, checksum)."""
    kind, crc = struct.unpack_from("<BI", data, offset + size)
    if kind != 0:
        raise ValueError(f"block at {offset} has compression {kind}, expected none")
    if masked_crc32c(data[offset : offset + size + 1]) != crc:
        raise ValueError(f"the checksum of the block at {offset} does not fit")
    return data[offset : offset + size]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block; each key shares a prefix with the previous one."""
    (n_restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (n_restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _message_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and raw values of a protocol buffer."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == WIRE_VARINT:
            value, at = _varint(data, at)
            yield field, value
        elif wire == WIRE_BYTES:
            length, at = _varint(data, at)
            yield field, data[at : at + length]
            at += length
        elif wire in (WIRE_32, WIRE_64):
            length = 4 if wire == WIRE_32 else 8
            yield field, int.from_bytes(data[at : at + length], "little")
            at += length
        else:
            raise ValueError(f"wire type {wire} in a tensor's entry")


def _parse_entry(data: bytes) -> TensorEntry:
    """Parse a `BundleEntryProto`: dtype 1, shape 2 (dim 2 (size 1)), shard 3, offset 4, size 5, crc32c 6."""
    numbers: Mapping[int, int] = {
        field: value for field, value in _message_fields(data) if isinstance(value, int)
    }
    shape: list[int] = []
    for field, value in _message_fields(data):
        if field == 2 and isinstance(value, bytes):
            for part, dim in _message_fields(value):
                if part == 2 and isinstance(dim, bytes):
                    sizes = [size for number, size in _message_fields(dim) if number == 1]
                    shape.append(int(sizes[0]) if sizes and isinstance(sizes[0], int) else 0)
    return TensorEntry(
        dtype=numbers.get(1, 0),
        shape=tuple(shape),
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        crc32c=numbers.get(6, 0),
    )
