"""The checkpoint reader against bundles written by hand and the ones in the musicnn package."""

from __future__ import annotations

import itertools
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from lora_bench.encoders.tensor_bundle import masked_crc32c, read_bundle, read_bundle_index
from lora_bench.errors import ModelError


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def make_block(entries):
    """A block with prefix compression, one restart point."""
    out, last = bytearray(), b""
    for key, value in entries:
        shared = 0
        while shared < min(len(last), len(key)) and last[shared] == key[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def write_bundle(folder, prefix, tensors, *, kind=0):
    """A bundle of one shard as TensorFlow writes it, with two data blocks."""
    data, entries = bytearray(), [(b"", field(1, 1))]
    for name in sorted(tensors, key=str.encode):
        raw = tensors[name].astype("<f4").tobytes()
        shape = b"".join(field(2, field(1, size)) for size in tensors[name].shape)
        crc = varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(raw))
        entry = (
            field(1, 1) + field(2, shape) + (field(4, len(data)) if data else b"") + field(5, len(raw)) + crc
        )
        entries.append((name.encode(), entry))
        data += raw
    index, handles, half = bytearray(), [], len(entries) // 2

    def add(block):
        place = varint(len(index)) + varint(len(block))
        index.extend(block + bytes([kind]) + struct.pack("<I", masked_crc32c(block + bytes([kind]))))
        return place

    for part in (entries[:half], entries[half:]):
        if part:
            handles.append((part[-1][0], add(make_block(part))))
    footer = add(make_block([])) + add(make_block(handles))
    index += footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / f"{prefix}.index").write_bytes(bytes(index))
    (folder / f"{prefix}.data-00000-of-00001").write_bytes(bytes(data))


TENSORS = {"conv/kernel": np.arange(24.0).reshape(2, 3, 4), "conv/bias": np.ones(3), "step": np.array(0.5)}


def test_checksum_is_the_masked_castagnoli_crc():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720, B.4); the mask is LevelDB's
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_checksum_in_pieces_is_that_of_byte_after_byte(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12),
        st_np.arrays(
            np.float32,
            st_np.array_shapes(min_dims=0, max_dims=3, max_side=4),
            elements=st.floats(-1, 1, width=32),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_is_read(tmp_path, tensors):
    write_bundle(tmp_path, "", tensors)
    read = read_bundle(tmp_path, "")
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].shape == value.shape


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model\.index: the checkpoint's index cannot be read"):
        read_bundle(tmp_path, "model")
    write_bundle(tmp_path, "model", TENSORS)
    (tmp_path / "model.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match=r"model\.data-00000-of-00001: .* cannot be read"):
        read_bundle(tmp_path, "model")


def test_a_short_data_file_is_refused(tmp_path):
    write_bundle(tmp_path, "", TENSORS)
    path = tmp_path / ".data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"do not fit shape .* and a file of 111 bytes"):
        read_bundle(tmp_path, "")


def test_a_damaged_tensor_is_refused_by_its_checksum(tmp_path):
    write_bundle(tmp_path, "", TENSORS)
    path = tmp_path / ".data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[20] ^= 1  # still a finite number in a file of the right length
    path.write_bytes(data)
    with pytest.raises(
        ModelError, match=r"conv/kernel: its 96 bytes are damaged, their checksum is .* reinstall"
    ):
        read_bundle(tmp_path, "")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:20], "too few for a table"),
        (lambda data: data[:-1] + b"x", "magic number"),
        (lambda data: data[:5] + b"\xff" + data[6:], "checksum"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, damage, words):
    write_bundle(tmp_path, "", TENSORS)
    path = tmp_path / ".index"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=rf"not a readable TensorFlow checkpoint index \(.*{words}"):
        read_bundle_index(path)


def test_a_compressed_index_is_refused(tmp_path):
    write_bundle(tmp_path, "", TENSORS, kind=1)
    with pytest.raises(ModelError, match="compression 1, expected none"):
        read_bundle_index(tmp_path / ".index")


@pytest.mark.skipif(find_spec("musicnn") is None, reason="the musicnn package is not installed")
@pytest.mark.parametrize("checkpoint", ["MSD_musicnn", "MTT_musicnn"])
def test_the_packages_checkpoints_are_read_in_full(checkpoint):
    folder = Path(find_spec("musicnn").origin).parent / checkpoint
    entries = read_bundle_index(folder / ".index")
    data = (folder / ".data-00000-of-00001").read_bytes()
    assert sum(entry.size for entry in entries.values()) == len(data)
    places = sorted((entry.offset, entry.offset + entry.size) for entry in entries.values())
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(places))
    for name, entry in entries.items():  # the small ones: the checksum is slow in Python
        if entry.size < 10_000:
            raw = data[entry.offset : entry.offset + entry.size]
            assert masked_crc32c(raw) == entry.crc32c, name
