"""Files that do not grow: shared weights are written once, and what would grow a file is left float."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import meaning, sqnr_db
from models import FIXTURES, NOTEBOOK
from onnx import TensorProto, helper, numpy_helper

SHARED = FIXTURES / "reports" / "shared_gemm_weight_copied"
RECIPES = ["weights", "dynamic", "static", "auto"]
CALIBRATED = [("weights", False), ("dynamic", False), ("dynamic", True), ("static", True)]
CALIBRATED += [("auto", False), ("auto", True)]

SMALL_BYTES = 16_000
SMALL_GROWTH = 1_000


def most_bytes(source: Path) -> int:
    size = source.stat().st_size
    return size + SMALL_GROWTH if size <= SMALL_BYTES else size


def int8_weights(model: Path, elements: int) -> int:
    tensors = onnx.load(model).graph.initializer
    return sum(t.data_type == TensorProto.INT8 and np.prod(t.dims) == elements for t in tensors)


def write(path: Path, nodes: list, weights: dict[str, np.ndarray], x: list, y: list) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.mark.parametrize(("recipe", "calibrated"), CALIBRATED)
def test_a_weight_of_twenty_products_is_written_once(
    fewbits: Fewbits, tmp_path: Path, recipe: str, calibrated: bool
) -> None:
    source, out = SHARED / "model.onnx", tmp_path / "q.onnx"
    command = ["quantize", source, "-o", out, "--recipe", recipe]
    command += ["--calibrate", SHARED / "data.npz"] if calibrated else []
    fewbits(*command).assert_done()
    assert int8_weights(out, 96 * 96) == 1
    # The integers are a quarter of it; twenty products need operators, and static biases scales.
    fixed = any(node.op_type == "QuantizeLinear" for node in onnx.load(out).graph.node)
    assert out.stat().st_size < source.stat().st_size * (0.75 if fixed else 0.5)
    x = np.load(SHARED / "data.npz")["x"]
    assert sqnr_db(meaning(source, x)[0], meaning(out, x)[0]) >= 25
    dynamic = [n for n in onnx.load(out).graph.node if n.op_type == "DynamicQuantizeLinear"]
    assert len({node.input[0] for node in dynamic}) == len(dynamic)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
def test_one_copy_serves_products_that_read_it_both_ways(
    fewbits: Fewbits, tmp_path: Path, shape: tuple[int, int], bits: int
) -> None:
    """And a look-up: three ways to read a weight."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["a"]),
        helper.make_node("Gemm", ["a", "w"], ["b"], transB=1),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    source, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    write(source, nodes, {"w": weight, "i": np.int64(3)}, ["b", shape[1]], ["b", shape[1]])
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(64, shape[1])).astype(np.float32))
    command = ["quantize", source, "-o", out, "--recipe", "dynamic", "--bits", bits]
    fewbits(*command, "--calibrate", tmp_path / "x.npz").assert_done()
    ops = [node.op_type for node in onnx.load(out).graph.node]
    assert ops.count("MatMulInteger") >= 2
    assert int8_weights(out, shape[0] * shape[1]) == 1
    assert out.stat().st_size < source.stat().st_size / 2
    x = np.load(tmp_path / "x.npz")["x"]
    least = 28 if bits == 8 else 5
    assert sqnr_db(meaning(source, x)[0], meaning(out, x)[0]) >= least


def test_equal_weights_under_several_names_are_written_once(fewbits: Fewbits, tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    source, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    write(source, nodes, {"a": weight, "b": weight}, ["b", 64], ["b", 64])
    for recipe in ["weights", "dynamic"]:
        fewbits("quantize", source, "-o", out, "--recipe", recipe, "--force").assert_done()
        assert int8_weights(out, 64 * 64) == 1, recipe


def perceptrons(path: Path, width: int, depth: int) -> None:
    """Many layers of few weights."""
    rng = np.random.default_rng(width)
    weights, nodes = {}, []
    value = "x"
    for i in range(depth):
        out = "y" if i == depth - 1 else f"v{i}"
        weights[f"w{i}"] = (rng.normal(size=(width, width)) / width**0.5).astype(np.float32)
        weights[f"b{i}"] = rng.normal(size=width).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"g{i}"]))
        nodes.append(helper.make_node("Relu", [f"g{i}"], [out]))
        value = out
    write(path, nodes, weights, ["b", width], ["b", width])


