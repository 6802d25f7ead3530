"""Which rows of data a call takes: by number, whole, along another axis than the first, or one by one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Fewbits
from models import FIXTURES
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
        "scale": np.array(3, np.float32),
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


REPORTS = FIXTURES / "reports"


def of_report(tmp_path: Path, name: str, model: str = "model.onnx") -> Path:
    return Path(shutil.copy(REPORTS / name / model, tmp_path))


@pytest.mark.parametrize("rows", [1, 100, 128, 192])
def test_outputs_are_joined_along_their_own_axis(
    fewbits: Fewbits, tmp_path: Path, rows: int
) -> None:
    model = of_report(tmp_path, "batch_axis_not_first")
    dims = onnxruntime.InferenceSession(model).get_inputs()[0].shape
    feeds = {"x": normal(rows, *dims[1:])}
    assert_same(answers(fewbits, model, feeds), expected(model, feeds))


@pytest.mark.parametrize("name", ["batch", ""])
def test_an_axis_as_long_as_a_batch_is_not_taken_for_it(
    fewbits: Fewbits, tmp_path: Path, name: str
) -> None:
    """64 steps in front of 128 rows: nothing but trying tells them apart where they have no names."""
    model = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
            helper.make_node("MatMul", ["turned", "w"], ["y"]),
        ],
        [value("x", [name or None, None, 4])],
        [value("y", [None, name or None, 3])],
        [floats("w", 4, 3)],
    )
    feeds = {"x": normal(128, 64, 4)}
    assert_same(answers(fewbits, model, feeds), expected(model, feeds))


def test_rows_that_depend_on_each_other_are_one_call(fewbits: Fewbits, tmp_path: Path) -> None:
    lstm = of_report(tmp_path, "rows-lstm-time-first")
    given = onnxruntime.InferenceSession(lstm).get_inputs()[0]
    feeds = {given.name: normal(200, *given.shape[1:])}
    assert_same(answers(fewbits, lstm, feeds), expected(lstm, feeds))

    centred = save(
        tmp_path / "centred.onnx",
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["centred"]),
            helper.make_node("MatMul", ["centred", "w"], ["y"]),
        ],
        [value("x", ["n", 8])],
        [value("y", ["n", 8])],
        [floats("w", 8, 8)],
    )
    feeds = {"x": normal(200, 8) + np.float32(1)}
    wanted = expected(centred, feeds)
    assert_same(answers(fewbits, centred, feeds), wanted)
    # Cut all the same by who asks for it.
    cut = answers(fewbits, centred, feeds, "--batch", "50")["y"]
    assert np.abs(cut - wanted["y"]).max() > 0.01

    # Other commands keep them together, too: the file is as near as its weights are.
    data, small = centred.with_suffix(".npz"), tmp_path / "small.onnx"
    for recipe in ("weights", "static"):
        fewbits(
            *("quantize", centred, "-o", small, "--recipe", recipe, "--force"),
            *("--calibrate", data),
        ).assert_done()
        metric = fewbits(
            *("compare", centred, small, "--data", data, "--metric", "agreement", "--json")
        )
        together = metric.assert_done().json()
        error = answers(fewbits, small, feeds)["y"] - wanted["y"]
        assert abs(together["max_abs_error"] - np.abs(error).max()) < 1e-5


@pytest.mark.parametrize(("limit", "small"), [(1e6, 0.05), (0.0, 0.0)])
def test_a_mean_over_the_batch_counts_however_small_it_is(
    fewbits: Fewbits, tmp_path: Path, limit: float, small: float
) -> None:
    """It changes the answer by a thousandth, or chooses what is computed, as most rows would not."""
    branch = lambda name, op: helper.make_graph(
        [helper.make_node(op, ["x"], [name])], name, [], [value(name, ["n", 6])]
    )
    model = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "limit"], ["large"]),
            helper.make_node(
                "If", ["large"], ["found"],
                then_branch=branch("then", "Exp"), else_branch=branch("else", "Abs"),
            ),
            helper.make_node("Mul", ["mean", "small"], ["less"]),
            helper.make_node("Add", ["found", "less"], ["y"]),
        ],
        [value("x", ["n", 6])],
        [value("y", ["n", 6])],
        [
            numpy_helper.from_array(np.array(limit, np.float32), "limit"),
            numpy_helper.from_array(np.array(small, np.float32), "small"),
        ],
    )  # fmt: skip
    feeds = {"x": normal(150, 6) - 5}
    # Of rows of the first part, into which 64 go.
    if small == 0:
        feeds["x"][61:63] = 1000
    assert_same(answers(fewbits, model, feeds), expected(model, feeds))


def test_states_are_cut_along_the_axis_that_is_called_as_the_batch(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    model = of_report(tmp_path, "scalar_and_state_inputs", "st_dyn-model.onnx")
    feeds = {"x": normal(100, 16), "h": normal(1, 100, 24)}
    wanted = expected(model, feeds)
    assert_same(answers(fewbits, model, feeds), wanted)
    # A state an example, the examples in front.
    turned = {"x": feeds["x"], "h": feeds["h"].transpose(1, 0, 2)}
    assert_same(answers(fewbits, model, turned), wanted)
    data, small = model.with_suffix(".npz"), tmp_path / "small.onnx"
    np.savez(data, **feeds)  # type: ignore[arg-type]
    quantize = ("quantize", model, "-o", small, "--recipe", "static", "--calibrate", data)
    fewbits(*quantize).assert_done()
    fewbits("compare", model, small, "--data", data, "--metric", "agreement").assert_done()


def test_a_model_of_one_row_takes_one_after_the_other(fewbits: Fewbits, tmp_path: Path) -> None:
    model = save(
        tmp_path / "step.onnx",
        [
            helper.make_node("Gemm", ["x", "w"], ["mixed"]),
            helper.make_node("Add", ["h", "mixed"], ["added"]),
            helper.make_node("Tanh", ["added"], ["next"]),
            helper.make_node("ReduceSum", ["mixed"], ["sum"], keepdims=0),
        ],
        [value("x", [1, 16]), value("h", [2, 1, 24])],
        [value("next", [2, 1, 24]), value("sum", [])],
        [floats("w", 16, 24)],
    )
    x, h = normal(70, 16), normal(70, 2, 1, 24)
    each = [expected(model, {"x": x[i : i + 1], "h": h[i]}) for i in range(70)]
    wanted = {
        "next": np.concatenate([one["next"] for one in each], axis=1),
        "sum": np.array([one["sum"] for one in each]),
    }
    assert_same(answers(fewbits, model, {"x": x, "h": h}), wanted)
    step = {"x": x[:1], "h": h[0]}
    assert_same(answers(fewbits, model, step, "--batch", "whole"), each[0])
    assert_same(answers(fewbits, model, {"x": x[:1], "h": h[0]}), each[0])
    data, small = model.with_suffix(".npz"), tmp_path / "small.onnx"
    np.savez(data, x=x, h=h)
    quantize = ("quantize", model, "-o", small, "--recipe", "static", "--calibrate", data)
    fewbits(*quantize).assert_done()
    fewbits("compare", model, small, "--data", data, "--metric", "agreement").assert_done()


def test_a_number_is_an_input_of_every_call(fewbits: Fewbits, tmp_path: Path) -> None:
    model = of_report(tmp_path, "scalar_and_state_inputs")
    x = normal(100, 32)
    wanted = expected(model, {"x": x, "sr": np.array(16000, np.int64)})
    assert_same(answers(fewbits, model, {"x": x}, "--input", "sr=16000"), wanted)
    # Or a number in the file, or one for each row.
    assert_same(answers(fewbits, model, {"x": x, "sr": np.array(16000, np.int64)}), wanted)
    assert_same(answers(fewbits, model, {"x": x, "sr": np.full(100, 16000)}), wanted)

    data, small = model.with_suffix(".npz"), tmp_path / "small.onnx"
    np.savez(data, x=x)
    rate = ("--input", "sr=16000")
    quantize = ("quantize", model, "-o", small, "--recipe", "static", "--calibrate", data, *rate)
    fewbits(*quantize).assert_done()
    metric = ("--metric", "agreement")
    fewbits("compare", model, small, "--data", data, *metric, *rate).assert_done()
    fewbits("compare", model, small, "--data", data, *metric).assert_refused(1)
    fewbits("run", model, "--data", data, "-o", tmp_path / "o.npz", "--input", "sr").assert_refused(2)
    out = ("-o", tmp_path / "o.npz", "--input")
    fewbits("run", model, "--data", data, *out, "rate=1").assert_refused(1)
    fewbits("run", model, "--data", data, *out, "sr=0.5").assert_refused(1)


def test_outputs_in_another_order_are_compared_row_by_row(fewbits: Fewbits, tmp_path: Path) -> None:
    """Labels are of rows, be they the second axis of the scores."""
    model = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("Transpose", ["scores"], ["y"], perm=[1, 0]),
        ],
        [value("x", ["n", 4])],
        [value("y", [1, "n"])],
        [floats("w", 4, 1)],
    )
    for rows in (40, 200):
        x = normal(rows, 4)
        y = expected(model, {"x": x})["y"].reshape(rows, 1)
        np.savez(model.with_suffix(".npz"), x=x, y=y)
        told = fewbits(
            *("compare", model, model, "--data", model.with_suffix(".npz"), "--metric", "mae"),
            "--json",
        )
        assert told.assert_done().json()["a"]["metric"] < 1e-5


@pytest.mark.parametrize("rows", [3, 100])
def test_halves_are_fed_and_answered(fewbits: Fewbits, tmp_path: Path, rows: int) -> None:
    model = of_report(tmp_path, "float16_input_data")
    given = onnxruntime.InferenceSession(model).get_inputs()[0]
    feeds = {given.name: normal(rows, *given.shape[1:]).astype(np.float16)}
    wanted, got = expected(model, feeds), answers(fewbits, model, feeds)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype == np.float16
        np.testing.assert_allclose(got[name], array, 2e-3, 2e-3)
    data, small = model.with_suffix(".npz"), tmp_path / "small.onnx"
    for recipe in ("weights", "dynamic", "static"):
        fewbits(
            *("quantize", model, "-o", small, "--recipe", recipe, "--calibrate", data, "--force"),
        ).assert_done()
        told = fewbits("compare", model, small, "--data", data, "--metric", "agreement", "--json")
        assert told.assert_done().json()["sqnr_db"] > 20
    fewbits("bench", model, "--seconds", "0.1").assert_done()
