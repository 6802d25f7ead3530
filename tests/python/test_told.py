"""What was asked for and could not be done is told, with the reason."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES
from onnx import TensorProto, helper, numpy_helper

REPORT = FIXTURES / "reports" / "affine_static_says_nothing"
UNFIT = [
    (["--scheme", "affine"], "zero points"),
    (["--scheme", "affine", "--granularity", "tensor"], "zero points"),
    (["--granularity", "group=16"], "a scale a group"),
    (["--scheme", "fixed-point", "--bits", 8], "fixed point"),
]


@pytest.mark.parametrize("recipe", ["static", "dynamic"])
@pytest.mark.parametrize(("options", "why"), UNFIT)
def test_activations_that_stay_float_are_told(
    fewbits: Fewbits, tmp_path: Path, options: list[object], why: str, recipe: str
) -> None:
    command = ["quantize", REPORT / "model.onnx", "-o", tmp_path / "q.onnx", "--recipe", recipe]
    done = fewbits(*command, *options, "--calibrate", REPORT / "data.npz", "--json").assert_done()
    [warning] = [line for line in done.err.splitlines() if "activations stay float" in line]
    assert warning.startswith("warning:") and why in warning, done.report()
    assert any(why in note for note in done.json()["notes"]), done.report()
    assert any(why in entry["why"] for entry in done.json()["kept_float"]), done.report()
    operators = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert not operators & {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"}


@pytest.mark.parametrize(
    ("recipe", "model", "data"),
    [
        ("static", REPORT / "model.onnx", REPORT / "data.npz"),
        ("dynamic", FIXTURES / "digits" / "mlp.onnx", FIXTURES / "digits" / "train.npz"),
    ],
)
def test_nothing_is_told_where_all_was_done(
    fewbits: Fewbits, tmp_path: Path, recipe: str, model: Path, data: Path
) -> None:
    command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe", recipe, "--json"]
    done = fewbits(*command, "--calibrate", data).assert_done()
    assert done.err == "" and done.json()["notes"] == [], done.report()


def test_activations_that_nothing_reads_are_told(fewbits: Fewbits, tmp_path: Path) -> None:
    """A table alone has no product."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "id"], ["y"])],
        "g",
        [helper.make_tensor_value_info("id", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    command = ["quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--recipe", "dynamic"]
    assert "no product" in fewbits(*command).assert_done().err


def test_weights_of_three_axes_have_no_dynamic_form(fewbits: Fewbits, tmp_path: Path) -> None:
    """The plan says what is written."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, "N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "N", 64])],
        [numpy_helper.from_array(rng.normal(size=(2, 32, 64)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(2, 8, 32)).astype(np.float32))
    plan = tmp_path / "plan.json"
    command = ["quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--recipe", "dynamic"]
    done = fewbits(*command, "--calibrate", tmp_path / "x.npz", "--save-plan", plan).assert_done()
    [activation] = json.loads(plan.read_text())["activations"]
    assert "float" in activation and "more axes" in activation["float"]
    assert "activations stay float" in done.err, done.report()


def test_what_could_not_be_tried_is_told(fewbits: Fewbits, tmp_path: Path) -> None:
    """The executor lacks an operator in front of the output, so no plan can be tried on the data."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("CenterCropPad", ["h", "size"], ["y"], axes=[1, 2]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 60, 60])],
        [
            numpy_helper.from_array(rng.normal(size=(32, 64)).astype(np.float32), "w"),
            numpy_helper.from_array(np.array([60, 60]), "size"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(8, 64, 32)).astype(np.float32))
    for recipe in ("static", "auto", "dynamic"):
        out = tmp_path / f"{recipe}.onnx"
        command = ["quantize", tmp_path / "m.onnx", "-o", out, "--recipe", recipe, "--json"]
        done = fewbits(*command, "--calibrate", tmp_path / "x.npz").assert_done()
        assert "nothing was tried on the data" in done.err and "CenterCropPad" in done.err, done.report()
        assert any("nothing was tried" in note for note in done.json()["notes"]), done.report()
