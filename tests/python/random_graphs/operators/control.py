"""Control flow, whose graphs read values around them."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from random_graphs.builder import Builder, Value


def _condition(b: Builder, x: Value) -> str:
    """By the data, by a shape, or constant."""
    form = b.choose(("data", "shape", "constant"))
    if form == "constant":
        return b.weight(np.array(b.chance(0.5)))
    if form == "shape":
        rows = b.node("Gather", b.node("Shape", x.name), b.weight(np.array(0, np.int64)), axis=0)
        return b.node("Less", rows, b.weight(np.array(b.between(2, 6), np.int64)))
    total = b.node("ReduceMean", x.name, keepdims=0)
    return b.node("Less", total, b.scalar(b.choose((-0.05, 0.05, 100.0)), x))


def conditional(b: Builder) -> None:
    """Two branches with weights of their own, which read a value around them."""
    x = b.value(lambda v: v.type == np.float32 and v.rank >= 2 and v.batch in (0, None))
    n, columns = x.shape[-1], b.between(1, 32)
    test = _condition(b, x)
    outer = b.weight(b.rng.normal(0, n**-0.5, [n, columns]).astype(np.float32))
    biases = b.node("Tanh", b.normal([columns], x, 0.5)) if b.chance(0.3) else ""

    def product() -> str:
        w = outer if b.chance(0.4) else _inner(b, [n, columns])
        y = b.node("MatMul", x.name, w)
        return b.node("Add", y, biases) if biases else y

    def other() -> str:
        y = b.node("MatMul", b.node("Relu", x.name), outer)
        return b.node("Sigmoid", y)

    branches = {"then_branch": b.branch(product, "then"), "else_branch": b.branch(other, "else")}
    y = b.node("If", test, **branches)
    if b.chance(0.3):
        b.node("Relu", y)


def _inner(b: Builder, shape: list[int]) -> str:
    """Weights of a branch: a node of it."""
    name = b.names.value("inner")
    array = b.rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(array, name)
    return b.node("Constant", value=tensor)


def loop(b: Builder) -> None:
    """A value through the same weights several times."""
    x = b.value(lambda v: v.type == np.float32 and v.rank >= 2 and v.batch in (0, None))
    n = x.shape[-1]
    w = b.weight(b.rng.normal(0, n**-0.5, [n, n]).astype(np.float32))
    i, go, state = (b.names.value(what) for what in ("i", "go", "state"))
    still = b.names.value("still")

    def body() -> str:
        b._nodes.append(helper.make_node("Identity", [go], [still]))
        return b.node("Tanh", b.node("MatMul", state, w))

    graph = b.branch(body, "body")
    graph.input.extend(
        [
            helper.make_tensor_value_info(i, TensorProto.INT64, []),
            helper.make_tensor_value_info(go, TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [None] * x.rank),
        ]
    )
    graph.output.insert(0, helper.make_tensor_value_info(still, TensorProto.BOOL, []))
    times = b.weight(np.array(b.between(1, 3), np.int64))
    b.node("Loop", times, b.weight(np.array(True)), x.name, body=graph)


STEPS = {conditional: 0.7, loop: 0.2}
