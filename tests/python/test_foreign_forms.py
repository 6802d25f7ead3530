"""Quantized models in the forms that other tools write: `fewbits run` against what they mean."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, run_onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

NETS = {
    "cnn": FIXTURES / "digits_cnn" / "model.onnx",
    "mlp": FIXTURES / "digits" / "mlp.onnx",
}
RNG = np.random.default_rng(5)
MICROSOFT = "com.microsoft"
STEP = np.float32(0.05)


def rows_of(net: str) -> tuple[str, np.ndarray]:
    rows = np.load(NETS[net].parent / "test.npz")
    name = onnx.load(NETS[net]).graph.input[0].name
    return name, rows["input" if net == "cnn" else "X"].astype(np.float32)


def ours(fewbits: Fewbits, model: Path, name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    data, out = model.with_suffix(".in.npz"), model.with_suffix(".out.npz")
    np.savez(data, **{name: x})
    fewbits("run", model, "--data", data, "-o", out, "--force").assert_done()
    return dict(np.load(out))


def assert_within(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], step: float, share: float
) -> None:
    """Floats within one step of the quantization, few further than 1e-4; the rest equal."""
    for name, expected in theirs.items():
        actual = ours[name]
        assert actual.shape == expected.shape, name
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(actual, expected, err_msg=name)
            continue
        difference = np.abs(actual - expected)
        assert difference.max() <= step * 1.001 + 1e-4, (name, difference.max(), step)
        assert np.mean(difference > 1e-4) <= share, (name, np.mean(difference > 1e-4))


class Batches(CalibrationDataReader):
    def __init__(self, name: str, rows: np.ndarray) -> None:
        self.batches = iter([{name: rows[i : i + 64]} for i in range(0, 256, 64)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ], ids=lambda f: f.name)
@pytest.mark.parametrize("types", ["u8s8", "s8s8", "u8u8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_static(
    fewbits: Fewbits,
    tmp_path: Path,
    net: str,
    form: QuantFormat,
    types: str,
    per_channel: bool,
) -> None:
    model = tmp_path / "q.onnx"
    name, x = rows_of(net)
    kinds = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    quantize_static(
        NETS[net],
        model,
        Batches(name, x),
        quant_format=form,
        activation_type=kinds[types[:2]],
        weight_type=kinds[types[2:]],
        per_channel=per_channel,
    )
    step = final_step(model)
    theirs = run_onnxruntime(model, x)
    actual = ours(fewbits, model, name, x)
    # The softmax of ONNX Runtime rounds in its own way; an element apart is one of many.
    assert_within(actual, theirs, step, share=0.15 if net == "mlp" else 0.005)
    scores = "logits" if net == "cnn" else "probabilities"
    assert np.array_equal(actual[scores].argmax(-1), theirs[scores].argmax(-1))


def test_nncf(fewbits: Fewbits, tmp_path: Path) -> None:
    model = tmp_path / "nncf.onnx"
    model.write_bytes((FIXTURES / "digits_cnn" / "nncf.onnx").read_bytes())
    name, x = rows_of("cnn")
    # We round the float biases to integers, which moves some bytes by a step and so many of the
    # logits by a little.
    actual, theirs = ours(fewbits, model, name, x), run_onnxruntime(model, x)
    assert_within(actual, theirs, 0.1, share=0.45)


def test_weights_that_are_still_floats(fewbits: Fewbits, tmp_path: Path) -> None:
    model = tmp_path / "trt.onnx"
    name, x = rows_of("cnn")
    options = {"AddQDQPairToWeight": True, "QDQKeepRemovableActivations": True}
    kind = QuantType.QInt8
    quantize_static(
        NETS["cnn"],
        model,
        Batches(name, x),
        activation_type=kind,
        weight_type=kind,
        per_channel=True,
        extra_options=options,
    )
    graph = onnx.load(model).graph
    constants = {t.name for t in graph.initializer}
    assert any(n.op_type == "QuantizeLinear" and n.input[0] in constants for n in graph.node)
    actual, theirs = ours(fewbits, model, name, x), run_onnxruntime(model, x)
    assert_within(actual, theirs, final_step(model), share=0.005)


def final_step(path: Path) -> float:
    """The scale of the last values that are dequantized."""
    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    last = [node for node in graph.node if node.op_type == "DequantizeLinear"][-1]
    return float(constants[last.input[1]].reshape(()))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8], ids=lambda k: k.name)
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_dynamic(
    fewbits: Fewbits, tmp_path: Path, net: str, kind: QuantType, per_channel: bool
) -> None:
    model = tmp_path / "q.onnx"
    name, x = rows_of(net)
    quantize_dynamic(NETS[net], model, weight_type=kind, per_channel=per_channel)
    ops = [node.op_type for node in onnx.load(model).graph.node]
    assert ("ConvInteger" in ops) == (net == "cnn") and "MatMulInteger" in ops
    # Ranges are those of all rows of a call: few enough for one.
    x = x[:16]
    assert_within(ours(fewbits, model, name, x), run_onnxruntime(model, x), 0.0, share=0.0)


@dataclass
class Node:
    """An operator on integers `q`, and on `p` if it takes two values."""

    op: str
    inputs: list[str]
    domain: str = MICROSOFT
    attributes: dict[str, object] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 4, 6, 6)
    # Whether what it answers is a float.
    floats: bool = False
    opset: int = 17


VALUES = ["q", "s", "z", "p", "s1", "z"]
RESULT = ["s", "z"]
MATRIX = (5, 8)
INTEGERS = {
    "uint8": np.uint8,
    "int8": np.int8,
}


def conv(**attributes: object) -> Node:
    given = {"pads": [1, 1, 1, 1], **attributes}
    return Node(
        "QLinearConv", ["q", "s", "z", "cw", "ws", "wz", *RESULT, "cb"], "", given, opset=10
    )


def gemm(result: list[str], **attributes: object) -> Node:
    weight = "gt" if attributes.get("transB") else "g"
    inputs = ["q", "s", "z", weight, "ws", "wz", "cb", *result]
    return Node("QGemm", inputs, attributes=attributes, shape=MATRIX, floats=not result)


def unary(op: str, **attributes: object) -> Node:
    return Node(op, ["q", "s", "z", *RESULT], attributes=attributes)


NODES = {
    "conv": conv(),
    "conv_strides": conv(strides=[2, 1], dilations=[2, 2]),
    "conv_groups": Node(
        "QLinearConv", ["q", "s", "z", "gw", "ws", "wz", *RESULT], "", {"group": 2}
    ),
    "conv_one_scale": Node("QLinearConv", ["q", "s", "z", "cw", "s1", "wz0", *RESULT], ""),
    "matmul": Node("QLinearMatMul", ["q", "s", "z", "g", "ws", "wz", *RESULT], "", shape=MATRIX),
    "matmul_one_scale": Node(
        "QLinearMatMul", ["q", "s", "z", "g", "s1", "wz0", *RESULT], "", shape=MATRIX
    ),
    "gemm": gemm(RESULT),
    "gemm_transposed": gemm(RESULT, transB=1, alpha=0.5),
    "gemm_floats": gemm([]),
    "add": Node("QLinearAdd", [*VALUES, *RESULT]),
    "mul": Node("QLinearMul", [*VALUES, *RESULT]),
    "sigmoid": unary("QLinearSigmoid"),
    "leaky_relu": unary("QLinearLeakyRelu", alpha=0.2),
    "softmax": unary("QLinearSoftmax", axis=-1, opset=17),
    "softmax_of_channels": unary("QLinearSoftmax", axis=1, opset=17),
    "average_pool": unary("QLinearAveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average_pool_padding": unary(
        "QLinearAveragePool",
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        count_include_pad=1,
    ),
    "mean": unary("QLinearGlobalAveragePool"),
    "concat": Node("QLinearConcat", [*RESULT, *VALUES], attributes={"axis": 1}),
    "where": Node("QLinearWhere", ["c", *VALUES, *RESULT]),
    "max_pool": Node("MaxPool", ["q"], "", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "resize": Node("Resize", ["q", "", "sizes"], "", {"mode": "nearest"}),
    "scaled_integers": Node(
        "MatMulIntegerToFloat",
        ["q", "g", "s", "ws", "z", "wz", "fb"],
        shape=MATRIX,
        floats=True,
    ),
    "dynamic": Node(
        "DynamicQuantizeMatMul", ["x", "g", "ws", "wz", "fb"], shape=MATRIX, floats=True
    ),
}


def node_model(node: Node, kind: type, path: Path) -> Path:
    """`x` quantized, the node, and its answer as floats."""
    low = int(np.iinfo(kind).min)

    def integers(*shape: int) -> np.ndarray:
        return RNG.integers(low, low + 256, shape).astype(kind)

    # One scale may be a vector of one element.
    vector = node.op in ("QLinearConv", "QLinearMatMul")
    constants = {
        "s": STEP.reshape(1) if vector else STEP,
        "s1": np.float32(0.03),
        "z": np.array(low + 120, kind),
        "p": integers(*node.shape),
        "c": RNG.integers(0, 2, node.shape).astype(bool),
        "cw": RNG.integers(-20, 20, (8, 4, 3, 3)).astype(np.int8),
        "gw": RNG.integers(-20, 20, (8, 2, 3, 3)).astype(np.int8),
        "g": RNG.integers(-20, 20, (8, 8)).astype(np.int8),
        "ws": RNG.uniform(0.005, 0.02, 8).astype(np.float32),
        "wz": np.zeros(8, np.int8),
        "wz0": np.array(0, np.int8),
        "cb": RNG.integers(-500, 500, 8).astype(np.int32),
        "fb": RNG.normal(size=8).astype(np.float32),
        "sizes": np.array([1, 1, 2, 2], np.float32),
    }
    constants["gt"] = constants["g"].T.copy()
    inputs = [i for i in node.inputs if i in constants]
    initializers = [
        numpy_helper.from_array(constants[i], i) for i in dict.fromkeys([*inputs, "s", "z"])
    ]
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node(
            node.op,
            node.inputs,
            ["y" if node.floats else "r"],
            domain=node.domain,
            **node.attributes,
        ),
    ]
    if not node.floats:
        nodes.append(h.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]))
    graph = h.make_graph(
        nodes,
        "node",
        [h.make_tensor_value_info("x", T.FLOAT, [None, *node.shape[1:]])],
        [h.make_tensor_value_info("y", T.FLOAT, None)],
        initializers,
    )
    opsets = [h.make_opsetid("", node.opset), h.make_opsetid(MICROSOFT, 1)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("kind", INTEGERS)
def test_nodes(fewbits: Fewbits, tmp_path: Path, name: str, kind: str) -> None:
    node = NODES[name]
    if node.op == "DynamicQuantizeMatMul" and kind == "int8":
        pytest.skip("its activations are uint8")
    model = node_model(node, INTEGERS[kind], tmp_path / "node.onnx")
    x = RNG.normal(0, 2, node.shape).astype(np.float32)
    step = 0.0 if node.floats else STEP
    # Halves between two integers are rounded either way, and averages are often halves.
    assert_within(ours(fewbits, model, "x", x), run_onnxruntime(model, x), step, share=0.06)


def small_model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], width: object, path: Path
) -> Path:
    graph = h.make_graph(
        nodes,
        "small",
        [h.make_tensor_value_info("x", T.FLOAT, width)],
        [h.make_tensor_value_info("y", T.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid(MICROSOFT, 1)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("zero_points", [np.array(3, np.int8), np.arange(-3, 5, dtype=np.int8)])
def test_integer_convolutions_pad_with_the_zero_point(
    fewbits: Fewbits, tmp_path: Path, zero_points: np.ndarray
) -> None:
    constants = {"w": RNG.integers(-128, 128, (8, 4, 3, 3)).astype(np.int8), "wz": zero_points}
    nodes = [
        h.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        h.make_node("ConvInteger", ["q", "w", "z", "wz"], ["sums"], pads=[1, 1, 1, 1]),
        h.make_node("Cast", ["sums"], ["floats"], to=T.FLOAT),
        h.make_node("Mul", ["floats", "s"], ["y"]),
    ]
    model = small_model(nodes, constants, [None, 4, 5, 5], tmp_path / "conv.onnx")
    x = RNG.normal(1, 1, (2, 4, 5, 5)).astype(np.float32)
    # ONNX Runtime takes one zero point for all channels only.
    sums = ours(fewbits, model, "x", x)["y"]
    if zero_points.ndim == 0:
        np.testing.assert_allclose(sums, run_onnxruntime(model, x)["y"], rtol=1e-6)
    low, high = min(x.min(), 0), x.max()
    scale = np.float32((high - low) / np.float32(255))
    zero = np.round(-low / scale)
    q = np.clip(np.round(x / scale) + zero, 0, 255) - zero
    padded = np.pad(q, [(0, 0), (0, 0), (1, 1), (1, 1)])
    w = constants["w"] - zero_points.astype(np.int64).reshape(-1, 1, 1, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("ncijhw,ochw->noij", windows, w) * scale
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-4)


PACKERS: dict[int, Callable[..., None]] = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}


@pytest.mark.parametrize("bits", PACKERS)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "zero_points"])
@pytest.mark.parametrize(("k", "block"), [(64, 32), (72, 16)])
def test_packed_products(
    fewbits: Fewbits, tmp_path: Path, bits: int, symmetric: bool, k: int, block: int
) -> None:
    n, blocks = 10, -(-k // block)
    weight = RNG.normal(0.1, 1, (k, n)).astype(np.float32)
    packed = np.zeros((n, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((n, blocks), np.float32)
    zero_points = np.zeros((n, -(-blocks * bits // 8)), np.uint8)
    flat = (scales.reshape(-1), zero_points.reshape(-1))
    PACKERS[bits](packed, weight, *flat, block, n, k, symmetric)
    constants = {"b": packed, "s": scales, "bias": RNG.normal(size=n).astype(np.float32)}
    if not symmetric:
        constants["z"] = zero_points
    product = h.make_node(
        "MatMulNBits",
        ["x", "b", "s", "" if symmetric else "z", "", "bias"],
        ["y"],
        domain=MICROSOFT,
        K=k,
        N=n,
        bits=bits,
        block_size=block,
        accuracy_level=1,
    )
    model = small_model([product], constants, [None, k], tmp_path / "nbits.onnx")
    x = RNG.normal(size=(6, k)).astype(np.float32)
    actual = ours(fewbits, model, "x", x)["y"]
    np.testing.assert_allclose(actual, run_onnxruntime(model, x)["y"], rtol=1e-4, atol=1e-4)
    # The right weight, not only the same one: an error of half a step an element.
    assert np.abs(actual - constants["bias"] - x @ weight).max() < (4.0 if bits == 4 else 0.3)


def test_equal_elements_are_answered_by_the_first(fewbits: Fewbits, tmp_path: Path) -> None:
    nodes = [
        h.make_node("ArgMax", ["x"], ["most"], axis=1, keepdims=0),
        h.make_node("ArgMin", ["x"], ["least"], axis=-1, keepdims=0),
        h.make_node("Sub", ["most", "least"], ["places"]),
        h.make_node("Cast", ["places"], ["y"], to=T.FLOAT),
    ]
    model = small_model(nodes, {}, [None, 3], tmp_path / "places.onnx")
    x = np.array([[1, 1, 0], [0, 2, 2], [1, 1, 1], [3, 0, 0]], np.float32)
    np.testing.assert_array_equal(ours(fewbits, model, "x", x)["y"], run_onnxruntime(model, x)["y"])


def test_what_is_not_known_is_named(fewbits: Fewbits, tmp_path: Path) -> None:
    node = unary("QLinearGlobalAveragePool", channels_last=1)
    model = node_model(node, np.uint8, tmp_path / "last.onnx")
    data = tmp_path / "x.npz"
    np.savez(data, x=np.zeros(node.shape, np.float32))
    outcome = fewbits("run", model, "--data", data, "-o", tmp_path / "y.npz")
    outcome.assert_refused()
    assert "'r' is a QLinearGlobalAveragePool (its channels come last" in outcome.err
