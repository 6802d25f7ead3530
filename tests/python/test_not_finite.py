"""NaN and infinite constants: told with their tensor and element in every recipe, never blamed on data."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES
from onnx import TensorProto, helper, numpy_helper

REPORT = FIXTURES / "reports" / "nan_weight_static"
ROWS = np.random.default_rng(5).normal(size=(64, 24)).astype(np.float32)


def net(path: Path, spoiled: str = "", value: float = np.nan, element: int = 7) -> Path:
    """A norm, two layers and a look-up, with one element of one constant spoiled."""
    rng = np.random.default_rng(3)
    shapes = {
        "table": (16, 24),
        "scale": (24,),
        "shift": (24,),
        "w1": (24, 64),
        "b1": (64,),
        "w2": (64, 24),
        "b2": (24,),
    }
    constants = {name: rng.normal(size=s).astype(np.float32) * 0.3 for name, s in shapes.items()}
    if spoiled:
        constants[spoiled].reshape(-1)[element] = value
    nodes = [
        helper.make_node("Gather", ["table", "id"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "shift"], ["norm"]),
        helper.make_node("Gemm", ["norm", "w1", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "w2"], ["h3"]),
        helper.make_node("Add", ["h3", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24]),
            helper.make_tensor_value_info("id", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def rows(path: Path) -> Path:
    np.savez(path, x=ROWS, id=np.arange(64) % 16)
    return path


def in_branch(path: Path) -> Path:
    """A product in a branch, a NaN in its weight."""
    spoiled = np.ones((24, 24), np.float32)
    spoiled[3, 4] = np.nan
    value = helper.make_tensor_value_info
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}_y"])],
            name,
            [],
            [value(f"{name}_y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, weight)],
        )
        for name, weight, array in [
            ("then_branch", "taken", spoiled),
            ("else_branch", "other", np.ones((24, 24), np.float32)),
        ]
    }
    nodes = [
        helper.make_node("If", ["c"], ["h"], **branches),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = {"c": np.array(True), "w": np.ones((24, 24), np.float32)}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 24])],
        [value("y", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("recipe", ["weights", "dynamic", "static", "auto"])
def test_what_a_branch_reads_is_told(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    model = in_branch(tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", x=ROWS)
    command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe", recipe]
    told = "element 76 of 'taken' is NaN"
    if recipe != "static":
        assert f"warning: {told}" in fewbits(*command, "--force").assert_done().err
    done = fewbits(*command, "--force", "--calibrate", tmp_path / "c.npz")
    assert told in done.err and "check that it is what the model was trained on" not in done.err


def test_what_adds_infinity_is_told(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", "b2", np.inf)
    done = fewbits("quantize", model, "-o", tmp_path / "q.onnx").assert_done()
    assert "warning: element 7 of 'b2' is infinite" in done.err


WHERE = ["table", "scale", "shift", "w1", "b1", "w2", "b2"]


@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("spoiled", WHERE)
class TestEveryRecipe:
    @pytest.mark.parametrize("recipe", ["weights", "dynamic", "auto"])
    def test_without_data_it_stays_float(
        self, fewbits: Fewbits, tmp_path: Path, spoiled: str, value: float, recipe: str
    ) -> None:
        if spoiled == "b2" and not np.isnan(value):
            pytest.skip("what is added may well be an infinite mask")
        model = net(tmp_path / "m.onnx", spoiled, value)
        command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe", recipe, "--json"]
        done = fewbits(*command).assert_done()
        told = f"element 7 of '{spoiled}' is {'NaN' if np.isnan(value) else 'infinite'}"
        assert f"warning: {told}" in done.err, done.report()
        assert any(told in note for note in done.json()["notes"]), done.report()
        kept = {entry["tensor"]: entry["why"] for entry in done.json()["kept_float"]}
        assert told in kept[spoiled]

    @pytest.mark.parametrize("recipe", ["static", "auto"])
    def test_calibration_refuses_it(
        self, fewbits: Fewbits, tmp_path: Path, spoiled: str, value: float, recipe: str
    ) -> None:
        if spoiled == "b2" and not np.isnan(value):
            pytest.skip("what is added may well be an infinite mask")
        model, data = net(tmp_path / "m.onnx", spoiled, value), rows(tmp_path / "rows.npz")
        out = tmp_path / "q.onnx"
        refused = fewbits("quantize", model, "-o", out, "--recipe", recipe, "--calibrate", data)
        assert refused.code == 1 and not out.exists(), refused.report()
        # Perhaps behind the warning that a table stays float.
        error = refused.err.splitlines()[-1]
        assert error.startswith("error:") and "panicked" not in refused.err, refused.report()
        assert f"element 7 of '{spoiled}'" in error and "m.onnx" in error, refused.report()
        assert "rows.npz" not in error and "--normalize" not in error, refused.report()


def test_a_row_that_no_data_looks_up_spoils_nothing(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", "table", element=15 * 24)
    np.savez(tmp_path / "rows.npz", x=ROWS, id=np.arange(64) % 15)
    command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe", "static"]
    done = fewbits(*command, "--calibrate", tmp_path / "rows.npz").assert_done()
    assert "element 360 of 'table' is NaN" in done.err, done.report()


def test_data_with_nan_are_still_to_blame(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx")
    x = ROWS.copy()
    x[3, 4] = np.nan
    np.savez(tmp_path / "rows.npz", x=x, id=np.arange(64) % 16)
    command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe", "static"]
    refused = fewbits(*command, "--calibrate", tmp_path / "rows.npz")
    refused.assert_refused(1)
    assert "rows.npz" in refused.err, refused.report()


@pytest.mark.parametrize("recipe", ["weights", "dynamic"])
def test_the_report_is_told(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    command = ["quantize", REPORT / "model.onnx", "-o", tmp_path / "q.onnx", "--recipe", recipe]
    done = fewbits(*command).assert_done()
    assert "element 52 of" in done.err and "is NaN" in done.err, done.report()


def test_the_report_is_refused_for_calibration(fewbits: Fewbits, tmp_path: Path) -> None:
    command = ["quantize", REPORT / "model.onnx", "-o", tmp_path / "q.onnx", "--recipe", "static"]
    refused = fewbits(*command, "--calibrate", REPORT / "data.npz")
    refused.assert_refused(1)
    assert "element 52 of" in refused.err, refused.report()


def test_inspect_shows_it(fewbits: Fewbits) -> None:
    shown = fewbits("inspect", REPORT / "model.onnx").assert_done()
    assert "NaN" in shown.out and "element 52 of" in shown.err, shown.report()
    result = fewbits("inspect", REPORT / "model.onnx", "--json").assert_done().json()
    [spoiled] = [t for t in result["tensors"] if t["min"] is None]
    assert spoiled["max"] is None and spoiled["tensor"] in result["notes"][0]
