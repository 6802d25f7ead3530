"""Builds a graph step by step; each step is computed before it is kept.

A value carries what it is at two numbers of rows. So its shape need not be inferred: the axis on
which the two differ is the batch's, and what ONNX Runtime refuses, or what is not finite, never
enters the graph.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

T = TypeVar("T")
Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]

# What a step may make: small, so that a file takes milliseconds, and far from overflow.
MOST_ELEMENTS = 15000
LARGEST = 300.0
SMALLEST = 1e-3

FLOATS = (np.float32, np.float16)
INTEGERS = (np.int64, np.int32)


class Unfit(Exception):
    """A step cannot be taken here."""


@dataclass(frozen=True)
class Value:
    """A value of the graph, at two numbers of rows."""

    name: str
    small: np.ndarray
    large: np.ndarray
    # Which step made it.
    age: int

    @property
    def shape(self) -> Shape:
        return self.small.shape

    @property
    def rank(self) -> int:
        return self.small.ndim

    @property
    def type(self) -> type:
        return self.small.dtype.type

    @property
    def batch(self) -> int | None:
        """The axis that follows the number of rows, if one does."""
        differ = [i for i, (a, b) in enumerate(zip(self.shape, self.large.shape)) if a != b]
        return differ[0] if differ else None

    def is_float(self) -> bool:
        return self.type in FLOATS


@dataclass
class Names:
    """Names as exporters, and people who test exporters, give them."""

    style: str
    counter: itertools.count = field(default_factory=itertools.count)

    def value(self, operator: str) -> str:
        i = next(self.counter)
        return {
            "plain": f"v{i}",
            "slashes": f"/block.{i}/{operator}_output_0",
            "numbers": f"{i}",
            "unicode": f"значение·{i} {operator}",
            "spaces": f" {operator} {i}",
        }[self.style]

    def node(self, rng: np.random.Generator, operator: str) -> str:
        i = next(self.counter)
        return {
            "plain": f"{operator}_{i}",
            "slashes": f"/block.{i}/{operator}",
            "numbers": "",
            "unicode": f"узел/{operator}·{i}",
            "spaces": "" if rng.random() < 0.5 else f"{operator} #{i}",
        }[self.style]


STYLES = ("plain", "plain", "slashes", "slashes", "numbers", "unicode", "spaces")


class Builder:
    """The graph so far, and the step that is being taken."""

    def __init__(self, rng: np.random.Generator, opset: int) -> None:
        self.rng = rng
        self.opset = opset
        self.names = Names(str(rng.choice(STYLES)))
        self.values: dict[str, Value] = {}
        self.nodes: list[NodeProto] = []
        self.weights: Arrays = {}
        self.age = 0
        self._nodes: list[NodeProto] = []
        self._weights: Arrays = {}

    # What a step asks.

    def chance(self, of: float) -> bool:
        return bool(self.rng.random() < of)

    def choose(self, options: Sequence[T]) -> T:
        if not options:
            raise Unfit
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def value(self, fits: Callable[[Value], bool]) -> Value:
        """One of the values that fit, more likely a recent one."""
        found = [value for value in self.values.values() if fits(value)]
        if not found:
            raise Unfit
        weights = np.array([1.6 ** (value.age - self.age) for value in found])
        return found[int(self.rng.choice(len(found), p=weights / weights.sum()))]

    def float_value(self, *ranks: int) -> Value:
        return self.value(lambda v: v.is_float() and (not ranks or v.rank in ranks))

    def rows_first(self, *ranks: int) -> Value:
        """Floats whose first axis, if any, is the batch's."""
        return self.value(lambda v: v.is_float() and v.rank in ranks and v.batch in (0, None))

    # What a step writes.

    def weight(self, array: np.ndarray) -> str:
        """A constant: at times a node, or the same as one before."""
        array = np.asarray(array)
        for name, kept in self.weights.items():
            same = kept.shape == array.shape and kept.dtype == array.dtype
            if same and array.size > 8 and self.chance(0.3):
                return name
        name = self.names.value("weight")
        if self.chance(0.12):
            tensor = numpy_helper.from_array(array, name)
            self._nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self._weights[name] = array
        return name

    def normal(self, shape: Sequence[int], like: Value, deviation: float = 0.0) -> str:
        """Random weights of the value's type, whose products are as large as what they multiply."""
        fan = float(np.prod(shape[1:])) if len(shape) > 1 else 4.0
        array = self.rng.normal(0, deviation or fan**-0.5, shape)
        return self.stored(array.astype(like.small.dtype))

    def stored(self, array: np.ndarray, form: str | None = None) -> str:
        """Weights, at times in a form of which a node makes them."""
        if form is None and (array.dtype != np.float32 or array.ndim < 2 or self.chance(0.92)):
            return self.weight(array)
        form = form or self.choose(("half", "identity", "cast", "dequantize", "transposed"))
        if form == "half":
            return self.node("Cast", self.weight(array.astype(np.float16)), to=TensorProto.FLOAT)
        if form == "identity":
            return self.node("Identity", self.weight(array))
        if form == "transposed":
            perm = [int(i) for i in self.rng.permutation(array.ndim)]
            back = [perm.index(i) for i in range(array.ndim)]
            return self.node("Transpose", self.weight(np.transpose(array, perm)), perm=back)
        axis = self.choose((None, *range(array.ndim)))
        if form == "dequantize" and axis is not None and self.opset < 13:
            axis = None
        others = tuple(i for i in range(array.ndim) if i != axis) if axis is not None else None
        scale = np.abs(array).max(axis=others, keepdims=axis is not None) / 127 + 1e-6
        integers = self.weight(np.round(array / scale).astype(np.int8))
        if form == "cast":
            floats = self.node("Cast", integers, to=TensorProto.FLOAT)
            return self.node("Mul", floats, self.weight(scale.astype(np.float32)))
        scale = self.weight(scale.reshape(-1 if axis is not None else ()).astype(np.float32))
        return self.node("DequantizeLinear", integers, scale, axis=axis)

    def integers(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def scalar(self, value: float, like: Value) -> str:
        return self.weight(np.array(value, like.small.dtype))

    def nodes_out(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: object
    ) -> list[str]:
        names = [self.names.value(operator) for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(
            operator, list(inputs), names, name=self.names.node(self.rng, operator), **given
        )
        self._nodes.append(node)
        return names

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        """A node of one output; attributes that are None are left out."""
        return self.nodes_out(operator, inputs, 1, **attributes)[0]

    def with_axes(
        self, operator: str, x: str, axes: Sequence[int], since: int = 13, **more: object
    ) -> str:
        """A node whose axes are an attribute, and from an opset on an input."""
        if self.opset < since:
            return self.node(operator, x, axes=list(axes), **more)
        return self.node(operator, x, self.integers(*axes), **more)

    def since(self, opset: int) -> None:
        if self.opset < opset:
            raise Unfit

    def branch(self, write: Callable[[], str], name: str) -> onnx.GraphProto:
        """What `write` writes, as a graph of its own that may read values of this one."""
        outer = self._nodes
        self._nodes = []
        try:
            result = write()
            value = onnx.ValueInfoProto(name=result)
            return helper.make_graph(self._nodes, name, [], [value])
        finally:
            self._nodes = outer

    # Taking a step.

    def add_input(self, name: str, small: np.ndarray, large: np.ndarray) -> None:
        self.values[name] = Value(name, small, large, 0)

    def step(self, write: Callable[["Builder"], None]) -> bool:
        """Takes a step; False if it cannot be taken."""
        self._nodes, self._weights = [], {}
        try:
            write(self)
            made = self._compute()
        except Unfit:
            return False
        self.age += 1
        for name, (small, large) in made.items():
            self.values[name] = Value(name, small, large, self.age)
        self.nodes.extend(self._nodes)
        self.weights.update(self._weights)
        return True

    def _compute(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The new values, if all of them may be kept."""
        made = [name for node in self._nodes for name in node.output if name]
        constants = {n for node in self._nodes if node.op_type == "Constant" for n in node.output}
        read = [name for name in self.values if name in reads(self._nodes)]
        weights = {**self.weights, **self._weights}
        graph = helper.make_graph(
            self._nodes,
            "step",
            [value_info(name, self.values[name].small) for name in read],
            [onnx.ValueInfoProto(name=name) for name in made],
            [numpy_helper.from_array(weights[n], n) for n in reads(self._nodes) if n in weights],
        )
        session = plain_session(model_of(graph, self.opset))
        small = session.run(made, {name: self.values[name].small for name in read})
        large = session.run(made, {name: self.values[name].large for name in read})
        found = dict(zip(made, zip(small, large)))
        for a, b in found.values():
            if not (usable(a) and usable(b) and a.ndim == b.ndim):
                raise Unfit
        return {name: arrays for name, arrays in found.items() if name not in constants}


def reads(nodes: Sequence[NodeProto]) -> dict[str, None]:
    """The names that nodes read, also within branches; in order."""
    names: dict[str, None] = {}
    for node in nodes:
        names.update(dict.fromkeys(node.input))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names.update(reads(attribute.g.node))
    return names


def usable(array: object) -> bool:
    """Small, finite, and not all zero."""
    if not isinstance(array, np.ndarray) or not 0 < array.size <= MOST_ELEMENTS:
        return False
    if array.dtype.kind == "O":
        return False
    if array.dtype.kind != "f":
        return True
    wide = array.astype(np.float64)
    return bool(np.isfinite(wide).all() and SMALLEST < np.abs(wide).max() < LARGEST)


Dims = Sequence[int | str | None]


def value_info(name: str, array: np.ndarray, dims: Dims | None = None) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, dims or [None] * array.ndim)


def model_of(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset)]
    version = max(helper.find_min_ir_version_for(opsets), 6)
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def plain_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime without its optimizations; what it does not take is unfit."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

