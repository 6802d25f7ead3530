"""Normalizations, as one node and spelled out."""

import numpy as np

from random_graphs.builder import Builder, Unfit, Value


def _positive(b: Builder, n: int, like: Value) -> str:
    return b.weight(b.rng.uniform(0.5, 1.5, n).astype(like.small.dtype))


def batch_norm(b: Builder) -> None:
    x = b.rows_first(2, 3, 4)
    n = x.shape[1]
    shift, mean = b.normal([n], x, 0.3), b.normal([n], x, 0.3)
    scale, variance = _positive(b, n, x), _positive(b, n, x)
    epsilon = 1e-3 if b.chance(0.5) else None
    b.node("BatchNormalization", x.name, scale, shift, mean, variance, epsilon=epsilon)


def layer_norm(b: Builder) -> None:
    b.since(17)
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch in (0, None))
    axis = b.choose((-1, -1, x.rank - 1, b.between(1, x.rank - 1)))
    shape = list(x.shape[axis:])
    inputs = [x.name, b.weight(b.rng.uniform(0.5, 1.5, shape).astype(x.small.dtype))]
    if b.chance(0.7):
        inputs.append(b.normal(shape, x, 0.2))
    shown = axis if axis != -1 else b.choose((-1, None))
    b.node("LayerNormalization", *inputs, axis=shown, epsilon=b.choose((1e-5, None, 1e-2)))


def mean(b: Builder, operator: str, x: str, axes: list[int], keep: int | None = None) -> str:
    """A reduction whose axes are an attribute before opset 18."""
    since = 13 if operator == "ReduceSum" else 18
    return b.with_axes(operator, x, axes, since, keepdims=keep)


def spelled_layer_norm(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch != v.rank - 1)
    centred = b.node("Sub", x.name, mean(b, "ReduceMean", x.name, [-1]))
    if b.chance(0.6):
        square = b.node("Pow", centred, b.scalar(2, x))
    else:
        square = b.node("Mul", centred, centred)
    variance = b.node("Add", mean(b, "ReduceMean", square, [-1]), b.scalar(1e-3, x))
    y = b.node("Div", centred, b.node("Sqrt", variance))
    if b.chance(0.8):
        y = b.node("Mul", y, _positive(b, x.shape[-1], x))
    if b.chance(0.7):
        b.node("Add", y, b.normal([x.shape[-1]], x, 0.2))


def rms_norm(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch != v.rank - 1)
    square = b.node("Pow", x.name, b.scalar(2, x))
    variance = b.node("Add", mean(b, "ReduceMean", square, [-1]), b.scalar(1e-3, x))
    root = b.node("Reciprocal", b.node("Sqrt", variance))
    b.node("Mul", b.node("Mul", x.name, root), _positive(b, x.shape[-1], x))


def instance_norm(b: Builder) -> None:
    x = b.rows_first(3, 4)
    n = x.shape[1]
    b.node("InstanceNormalization", x.name, _positive(b, n, x), b.normal([n], x, 0.3), epsilon=1e-2)


def group_norm(b: Builder) -> None:
    """By opset: scales of groups at 18, of channels since 21."""
    b.since(18)
    x = b.rows_first(3, 4)
    n = x.shape[1]
    groups = b.choose([g for g in range(1, n + 1) if n % g == 0])
    scales = n if b.opset >= 21 else groups
    inputs = [x.name, _positive(b, scales, x), b.normal([scales], x, 0.3)]
    b.node("GroupNormalization", *inputs, num_groups=groups, epsilon=1e-2)


def spelled_group_norm(b: Builder) -> None:
    """As PyTorch exports it: an InstanceNormalization of a view."""
    x = b.rows_first(4)
    n = x.shape[1]
    groups = b.choose([g for g in range(1, n + 1) if n % g == 0])
    view = b.node("Reshape", x.name, b.integers(0, groups, -1))
    ones = b.weight(np.ones(groups, x.small.dtype))
    zeros = b.weight(np.zeros(groups, x.small.dtype))
    y = b.node("InstanceNormalization", view, ones, zeros, epsilon=1e-2)
    y = b.node("Reshape", y, b.node("Shape", x.name))
    scale = b.weight(b.rng.uniform(0.5, 1.5, [n, 1, 1]).astype(x.small.dtype))
    b.node("Add", b.node("Mul", y, scale), b.normal([n, 1, 1], x, 0.3))


def lp_norm(b: Builder) -> None:
    x = b.value(lambda v: v.type == np.float32 and v.rank >= 2 and v.batch in (0, None))
    b.node("LpNormalization", x.name, axis=b.between(1, x.rank - 1), p=b.between(1, 2))


def local_response(b: Builder) -> None:
    b.node("LRN", b.rows_first(4).name, size=b.choose((1, 3, 5)), alpha=b.choose((0.1, None)))


def softmax(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    axes = [axis for axis in range(x.rank) if axis != x.batch]
    axis = b.choose((*axes, -1, None))
    if b.opset < 13 and axis not in (-1, x.rank - 1) and b.chance(0.8):
        raise Unfit
    b.node(b.choose(("Softmax", "Softmax", "LogSoftmax")), x.name, axis=axis)


STEPS = {
    batch_norm: 2,
    layer_norm: 2,
    spelled_layer_norm: 1.5,
    rms_norm: 0.5,
    instance_norm: 0.7,
    group_norm: 0.4,
    spelled_group_norm: 0.4,
    lp_norm: 0.2,
    local_response: 0.2,
    softmax: 2,
}
