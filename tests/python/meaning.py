"""What a file means: the exact answer, the same on every CPU.

ONNX Runtime's products of bytes saturate on a CPU without VNNI: `vpmaddubsw` adds two products in 16 bits, in
`MatMulInteger` and `ConvInteger` even with all graph optimizations off. So the judge takes ONNX Runtime with
optimizations off, and rewrites every node that multiplies integers to floats that hold the sums exactly.
"""

import itertools
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Model = Path | str | bytes | ModelProto

# Float32 holds every integer up to here.
EXACT_IN_FLOAT = 1 << 24

# The largest difference of two bytes.
LARGEST_BYTE = 255
LARGEST_NIBBLE = 16


def load(model: Model) -> ModelProto:
    """The model with its external data."""
    if isinstance(model, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy
    if isinstance(model, bytes):
        return onnx.load_from_string(model)
    return onnx.load(str(model))


def default_session(model: Model) -> onnxruntime.InferenceSession:
    """A session with nothing set but the threads: what users have."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, ModelProto) else model
    source = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def sqnr_db(reference: np.ndarray, got: np.ndarray) -> float:
    """Signal over the power of the error, in decibels; infinite where nothing differs."""
    reference = np.asarray(reference, np.float64)
    got = np.asarray(got, np.float64)
    assert reference.shape == got.shape, f"{reference.shape} and {got.shape}"
    error = np.sum((got - reference) ** 2)
    if error == 0:
        return float("inf")
    return float(10 * np.log10(np.sum(reference**2) / error))


def exact_session(model: Model) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime that computes what the file means."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = exact_model(load(model)).SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Meaning:
    """What the file means: an exact session that is fed by names, or one array."""

    def __init__(self, model: Model) -> None:
        self._session = exact_session(model)

    @property
    def inputs(self) -> list[str]:
        return [value.name for value in self._session.get_inputs()]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self._session.get_outputs()]

    def run(
        self, inputs: np.ndarray | dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """The outputs; an array stands for the only input."""
        feeds = inputs if isinstance(inputs, dict) else {self.inputs[0]: inputs}
        return self._session.run(outputs, feeds)


def meaning(
    model: Model, inputs: np.ndarray | dict[str, np.ndarray], outputs: Sequence[str] | None = None
) -> list[np.ndarray]:
    """What the file means for these inputs."""
    return Meaning(model).run(inputs, outputs)


def exact_model(model: ModelProto) -> ModelProto:
    """The model with every product of integers in floats that hold all of its sums.

    In subgraphs and in model-local functions, too. The model is changed in place.
    """
    names = Names(model)
    known = Known(_ranks(model), {})
    _rewrite_graph(model.graph, known, names)
    for function in model.functions:
        _rewrite_nodes(function.node, Known({}, {}), names)
    return model


@dataclass(frozen=True)
class Known:
    """What is known of values before anything is computed."""

    ranks: dict[str, int]
    # Of one byte an element: only zero points and weights are looked at.
    constants: dict[str, np.ndarray]

    def with_constants(self, more: dict[str, np.ndarray]) -> "Known":
        return Known(self.ranks, {**self.constants, **more})

    def rank(self, name: str) -> int | None:
        constant = self.constants.get(name)
        return self.ranks.get(name) if constant is None else constant.ndim


def _ranks(model: ModelProto) -> dict[str, int]:
    """The ranks of the values of the main graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


class Names:
    """Names that the model does not use."""

    def __init__(self, model: ModelProto) -> None:
        text = [model.graph.name]
        for nodes in [model.graph.node, *(function.node for function in model.functions)]:
            for node in _all_nodes(nodes):
                text.extend([*node.input, *node.output])
        self._prefix = "exact"
        while any(name.startswith(self._prefix) for name in text):
            self._prefix += "_"
        self._count = itertools.count()

    def new(self, what: str) -> str:
        return f"{self._prefix}_{what}_{next(self._count)}"


def _all_nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _all_nodes(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _rewrite_graph(graph: GraphProto, outer: Known, names: Names) -> None:
    """Rewrites a graph; `outer` is what is known in the graphs around it."""
    fed = {value.name for value in graph.input}
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name not in fed and tensor.data_type in BYTES
    }
    _rewrite_nodes(graph.node, outer.with_constants(constants), names)


def _rewrite_nodes(nodes: MutableSequence[NodeProto], known: Known, names: Names) -> None:
    old = list(nodes)
    for node in old:
        for attribute in node.attribute if node.op_type == "Constant" else []:
            if attribute.name == "value" and attribute.t.data_type in BYTES:
                value = numpy_helper.to_array(attribute.t)
                known = known.with_constants({node.output[0]: value})
    del nodes[:]
    for node in old:
        for graph in _subgraphs(node):
            _rewrite_graph(graph, known, names)
        form = FORMS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        if form is None:
            nodes.append(node)
        else:
            exact = Exact(node, known, names)
            form(exact)
            nodes.extend(exact.nodes)


# Types of which products may saturate.
BYTES = (TensorProto.UINT8, TensorProto.INT8)


class Exact:
    """The nodes that stand for one node."""

    def __init__(self, node: NodeProto, known: Known, names: Names) -> None:
        self.node = node
        self.known = known
        self.names = names
        self.nodes: list[NodeProto] = []

    def input(self, index: int) -> str | None:
        """The name of an input, if it is given."""
        return self.node.input[index] or None if index < len(self.node.input) else None

    def attribute(self, name: str, default: float) -> float:
        for attribute in self.node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def add(
        self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: object
    ) -> str:
        output = output or self.names.new(operator)
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray | np.generic) -> str:
        return self.add("Constant", [], value=numpy_helper.from_array(np.asarray(value)))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", [value, self.constant(np.array(shape, np.int64))])

    def without(self, value: str, zero_point: str | None, to: int) -> str:
        """The integers without their zero point, in floats."""
        value = self.add("Cast", [value], to=to)
        return self.add("Sub", [value, zero_point]) if zero_point else value

    def zero_point(self, name: str | None, to: int, rows: bool) -> str | None:
        """A zero point in the shape in which it is taken off; one of a dimension is of rows or columns."""
        if name is None:
            return None
        value = self.add("Cast", [name], to=to)
        constant = self.known.constants.get(name)
        if constant is not None and constant.size == 1:
            # It must not add a dimension.
            return self.reshape(value, [])
        if rows and self.known.rank(name) == 1:
            return self.reshape(value, [-1, 1])
        return value

    def product(self, left: str, left_zero: int, right: str, right_zero: int) -> str:
        """An exact product of matrices, in double."""
        double = TensorProto.DOUBLE
        a_zero = self.zero_point(self.input(left_zero), double, rows=True)
        b_zero = self.zero_point(self.input(right_zero), double, rows=False)
        a, b = self.without(left, a_zero, double), self.without(right, b_zero, double)
        return self.add("MatMul", [a, b])

    def convolution(self, image: int, image_zero: int, filters: int, filters_zero: int) -> str:
        """An exact convolution, in double.

        ONNX Runtime has no Conv of doubles: what floats might not add up exactly is cut into nibbles.
        """
        zero = self.zero_point(self.input(image_zero), TensorProto.FLOAT, rows=False)
        x = self.without(self.node.input[image], zero, TensorProto.FLOAT)
        w = self._filters(filters, filters_zero)
        parts = [(x, w, 1)]
        largest = self._largest_sum(filters, filters_zero)
        if largest is None or largest * LARGEST_BYTE >= EXACT_IN_FLOAT:
            parts = [(a, w, by) for a, by in self._nibbles(x)]
            if largest is None or largest * LARGEST_NIBBLE >= EXACT_IN_FLOAT:
                filters_parts = self._nibbles(w)
                parts = [(a, b, by * more) for a, _, by in parts for b, more in filters_parts]
        sums = []
        for a, b, by in parts:
            output = self.add("Conv", [a, b])
            self.nodes[-1].attribute.extend(at for at in self.node.attribute if at.name in WINDOW)
            wide = self.add("Cast", [output], to=TensorProto.DOUBLE)
            sums.append(self.add("Mul", [wide, self.constant(np.float64(by))]))
        return reduce(lambda total, part: self.add("Add", [total, part]), sums)

    def _filters(self, index: int, zero_index: int) -> str:
        """The filters without their zero points, of which every filter may have its own."""
        value = self.add("Cast", [self.node.input[index]], to=TensorProto.FLOAT)
        zero = self.input(zero_index)
        if zero is None:
            return value
        rows = self.add("Flatten", [value], axis=1)
        zero = self.reshape(self.add("Cast", [zero], to=TensorProto.FLOAT), [-1, 1])
        rows = self.add("Sub", [rows, zero])
        return self.add("Reshape", [rows, self.add("Shape", [value])])

    def _largest_sum(self, filters: int, zero_index: int) -> int | None:
        """The largest sum of the absolute weights of a filter, if it is known."""
        weights = self.known.constants.get(self.node.input[filters])
        if weights is None:
            return None
        rows = weights.astype(np.int64).reshape(len(weights), -1)
        zero = self.input(zero_index)
        if zero is not None and zero not in self.known.constants:
            return LARGEST_BYTE * rows.shape[1]
        if zero is not None:
            rows = rows - self.known.constants[zero].astype(np.int64).reshape(-1, 1)
        return int(np.abs(rows).sum(axis=1).max(initial=0))

    def _nibbles(self, value: str) -> list[tuple[str, int]]:
        """What adds up to the value: 1 times 0 to 15, and 16 times -16 to 15."""
        sixteen = self.constant(np.float32(16))
        high = self.add("Floor", [self.add("Div", [value, sixteen])])
        low = self.add("Sub", [value, self.add("Mul", [high, sixteen])])
        return [(low, 1), (high, 16)]

    def sums(self, total: str, output: str | None = None) -> str:
        """The sums as int32."""
        return self.add("Cast", [total], output, to=TensorProto.INT32)

    def scaled(self, total: str, scales: Sequence[str]) -> str:
        """The sums times the product of the scales, in float."""
        sums = self.add("Cast", [self.sums(total)], to=TensorProto.FLOAT)
        return self.add("Mul", [sums, reduce(lambda a, b: self.add("Mul", [a, b]), scales)])

    def requantized(self, total: str, scale: str, result_scale: int, result_zero: int) -> None:
        """Writes the sums in steps of the result: multiplied once, rounded half to even."""
        by = self.add("Div", [scale, self.scalar(result_scale)])
        steps = self.scaled(total, [by])
        zero = self.input(result_zero)
        one = [steps, self.constant(np.float32(1)), *([zero] if zero else [])]
        self.add("QuantizeLinear", one, self.node.output[0])

    def scalar(self, index: int) -> str:
        """A scale of one element, whatever its rank."""
        return self.reshape(self.node.input[index], [])


