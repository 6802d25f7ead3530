"""Activations, arithmetic with broadcasting, comparisons and casts."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from random_graphs.builder import Builder, Unfit, Value

# With their attributes, of which each may be left out, and the opset since which they are.
ACTIVATIONS: dict[str, tuple[dict[str, float], int]] = {
    "Relu": ({}, 1),
    "Sigmoid": ({}, 1),
    "Tanh": ({}, 1),
    "LeakyRelu": ({"alpha": 0.1}, 1),
    "Elu": ({"alpha": 0.7}, 1),
    "Selu": ({"alpha": 1.5, "gamma": 1.1}, 1),
    "Celu": ({"alpha": 1.3}, 12),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.4}, 1),
    "HardSwish": ({}, 14),
    "Softplus": ({}, 1),
    "Softsign": ({}, 1),
    "Mish": ({}, 18),
    "Gelu": ({}, 20),
    "ThresholdedRelu": ({"alpha": 0.3}, 10),
    "Erf": ({}, 9),
    "Sin": ({}, 7),
    "Cos": ({}, 7),
    "Atan": ({}, 7),
    "Abs": ({}, 6),
    "Neg": ({}, 6),
    "Exp": ({}, 6),
    "Identity": ({}, 1),
    "Sinh": ({}, 9),
}
# What few models have.
RARE = ("Selu", "Celu", "ThresholdedRelu")


def activation(b: Builder) -> None:
    x = b.float_value()
    operator = b.choose((*ACTIVATIONS, "Relu", "Relu", "Sigmoid", "Tanh"))
    if operator in RARE and b.chance(0.9):
        raise Unfit
    attributes, since = ACTIVATIONS[operator]
    b.since(since)
    given = {key: value for key, value in attributes.items() if b.chance(0.6)}
    if operator == "Gelu" and b.chance(0.5):
        b.node("Gelu", x.name, approximate="tanh")
        return
    b.node(operator, x.name, **given)


def clip(b: Builder) -> None:
    x = b.float_value()
    low, high = b.scalar(b.choose((0.0, -1.0, -0.3)), x), b.scalar(b.choose((6.0, 1.0, 0.5)), x)
    b.node("Clip", *b.choose(([x.name, low, high], [x.name, low], [x.name, "", high])))


def prelu(b: Builder) -> None:
    x = b.rows_first(2, 3, 4)
    slope = [1] * (x.rank - 1) if b.chance(0.3) else [x.shape[1], *[1] * (x.rank - 2)]
    b.node("PRelu", x.name, b.normal(slope, x, 0.3))


def spelled(b: Builder) -> None:
    """Activations as exporters of other opsets spell them."""
    x = b.float_value()
    y = x.name
    form = b.choose(("silu", "gelu", "hard", "relu6"))
    if form == "silu":
        b.node("Mul", *b.choose(([y, s := b.node("Sigmoid", y)], [s, y])))
    elif form == "gelu":
        erf = b.node("Erf", b.node("Div", y, b.scalar(2**0.5, x)))
        sums = b.node("Add", erf, b.scalar(1, x))
        b.node("Mul", b.node("Mul", y, sums), b.scalar(0.5, x))
    elif form == "hard":
        b.node("Mul", y, b.node("HardSigmoid", y, alpha=1 / 6, beta=0.5))
    else:
        six = b.node("Clip", b.node("Add", y, b.scalar(3, x)), b.scalar(0, x), b.scalar(6, x))
        b.node("Div", b.node("Mul", y, six), b.scalar(6, x))


def broadcast_shape(b: Builder, x: Value) -> list[int]:
    """A shape without the batch that broadcasts with the value's."""
    shape = [1 if axis == x.batch or b.chance(0.4) else n for axis, n in enumerate(x.shape)]
    if b.chance(0.5):
        while shape and (shape[0] == 1) and b.chance(0.8):
            shape = shape[1:]
    return shape


def with_constant(b: Builder) -> None:
    x = b.float_value()
    other = b.normal(broadcast_shape(b, x), x, 1.0)
    operator = b.choose(("Add", "Add", "Mul", "Mul", "Sub", "Min", "Max"))
    inputs = [x.name, other]
    b.node(operator, *(inputs if b.chance(0.6) else inputs[::-1]))


def divided(b: Builder) -> None:
    x = b.float_value()
    shape = broadcast_shape(b, x)
    other = b.weight(b.rng.uniform(0.5, 2, shape).astype(x.small.dtype))
    b.node("Div", x.name, other)


def broadcasts(x: Value, y: Value) -> bool:
    try:
        np.broadcast_shapes(x.small.shape, y.small.shape)
        np.broadcast_shapes(x.large.shape, y.large.shape)
    except ValueError:
        return False
    return x.type == y.type


def of_two(b: Builder) -> None:
    x = b.float_value()
    y = b.value(lambda v: broadcasts(x, v) and v.name != x.name)
    b.node(b.choose(("Add", "Add", "Add", "Mul", "Sub", "Max", "Min")), x.name, y.name)


