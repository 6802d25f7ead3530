"""Norms that are spelled out in arithmetic: one step of ours, and the answer is what the file means."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import meaning
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
# From `x` and the root `r` to what is normalized, as exporters write it.
FORMS = {
    "quotient": [node("Div", ["x", "r"], ["n"])],
    "inverse": [node("Div", ["one", "r"], ["i"]), node("Mul", ["x", "i"], ["n"])],
    "reciprocal": [node("Reciprocal", ["r"], ["i"]), node("Mul", ["i", "x"], ["n"])],
}


def save_norm(path: Path, form: str, width: int, opset: int) -> None:
    """A norm by the root of the mean square, and a product behind it."""
    rng = np.random.default_rng(width)
    constants = {
        "two": np.array(2, np.float32),
        "one": np.array(1, np.float32),
        "epsilon": np.array(1e-6, np.float32),
        "gain": rng.standard_normal(width).astype(np.float32),
        "w": rng.standard_normal((width, 12)).astype(np.float32),
        "axes": np.array([-1]),
    }
    mean = (
        node("ReduceMean", ["squares"], ["mean"], axes=[-1])
        if opset < 18
        else node("ReduceMean", ["squares", "axes"], ["mean"])
    )
    nodes = [
        node("Pow", ["x", "two"], ["squares"]),
        mean,
        node("Add", ["mean", "epsilon"], ["sum"]),
        node("Sqrt", ["sum"], ["r"]),
        *FORMS[form],
        node("Mul", ["gain", "n"], ["h"]),
        node("MatMul", ["h", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 12])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


@pytest.mark.parametrize(("width", "opset"), [(7, 17), (64, 17), (33, 18)])
@pytest.mark.parametrize("form", FORMS)
def test_root_mean_square(
    fewbits: Fewbits, tmp_path: Path, form: str, width: int, opset: int
) -> None:
    model, data, out = (tmp_path / name for name in ("m.onnx", "rows.npz", "answer.npz"))
    save_norm(model, form, width, opset)
    rows = {"x": np.random.default_rng(3).standard_normal((9, 5, width)).astype(np.float32)}
    np.savez(data, **rows)
    steps = fewbits("inspect", model, "--runtime", "--json").assert_done().json()["steps"]
    assert "RMSNormalization" in {step["what"] for step in steps}
    quantized = tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", quantized, "--recipe", "weights").assert_done()
    for path in (model, quantized):
        fewbits("run", path, "--data", data, "-o", out, "--force").assert_done()
        wanted = meaning(onnx.load(path), rows, ["y"])[0]
        np.testing.assert_allclose(np.load(out)["y"], wanted, atol=1e-5 * np.abs(wanted).max())