# Attributes that say where a convolution reads.
WINDOW = {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}


def _matmul_integer(exact: Exact) -> None:
    a, b = exact.node.input[:2]
    exact.sums(exact.product(a, 2, b, 3), exact.node.output[0])


def _conv_integer(exact: Exact) -> None:
    exact.sums(exact.convolution(0, 2, 1, 3), exact.node.output[0])


def _qlinear_matmul(exact: Exact) -> None:
    total = exact.product(exact.node.input[0], 2, exact.node.input[3], 5)
    scale = exact.add("Mul", [exact.scalar(1), exact.node.input[4]])
    exact.requantized(total, scale, 6, 7)


def _qlinear_conv(exact: Exact) -> None:
    total = exact.convolution(0, 2, 3, 5)
    rank = exact.known.rank(exact.node.input[3])
    assert rank is not None, f"{exact.node.output[0]}: the rank of its filters is not known"
    channels = [-1, *[1] * (rank - 2)]
    bias = exact.input(8)
    if bias:
        wide = exact.add("Cast", [bias], to=TensorProto.DOUBLE)
        total = exact.add("Add", [total, exact.reshape(wide, channels)])
    scale = exact.add("Mul", [exact.scalar(1), exact.reshape(exact.node.input[4], channels)])
    exact.requantized(total, scale, 6, 7)


