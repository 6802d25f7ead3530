"""Pairs of weights whose products a kernel may add in 16 bits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def pairs(weight: np.ndarray, orders: list[list[int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Neighbours in sums over axes, the last axis of an order the fastest."""
    for order in orders:
        sums = np.moveaxis(weight, order, range(len(order)))
        sums = sums.reshape(int(np.prod(sums.shape[: len(order)])), -1).astype(int)
        even = len(sums) // 2 * 2
        yield sums[0:even:2], sums[1:even:2]


def orders(node: onnx.NodeProto, rank: int) -> list[list[int]]:
    if node.op_type == "Conv":
        taps = list(range(2, rank))
        return [[1, *taps], [*taps, 1]]
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return [[1 if transposed else rank - 2]]


def integers_of_products(path: Path) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    """Every product of integers and its weight."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}

    def dequantized(value: str) -> onnx.NodeProto | None:
        node = producers.get(value)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    for node in graph.node:
        if node.op_type == "MatMulInteger":
            yield node, constants[node.input[1]]
        elif node.op_type in ("Conv", "MatMul", "Gemm"):
            x, w = dequantized(node.input[0]), dequantized(node.input[1])
            if x is not None and w is not None and w.input[0] in constants:
                yield node, constants[w.input[0]]


def assert_no_pair_saturates(path: Path) -> None:
    products = list(integers_of_products(path))
    assert products
    for node, weight in products:
        assert weight.dtype == np.int8
        for first, second in pairs(weight, orders(node, weight.ndim)):
            name = f"{node.op_type} {node.output[0]}"
            assert (np.maximum(first, 0) + np.maximum(second, 0)).max(initial=0) <= 128, name
            assert (np.minimum(first, 0) + np.minimum(second, 0)).min(initial=0) >= -128, name
