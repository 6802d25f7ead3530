"""Which rows of data a call takes: by number, whole, along another axis than the first, or one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Fewbits
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, NDArray[Any]]

RANDOM = np.random.default_rng(7)


def value(name: str, dims: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def floats(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
) -> Path:
    graph = helper.make_graph(nodes, "rows", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def expected(model: Path, feeds: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def answers(fewbits: Fewbits, model: Path, feeds: Arrays, *options: object) -> Arrays:
    data, out = model.with_suffix(".npz"), model.with_suffix(".answers.npz")
    np.savez(data, **feeds)  # type: ignore[arg-type]
    fewbits("run", model, "--data", data, "-o", out, "--force", *options).assert_done()
    with np.load(out) as given:
        return {name: given[name] for name in given.files}


def assert_same(given: Arrays, wanted: Arrays) -> None:
    assert list(given) == list(wanted)
    for name, array in wanted.items():
        assert given[name].dtype == array.dtype
        np.testing.assert_allclose(given[name], array, 1e-4, 1e-5, err_msg=name)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_whole_arrays_are_one_call(fewbits: Fewbits, tmp_path: Path) -> None:
    model = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("MatMul", ["a", "b"], ["product"]),
            helper.make_node("Mul", ["product", "scale"], ["y"]),
            helper.make_node("ReduceSum", ["empty"], ["none"], keepdims=0),
            helper.make_node("Identity", ["flag"], ["same"]),
        ],
        [
            value("a", [2, None]),
            value("b", [None, 5]),
            value("scale", []),
            value("empty", [None]),
            value("flag", [3], TensorProto.BOOL),
        ],
        [
            value("y", [2, 5]),
            value("none", []),
            value("same", [3], TensorProto.BOOL),
        ],
        [],
    )
    feeds = {
        "a": normal(2, 3),
        "b": normal(3, 5),
        "scale": np.float32(3).reshape(()),
        "empty": normal(0),
        "flag": np.array([True, False, True]),
    }
    assert_same(answers(fewbits, model, feeds, "--batch", "whole"), expected(model, feeds))


def test_a_batch_has_the_size_that_is_asked_for(fewbits: Fewbits, tmp_path: Path) -> None:
    model = save(
        tmp_path / "model.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", 4])],
        [value("y", ["n", 3])],
        [floats("w", 4, 3)],
    )
    feeds = {"x": normal(10, 4)}
    for batch in ("1", "3", "10", "99", "whole"):
        assert_same(answers(fewbits, model, feeds, "--batch", batch), expected(model, feeds))
    for batch in ("0", "-1", "half"):
        out = tmp_path / "out.npz"
        fewbits(
            "run", model, "--data", model.with_suffix(".npz"), "-o", out, f"--batch={batch}"
        ).assert_refused(2)
