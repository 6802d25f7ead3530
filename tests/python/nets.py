"""Small networks with random weights of a fixed seed, made for a test, and how far two are apart."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from models import open_session
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, np.ndarray]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Arrays,
    inputs: dict[str, Sequence[int | str]],
    rank: int,
    opset: int = 17,
    integers: Sequence[str] = (),
) -> Path:
    """A model whose output is `y`; inputs are floats but for those in `integers`."""
    takes = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, list(shape)
        )
        for name, shape in inputs.items()
    ]
    free = [f"y{i}" for i in range(rank)]
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, free)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "g", takes, [gives], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def run(model: Path | bytes, rows: Arrays, outputs: Sequence[str] = ("y",)) -> list[np.ndarray]:
    """What ONNX Runtime computes, of any values of the graph."""
    if set(outputs) != {"y"}:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        known = {value.name for value in proto.graph.output}
        new = [onnx.ValueInfoProto(name=name) for name in outputs if name not in known]
        proto.graph.output.extend(new)
        model = proto.SerializeToString()
    return open_session(model).run(list(outputs), rows)


def sqnr_db(expected: np.ndarray, given: np.ndarray) -> float:
    """The power of what is expected over that of the error, in decibels."""
    noise = np.square(given.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(noise, 1e-300)))


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def constants(model: onnx.ModelProto) -> Arrays:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def nodes_of(path: Path, op: str) -> Iterator[onnx.NodeProto]:
    return (node for node in onnx.load(path).graph.node if node.op_type == op)


# A net of depth-wise separable convolutions.

IMAGES = {"x": ("n", 3, 10, 10)}
# The layers with their output channels: a depth-wise one reads each channel alone.
LAYERS = {"stem": 16, "deep1": 16, "point1": 24, "deep2": 24, "point2": 32, "head": 10}


def images(rows: int, seed: int) -> Arrays:
    x = np.random.default_rng(seed).normal(size=(rows, 3, 10, 10))
    return {"x": x.astype(np.float32)}


def separable_weights(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    weights, inputs = {}, 3
    for name, outputs in LAYERS.items():
        taps = {"stem": (inputs, 3, 3), "head": (inputs,)}.get(name, (inputs, 1, 1))
        taps = (1, 3, 3) if name.startswith("deep") else taps
        deviation = (2 / np.prod(taps)) ** 0.5
        weights[name] = rng.normal(0, deviation, (outputs, *taps)).astype(np.float32)
        weights[f"{name}_b"] = rng.normal(0, 0.2, outputs).astype(np.float32)
        inputs = outputs
    return weights


def scale_channels(weights: Arrays, name: str, factors: np.ndarray) -> None:
    """Multiplies the outputs of a layer and divides the weights that read them."""
    layers = list(LAYERS)
    following = layers[layers.index(name) + 1]
    factors = factors.astype(np.float32)
    weights[name] = weights[name] * factors.reshape(-1, 1, 1, 1)
    weights[f"{name}_b"] = weights[f"{name}_b"] * factors
    if following.startswith("deep"):
        weights[following] = weights[following] / factors.reshape(-1, 1, 1, 1)
    else:
        rank = weights[following].ndim
        weights[following] = weights[following] / factors.reshape(1, -1, *[1] * (rank - 2))


def separable(path: Path, weights: Arrays, ceiling: float | None = None) -> Path:
    """Convolutions with `Relu`, or `Clip` from 0 to a ceiling, behind each; a mean; a product."""
    weights = dict(weights)
    value, nodes = "x", []
    for name in list(LAYERS)[:-1]:
        attributes = {"kernel_shape": [1, 1]}
        if not name.startswith("point"):
            attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        if name.startswith("deep"):
            attributes["group"] = LAYERS[name]
        inputs = [value, name, f"{name}_b"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_sum"], name=name, **attributes))
        value = f"{name}_out"
        if ceiling is None:
            nodes.append(helper.make_node("Relu", [f"{name}_sum"], [value]))
        else:
            nodes.append(helper.make_node("Clip", [f"{name}_sum", "zero", "ceiling"], [value]))
    if ceiling is not None:
        weights["zero"] = np.array(0, np.float32)
        weights["ceiling"] = np.array(ceiling, np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "head_b"], ["y"], transB=1),
    ]
    return save(path, nodes, weights, IMAGES, 2)


# A transformer with one attention head.

WIDTH = 32
VOCABULARY = 60
# Channels that are far wider than the others.
OUTLIERS = {3: 40.0, 17: 25.0}


def sequences(rows: int, seed: int, length: int = 8) -> Arrays:
    x = np.random.default_rng(seed).normal(size=(rows, length, WIDTH))
    return {"x": x.astype(np.float32)}


class Transformer:
    """Writes nodes one after the other."""

    def __init__(self, spelled: bool = False, outliers: dict[int, float] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: Arrays = {}
        self.rng = np.random.default_rng(5)
        self.spelled = spelled
        self.outliers = outliers or {}

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, values: object) -> str:
        self.weights[name] = np.asarray(values, np.float32)
        return name

    def product(self, value: str, name: str, outputs: int, behind_norm: bool = True) -> str:
        inputs = WIDTH if not name.endswith("down") else 2 * WIDTH
        w = self.rng.normal(0, inputs**-0.5, (inputs, outputs))
        for channel, factor in self.outliers.items():
            # What is wide matters no more than the rest.
            w[channel] /= factor if behind_norm else 1
        self.constant(name, w)
        self.constant(f"{name}_b", self.rng.normal(0, 0.1, outputs))
        return self.node("Add", [self.node("MatMul", [value, name]), f"{name}_b"])

    def norm(self, value: str, name: str) -> str:
        gamma = self.rng.uniform(0.7, 1.3, WIDTH)
        for channel, factor in self.outliers.items():
            gamma[channel] *= factor
        scale = self.constant(f"{name}_gamma", gamma)
        shift = self.constant(f"{name}_beta", self.rng.normal(0, 0.1, WIDTH))
        if not self.spelled:
            return self.node("LayerNormalization", [value, scale, shift], axis=-1, epsilon=1e-5)
        epsilon = self.constant("epsilon", 1e-5)
        centred = self.node("Sub", [value, self.node("ReduceMean", [value], axes=[-1])])
        square = self.node("Mul", [centred, centred])
        variance = self.node("Add", [self.node("ReduceMean", [square], axes=[-1]), epsilon])
        normal = self.node("Div", [centred, self.node("Sqrt", [variance])])
        return self.node("Add", [self.node("Mul", [normal, scale]), shift])

    def attention(self, value: str, name: str, behind_norm: bool, bias: str | None) -> str:
        q, k, v = (self.product(value, f"{name}_{p}", WIDTH, behind_norm) for p in "qkv")
        scores = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 2, 1])])
        scores = self.node("Mul", [scores, self.constant("root", WIDTH**-0.5)])
        if bias:
            scores = self.node("Add", [scores, bias])
        mixed = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), v])
        return self.product(mixed, f"{name}_o", WIDTH, False)

    def feed_forward(self, value: str, name: str) -> str:
        up = self.node("Relu", [self.product(value, f"{name}_up", 2 * WIDTH)])
        return self.product(up, f"{name}_down", WIDTH, False)

    def mask(self, name: str) -> str:
        """What takes the masked positions out of attention."""
        self.weights["axis1"] = np.array([1])
        floats = self.node("Cast", [name], to=TensorProto.FLOAT)
        gone = self.node("Sub", [self.constant("one", 1), floats])
        gone = self.node("Mul", [gone, self.constant("least", -1e4)])
        return self.node("Unsqueeze", [gone, "axis1"])


def transformer(
    path: Path,
    order: str = "pre",
    spelled: bool = False,
    layers: int = 2,
    outliers: dict[int, float] | None = None,
    mask: str | None = None,
    table: bool = False,
    opset: int = 17,
) -> Path:
    """Norms before (`pre`) or behind (`post`) the residual additions; the input is `x`, or looks
    rows up in a table as `input_ids`; `mask` names an input that is 1 where a token is."""
    net = Transformer(spelled, outliers)
    inputs: dict[str, Sequence[int | str]] = {}
    if table:
        inputs["input_ids"] = ("n", "s")
        net.constant("table", net.rng.normal(size=(VOCABULARY, WIDTH)))
        value = net.node("Gather", ["table", "input_ids"])
    else:
        inputs["x"], value = ("n", "s", WIDTH), "x"
    bias = None
    if mask:
        inputs[mask] = ("n", "s")
        bias = net.mask(mask)
    for i in range(layers):
        if order == "pre":
            normed = net.norm(value, f"norm{i}a")
            value = net.node("Add", [value, net.attention(normed, f"att{i}", True, bias)])
            normed = net.norm(value, f"norm{i}b")
            value = net.node("Add", [value, net.feed_forward(normed, f"ff{i}")])
        else:
            mixed = net.attention(value, f"att{i}", i > 0, bias)
            value = net.norm(net.node("Add", [value, mixed]), f"norm{i}a")
            value = net.norm(net.node("Add", [value, net.feed_forward(value, f"ff{i}")]), f"norm{i}b")
    if order == "pre":
        value = net.norm(value, "last")
    head = net.product(value, "head", 12)
    net.nodes[-1].output[0] = "y"
    assert head != "y"
    integers = {"input_ids", mask or ""}
    return save(path, net.nodes, net.weights, inputs, 3, opset, [i for i in inputs if i in integers])
