"""Pools, reductions, and what picks by size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from random_graphs.builder import Builder, Unfit
from random_graphs.operators.convolutions import automatic, window
from random_graphs.operators.norms import mean

Window = dict[str, Any]

REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1")
RARE = ("ReduceLogSumExp", "ReduceSumSquare", "ReduceProd", "ReduceLogSum")


def _too_wide(sizes: Sequence[int], attributes: Window) -> bool:
    """Whether strides leave out so much that SAME would pad by less than nothing.

    ONNX Runtime then begins within the image, and ONNX's own reference refuses.
    """
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(sizes))
    return any((n - 1) // s * s + k < n for n, k, s in zip(sizes, kernel, strides))


def pool(b: Builder) -> None:
    x = b.rows_first(3, 4)
    attributes = window(b, x.shape[2:])
    kernel = attributes["kernel_shape"]
    if "pads" in attributes:
        # No wider than the kernel.
        attributes["pads"] = [min(p, k - 1) for p, k in zip(attributes["pads"], kernel * 2)]
    operator = "LpPool" if b.chance(0.02) else b.choose(("MaxPool", "AveragePool"))
    if operator != "MaxPool" and b.opset < (19 if operator == "AveragePool" else 18):
        attributes.pop("dilations", None)
    attributes = automatic(b, attributes)
    if str(attributes.get("auto_pad", "")).startswith("SAME") and _too_wide(x.shape[2:], attributes):
        raise Unfit
    # ONNX Runtime pads a mean as if its window had no gaps, and gives fewer places than ONNX says.
    gaps = max(attributes.get("dilations", [1])) > 1
    if operator == "AveragePool" and gaps and str(attributes.get("auto_pad", "")).startswith("SAME"):
        raise Unfit
    more: dict[str, int] = {}
    if operator == "AveragePool" and b.chance(0.4):
        more["count_include_pad"] = b.between(0, 1)
    if operator != "LpPool" and "auto_pad" not in attributes and b.chance(0.2):
        more["ceil_mode"] = 1
    if operator == "MaxPool" and b.chance(0.05):
        b.nodes_out(operator, [x.name], 2, **attributes)
        return
    b.node(operator, x.name, **attributes, **more)


def global_pool(b: Builder) -> None:
    x = b.rows_first(3, 4)
    y = b.node(b.choose(("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool")), x.name)
    if b.chance(0.5):
        b.node("Flatten", y)


def excitation(b: Builder) -> None:
    """Channels weighed by what is in them."""
    x = b.rows_first(4)
    c, inner = x.shape[1], b.between(1, 4)
    y = b.node("GlobalAveragePool", x.name)
    y = b.node("Conv", y, b.normal([inner, c, 1, 1], x), b.normal([inner], x, 0.3))
    y = b.node("Conv", b.node("Relu", y), b.normal([c, inner, 1, 1], x), b.normal([c], x, 0.3))
    y = b.node(b.choose(("Sigmoid", "HardSigmoid")), y)
    b.node("Mul", *b.choose(([x.name, y], [y, x.name])))


def reduction(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    inner = [axis for axis in range(x.rank) if axis != x.batch]
    count = b.between(1, len(inner))
    axes = sorted(int(i) for i in b.rng.choice(inner, count, replace=False))
    if b.chance(0.4):
        axes = [axis - x.rank for axis in axes]
    operator = b.choose(RARE) if b.chance(0.1) else b.choose(REDUCTIONS)
    mean(b, operator, x.name, axes, b.choose((0, 1, None)))


def over_the_batch(b: Builder) -> None:
    """What is the same for all rows, taken from each."""
    x = b.rows_first(2, 3)
    b.node("Sub", x.name, mean(b, "ReduceMean", x.name, [0]))


def largest_index(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    axis = b.choose([axis for axis in range(x.rank) if axis != x.batch])
    b.node(b.choose(("ArgMax", "ArgMin")), x.name, axis=axis, keepdims=b.choose((0, 1, None)))


def largest(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch in (0, None))
    axis = b.between(1, x.rank - 1)
    k = b.integers(b.between(1, x.shape[axis]))
    values, _ = b.nodes_out("TopK", [x.name, k], 2, axis=axis, largest=b.choose((1, 0, None)))
    b.node("Identity", values)


def running_sum(b: Builder) -> None:
    x = b.value(lambda v: v.type == np.float32 and v.rank >= 2 and v.batch in (0, None))
    axis = b.weight(np.array(b.between(1, x.rank - 1), np.int64))
    b.node("CumSum", x.name, axis, exclusive=b.choose((0, 1, None)), reverse=b.choose((0, None)))


STEPS = {
    pool: 3,
    global_pool: 1.5,
    excitation: 0.7,
    reduction: 2,
    over_the_batch: 0.08,
    largest_index: 0.4,
    largest: 0.3,
    running_sum: 0.2,
}
