"""Weights that several operators read along different axes: one set of scales must suit them all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import default_session, meaning, sqnr_db
from models import FIXTURES
from onnx import TensorProto, helper, numpy_helper

TIED = FIXTURES / "reports" / "tied-weight-static-ort-fails"
RECIPES = ["weights", "dynamic", "static", "auto"]


def quantized(fewbits: Fewbits, source: Path, data: Path, out: Path, *more: object) -> Path:
    command = ["quantize", source, "-o", out, "--force", "--calibrate", data]
    fewbits(*command, *more).assert_done()
    return out


def assert_right_everywhere(source: Path, out: Path, x: np.ndarray, least: float) -> None:
    """By the meaning, and in a session with nothing set."""
    expected, meant = meaning(source, x)[0], meaning(out, x)[0]
    assert sqnr_db(expected, meant) >= least
    session = default_session(out)
    got = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert sqnr_db(expected, got) >= least - 8


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["rect", "square"])
def test_a_gemm_and_a_matmul(fewbits: Fewbits, tmp_path: Path, name: str, recipe: str) -> None:
    source, data = TIED / f"{name}.onnx", TIED / f"{name}.npz"
    out = quantized(fewbits, source, data, tmp_path / "q.onnx", "--recipe", recipe)
    assert_right_everywhere(source, out, np.load(data)["x"], 28)


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("granularity", ["channel", "group=16", "tensor"])
def test_fewer_bits_in_any_granularity(
    fewbits: Fewbits, tmp_path: Path, granularity: str, bits: int
) -> None:
    source, data = TIED / "square.onnx", TIED / "square.npz"
    command = ["--recipe", "weights", "--bits", bits, "--granularity", granularity]
    out = quantized(fewbits, source, data, tmp_path / "q.onnx", *command)
    assert_right_everywhere(source, out, np.load(data)["x"], 6)


def table_and_product(rng: np.random.Generator) -> tuple[list, dict, list, list]:
    weights = {"w": rng.normal(size=(40, 40)), "i": np.int64([1, 5, 7, 9])}
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["rows"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "rows_t"], ["y"]),
    ]
    nodes.insert(1, helper.make_node("Transpose", ["rows"], ["rows_t"], perm=[1, 0]))
    return nodes, weights, ["b", 40], ["b", 4]


def convolution_and_its_transpose(rng: np.random.Generator) -> tuple[list, dict, list, list]:
    weights = {"w": rng.normal(size=(16, 16, 3, 3)) / 12, "b": rng.normal(size=16)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return nodes, weights, ["b", 16, 9, 9], ["b", 16, 9, 9]


def two_gemms_with_biases(rng: np.random.Generator) -> tuple[list, dict, list, list]:
    weights = {"w": rng.normal(size=(32, 32)) / 6 * np.logspace(-1, 1, 32)[:, None]}
    weights |= {"b": rng.normal(size=32), "c": rng.normal(size=32)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "c"], ["y"]),
    ]
    return nodes, weights, ["b", 32], ["b", 32]


def a_weight_on_both_sides(rng: np.random.Generator) -> tuple[list, dict, list, list]:
    weights = {"w": rng.normal(size=(24, 24)) / 5}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["w", "r"], ["y"]),
    ]
    return nodes, weights, [24, 24], [24, 24]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "make",
    [
        table_and_product,
        convolution_and_its_transpose,
        two_gemms_with_biases,
        a_weight_on_both_sides,
    ],
)
def test_other_readers(fewbits: Fewbits, tmp_path: Path, make, recipe: str) -> None:
    rng = np.random.default_rng(7)
    nodes, weights, x, y = make(rng)
    as_stored = {n: w.astype(np.float32) if w.dtype == np.float64 else w for n, w in weights.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(w, name) for name, w in as_stored.items()],
    )
    source = tmp_path / "m.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), source)
    rows = rng.normal(size=[64 if d == "b" else d for d in x]).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=rows)
    data = tmp_path / "x.npz"
    out = quantized(fewbits, source, data, tmp_path / "q.onnx", "--recipe", recipe)
    assert_right_everywhere(source, out, rows, 25)