def _qgemm(exact: Exact) -> None:
    a, b = exact.node.input[0], exact.node.input[3]
    a = exact.add("Transpose", [a], perm=[1, 0]) if exact.attribute("transA", 0) else a
    b = exact.add("Transpose", [b], perm=[1, 0]) if exact.attribute("transB", 0) else b
    total = exact.product(a, 2, b, 5)
    bias = exact.input(6)
    if bias:
        total = exact.add("Add", [total, exact.add("Cast", [bias], to=TensorProto.DOUBLE)])
    alpha = exact.constant(np.float32(exact.attribute("alpha", 1.0)))
    scale = exact.add("Mul", [exact.add("Mul", [alpha, exact.scalar(1)]), exact.node.input[4]])
    if exact.input(7):
        exact.requantized(total, scale, 7, 8)
    else:
        exact.add("Identity", [exact.scaled(total, [scale])], exact.node.output[0])


def _matmul_integer_to_float(exact: Exact) -> None:
    total = exact.product(exact.node.input[0], 4, exact.node.input[1], 5)
    _with_bias(exact, exact.scaled(total, [exact.scalar(2), exact.node.input[3]]), 6)


def _dynamic_quantize_matmul(exact: Exact) -> None:
    q, scale, zero = (exact.names.new(what) for what in ("bytes", "scale", "zero_point"))
    quantize = helper.make_node("DynamicQuantizeLinear", exact.node.input[:1], [q, scale, zero])
    exact.nodes.append(quantize)
    double = TensorProto.DOUBLE
    a = exact.without(q, exact.add("Cast", [zero], to=double), double)
    b_zero = exact.zero_point(exact.input(3), double, rows=False)
    total = exact.add("MatMul", [a, exact.without(exact.node.input[1], b_zero, double)])
    _with_bias(exact, exact.scaled(total, [scale, exact.node.input[2]]), 4)


def _with_bias(exact: Exact, result: str, bias: int) -> None:
    name = exact.input(bias)
    inputs = [result, name] if name else [result]
    exact.add("Add" if name else "Identity", inputs, exact.node.output[0])


MICROSOFT = "com.microsoft"
FORMS = {
    ("", "MatMulInteger"): _matmul_integer,
    ("", "ConvInteger"): _conv_integer,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "QLinearConv"): _qlinear_conv,
    (MICROSOFT, "QGemm"): _qgemm,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_integer_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
}
