"""Runs the graph that lies in a TensorFlow 1 checkpoint (`.meta`) with numpy: a reference for our layers.

Nothing here knows musicnn: nodes, attributes and wiring come from the file, and every operation is
written from TensorFlow's documentation.  Conditionals (`Switch`, `Merge`) are run with the predicate False,
which is inference.
"""

from __future__ import annotations

import struct

import numpy as np


class Dead(Exception):
    """The branch of a conditional that is not taken."""


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def read_varints(data):
    at, values = 0, []
    while at < len(data):
        value, at = read_varint(data, at)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values


def read_message(data):
    """Field number -> list of raw values."""
    at, fields = 0, {}
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        elif tag & 7 == 2:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = 4 if tag & 7 == 5 else 8
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_shape(data):
    return [read_message(dim)[1][0] for dim in read_message(data).get(2, [])]


def read_tensor(data):
    """TensorProto -> array; float32, int32, string-free."""
    fields = read_message(data)
    dtype = {1: np.float32, 3: np.int32, 9: np.int64}[fields[1][0]]
    shape = read_shape(fields[2][0]) if 2 in fields else []
    if 4 in fields:
        values = np.frombuffer(fields[4][0], dtype)
    elif dtype is np.float32:
        values = np.frombuffer(b"".join(fields[5]), dtype)
    else:
        values = np.array(
            [v for raw in fields[7] for v in (read_varints(raw) if isinstance(raw, bytes) else [raw])]
        )
    return (
        np.full(shape, values.ravel()[0], dtype) if values.size == 1 else values.reshape(shape).astype(dtype)
    )


class Graph:
    """Nodes of a `.meta` file; `run_all` computes some by name."""

    def __init__(self, path, variables):
        graph = read_message(read_message(path.read_bytes())[2][0])
        self.nodes, self.variables = {}, variables
        for raw in graph[1]:
            node = read_message(raw)
            attributes = {read_message(a)[1][0].decode(): read_message(a)[2][0] for a in node.get(5, [])}
            self.nodes[node[1][0].decode()] = (
                node[2][0].decode(),
                [i.decode() for i in node.get(3, [])],
                attributes,
            )

    def run_all(self, names, feeds):
        """Values of nodes; `feeds` are the placeholders' values."""
        self._done = dict(feeds)
        self.used_variables = set()
        return [self._value(name) for name in names]

    def _value(self, name):
        if name not in self._done:
            node, _, port = name.partition(":")
            self._done[name] = self._compute(node, int(port or 0))
        return self._done[name]

    def _compute(self, name, port):
        op, inputs, attributes = self.nodes[name]
        if op == "VariableV2":
            self.used_variables.add(name)
            return self.variables[name]
        if op == "Const":
            return read_tensor(read_message(attributes["value"])[8][0])
        if op == "Switch":
            if port == 1 or self._value(inputs[1]) is not False:
                raise Dead
            return self._value(inputs[0])
        if op == "Merge":
            for source in inputs:
                try:
                    return self._value(source)
                except Dead:
                    continue
            raise Dead
        values = [self._value(source) for source in inputs if not source.startswith("^")]
        return getattr(self, f"op_{op}")(attributes, *values)

    # -- operations, in TensorFlow's [batch, height, width, channel] order

    def op_Identity(self, _, x):
        return x

    def op_ExpandDims(self, _, x, axis):
        return np.expand_dims(x, int(axis))

    def op_FusedBatchNorm(self, attributes, x, gamma, beta, mean, variance):
        assert variance.size, "training form"
        (epsilon,) = struct.unpack("<f", read_message(attributes["epsilon"])[4][0])
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    def op_Pad(self, _, x, paddings):
        return np.pad(x, paddings)

    def op_Conv2D(self, attributes, x, kernel):
        assert self._ints(attributes["strides"]) == [1, 1, 1, 1]
        if read_message(attributes["padding"])[2][0] == b"SAME":
            total = [size - 1 for size in kernel.shape[:2]]  # stride 1
            x = np.pad(x, [(0, 0), *[(t // 2, t - t // 2) for t in total], (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        return np.einsum("bhwcij,ijco->bhwo", windows, kernel, optimize=True)

    def op_MaxPool(self, attributes, x):
        size, strides = self._ints(attributes["ksize"]), self._ints(attributes["strides"])
        assert size == strides == [1, 1, x.shape[2], 1]
        return x.max(axis=2, keepdims=True)

    def op_Squeeze(self, attributes, x):
        dims = self._ints(attributes["squeeze_dims"])
        return np.squeeze(x, tuple(dims))

    def op_ConcatV2(self, _, *values):
        return np.concatenate(values[:-1], axis=int(values[-1]))

    def op_Transpose(self, _, x, order):
        return np.transpose(x, order)

    def op_Max(self, _, x, axes):
        return x.max(axis=tuple(np.atleast_1d(axes)))

    def op_Mean(self, attributes, x, axes):
        keep = "keep_dims" in attributes and read_message(attributes["keep_dims"]).get(5, [0])[0] == 1
        return x.mean(axis=tuple(np.atleast_1d(axes)), keepdims=keep)

    def op_Shape(self, _, x):
        return np.array(x.shape, np.int32)

    def op_StridedSlice(self, _, x, begin, end, step):
        assert (begin.tolist(), end.tolist(), step.tolist()) == ([0], [1], [1])
        return x[0]

    def op_Pack(self, _, *values):
        return np.stack(values)

    def op_Reshape(self, _, x, shape):
        return x.reshape(shape)

    def op_Add(self, _, x, y):
        return x + y

    op_BiasAdd = op_Add

    def op_Sub(self, _, x, y):
        return x - y

    def op_Mul(self, _, x, y):
        return x * y

    def op_MatMul(self, _, x, y):
        return x @ y

    def op_Relu(self, _, x):
        return np.maximum(x, 0)

    def op_Rsqrt(self, _, x):
        return 1 / np.sqrt(x)

    def op_Sigmoid(self, _, x):
        return 1 / (1 + np.exp(-x))

    @staticmethod
    def _ints(attribute):
        found = read_message(read_message(attribute)[1][0])[3]
        return [v for raw in found for v in (read_varints(raw) if isinstance(raw, bytes) else [raw])]