def of_many(b: Builder) -> None:
    x = b.float_value()
    y = b.value(lambda v: broadcasts(x, v))
    z = b.value(lambda v: broadcasts(x, v) and broadcasts(y, v))
    b.node(b.choose(("Sum", "Mean", "Max", "Min")), x.name, y.name, z.name)


def residual(b: Builder) -> None:
    """A value and one of its shape from long before."""
    x = b.float_value()
    y = b.value(lambda v: v.shape == x.shape and v.type == x.type and v.age < x.age)
    b.node("Add", x.name, y.name)


def powers(b: Builder) -> None:
    x = b.float_value()
    positive = b.node("Abs", x.name)
    form = b.choose(("square", "sqrt", "log", "reciprocal", "pow"))
    if form == "square":
        b.node("Pow", x.name, b.scalar(b.choose((2, 3)), x))
    elif form == "pow":
        b.node("Pow", b.node("Add", positive, b.scalar(0.5, x)), b.scalar(0.7, x))
    elif form == "sqrt":
        b.node("Sqrt", b.node("Add", positive, b.scalar(0.1, x)))
    else:
        one = b.node("Add", positive, b.scalar(1, x))
        b.node("Log" if form == "log" else "Reciprocal", one)


def where(b: Builder) -> None:
    """One of two values, where a comparison says so."""
    x = b.float_value()
    y = b.value(lambda v: broadcasts(x, v))
    form = b.choose(("greater", "less", "not", "and"))
    test = b.node("Less" if form == "less" else "Greater", x.name, b.scalar(0.1, x))
    if form == "not":
        test = b.node("Not", test)
    if form == "and":
        test = b.node("And", test, b.node("Less", y.name, b.scalar(0.7, x)))
    other = b.normal(broadcast_shape(b, x), x, 0.5) if b.chance(0.4) else y.name
    b.node("Where", test, x.name, other)


def equal(b: Builder) -> None:
    """A mask from integers."""
    x = b.value(lambda v: v.type in (np.int64, np.int32) and v.rank > 0)
    number = b.weight(np.array(b.between(0, 3), x.small.dtype))
    mask = b.node("Equal", x.name, number)
    if b.chance(0.3):
        mask = b.node("Not", mask)
    floats = b.node("Cast", mask, to=TensorProto.FLOAT)
    if b.chance(0.5):
        b.node("Mul", floats, b.weight(np.array(-1.5, np.float32)))


def to_half(b: Builder) -> None:
    x = b.value(lambda v: v.type == np.float32)
    b.node("Cast", x.name, to=TensorProto.FLOAT16)


def from_half(b: Builder) -> None:
    x = b.value(lambda v: v.type == np.float16)
    b.node("Cast", x.name, to=TensorProto.FLOAT)


def in_half(b: Builder) -> None:
    """A part in float16, as exporters of mixed precision write it."""
    x = b.value(lambda v: v.type == np.float32 and v.rank >= 2 and v.batch != v.rank - 1)
    y = b.node("Cast", x.name, to=TensorProto.FLOAT16)
    if b.chance(0.7):
        shape = [x.shape[-1], b.between(2, 24)]
        w = b.weight(b.rng.normal(0, shape[0] ** -0.5, shape).astype(np.float16))
        y = b.node("MatMul", y, w)
    if b.chance(0.7):
        y = b.node(b.choose(("Relu", "Sigmoid", "Tanh")), y)
    b.node("Cast", y, to=TensorProto.FLOAT)


def cast(b: Builder) -> None:
    """Integers to floats, and booleans to either."""
    x = b.value(lambda v: v.type in (np.int64, np.int32, np.bool_) and v.rank > 0)
    b.node("Cast", x.name, to=b.choose((TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32)))


def integer_arithmetic(b: Builder) -> None:
    x = b.value(lambda v: v.type in (np.int64, np.int32) and v.rank > 0)
    number = b.weight(np.array(b.between(1, 3), x.small.dtype))
    operator = b.choose(("Add", "Mul", "Sub", "Div", "Mod", "Max"))
    if operator == "Max":
        b.since(12)
    b.node(operator, x.name, number)


def sign(b: Builder) -> None:
    """Of zeros, too."""
    x = b.float_value()
    y = b.node("Sign", b.node("Relu", x.name) if b.chance(0.5) else x.name)
    b.node("Mul", y, x.name)


def truth(b: Builder) -> None:
    """Floats as booleans: whatever is not 0 is true."""
    x = b.float_value()
    test = b.node("Cast", b.node("Relu", x.name), to=TensorProto.BOOL)
    b.node("Cast", test, to=TensorProto.FLOAT)


def dropout(b: Builder) -> None:
    b.node("Dropout", b.float_value().name)


STEPS: dict[Callable[[Builder], None], float] = {
    activation: 5,
    clip: 1,
    prelu: 0.7,
    spelled: 1.5,
    with_constant: 3,
    divided: 0.7,
    of_two: 2,
    of_many: 0.5,
    residual: 2,
    powers: 0.7,
    where: 0.8,
    equal: 1,
    to_half: 0.25,
    from_half: 1.5,
    in_half: 0.5,
    cast: 1,
    integer_arithmetic: 0.5,
    sign: 0.08,
    truth: 0.08,
    dropout: 0.2,
}