def convolutions(path: Path, width: int, depth: int) -> None:
    rng = np.random.default_rng(width)
    weights, nodes = {}, []
    value = "x"
    for i in range(depth):
        out = "y" if i == depth - 1 else f"v{i}"
        weights[f"w{i}"] = (rng.normal(size=(width, width, 1, 1)) / width**0.5).astype(np.float32)
        weights[f"b{i}"] = rng.normal(size=width).astype(np.float32)
        nodes.append(helper.make_node("Conv", [value, f"w{i}", f"b{i}"], [f"g{i}"]))
        nodes.append(helper.make_node("Relu", [f"g{i}"], [out]))
        value = out
    write(path, nodes, weights, ["b", width, 5, 5], ["b", width, 5, 5])


def unrolled(path: Path, width: int, depth: int) -> None:
    """One weight, many products."""
    weight = np.random.default_rng(width).normal(size=(width, width)).astype(np.float32)
    nodes, value = [], "x"
    for i in range(depth):
        out = "y" if i == depth - 1 else f"v{i}"
        nodes.append(helper.make_node("MatMul", [value, "w"], [f"g{i}"]))
        nodes.append(helper.make_node("Tanh", [f"g{i}"], [out]))
        value = out
    write(path, nodes, {"w": weight / width**0.5}, ["b", width], ["b", width])


@pytest.mark.parametrize(("recipe", "calibrated"), CALIBRATED)
@pytest.mark.parametrize(
    ("make", "width", "depth"),
    [
        (perceptrons, 6, 3),
        (perceptrons, 8, 60),
        (perceptrons, 14, 40),
        (convolutions, 4, 4),
        (convolutions, 8, 60),
        (convolutions, 13, 40),
        (unrolled, 24, 60),
        (unrolled, 48, 200),
    ],
)
def test_no_file_grows(
    fewbits: Fewbits,
    tmp_path: Path,
    make: Callable[[Path, int, int], None],
    width: int,
    depth: int,
    recipe: str,
    calibrated: bool,
) -> None:
    source, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    make(source, width, depth)
    shape = [64, width, 5, 5] if make is convolutions else [64, width]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    command = ["quantize", source, "-o", out, "--recipe", recipe, "--json"]
    command += ["--calibrate", tmp_path / "x.npz"] if calibrated else []
    report = fewbits(*command).assert_done().json()
    assert out.stat().st_size == report["file_bytes"] <= most_bytes(source)
    meaning(out, x[:4])
    named = [kept["why"] for kept in report["kept_float"] if "larger" in kept["why"]]
    noted = [note for note in report["notes"] if "make the file larger" in note]
    assert bool(named) == bool(noted) or not report["quantized"]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_notebook_model_grows_by_a_kilobyte_at_most(
    fewbits: Fewbits, tmp_path: Path, recipe: str, bits: int
) -> None:
    source, out = NOTEBOOK / "model.onnx", tmp_path / "q.onnx"
    command = ["quantize", source, "-o", out, "--recipe", recipe, "--bits", bits]
    command += ["--calibrate", NOTEBOOK / "test_f32.npz"] if recipe != "weights" else []
    fewbits(*command).assert_done()
    assert out.stat().st_size <= most_bytes(source)


def test_what_was_asked_for_tensor_by_tensor_is_written_all_the_same(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    source, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    perceptrons(source, 8, 60)
    plan = tmp_path / "plan.json"
    fewbits("quantize", source, "--dry-run", "--save-plan", plan, "--recipe", "dynamic").assert_done()
    text = json.loads(plan.read_text())
    for tensor in text["tensors"]:
        if len(tensor["shape"]) == 2:
            tensor.pop("float", None)
            tensor["scheme"] = {
                "symmetric": {"bits": 8, "granularity": {"channel": {"axis": 1}}}
            }
    for activation in text["activations"]:
        activation.pop("float", None)
        activation["dynamic"] = None
    plan.write_text(json.dumps(text))
    done = fewbits("quantize", source, "-o", out, "--plan", plan)
    if done.code != 0:
        pytest.skip(f"the plan is spelled otherwise now: {done.err}")
    sizes = [out.stat().st_size, source.stat().st_size]
    assert sizes[0] > sizes[1]
    warned = [line for line in done.err.splitlines() if line.startswith("warning")]
    assert any(all(str(size) in line for size in sizes) for line in warned), done.report()


def test_saved_plans_leave_float_what_the_file_leaves_float(fewbits: Fewbits, tmp_path: Path) -> None:
    perceptrons(tmp_path / "m.onnx", 14, 40)
    command = ["quantize", "m.onnx", "--recipe", "dynamic"]
    fewbits(*command, "-o", "a.onnx", "--save-plan", "plan.json", cwd=tmp_path).assert_done()
    fewbits("quantize", "m.onnx", "-o", "b.onnx", "--plan", "plan.json", cwd=tmp_path).assert_done()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
