"""Models of halves and doubles: what is written is valid, and is quantized all the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import default_session, meaning, sqnr_db
from models import FIXTURES
from onnx import TensorProto, helper, numpy_helper

REPORTS = FIXTURES / "reports"
INVALID, HALF_DOUBLE = REPORTS / "fp16_invalid_file", REPORTS / "half_double_activations"
FROM_REPORTS = [
    (INVALID / "matmul.onnx", INVALID / "matmul.npz"),
    (INVALID / "conv.onnx", INVALID / "conv.npz"),
    (HALF_DOUBLE / "model.onnx", HALF_DOUBLE / "data.npz"),
    (HALF_DOUBLE / "f64-model.onnx", HALF_DOUBLE / "f64-data.npz"),
]
RECIPES = ["weights", "dynamic", "static", "auto"]
NUMPY = {TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}


def constant(name: str, values: np.ndarray, kind: int) -> TensorProto:
    if kind == TensorProto.BFLOAT16:
        # The upper half of a float.
        bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return helper.make_tensor(name, kind, values.shape, bits.tobytes(), raw=True)
    return numpy_helper.from_array(values.astype(NUMPY[kind]), name)


def write(path: Path, kind: int, opset: int, form: str) -> np.ndarray:
    """A model that computes in another type of floats, and its rows."""
    rng = np.random.default_rng(3)
    t = lambda name, *shape: constant(name, rng.normal(size=shape) / shape[-1] ** 0.5, kind)
    cast = lambda a, b, to: helper.make_node("Cast", [a], [b], to=to)
    if form == "perceptron":
        weights = [t("w", 64, 48), t("b", 48), t("v", 48, 32), t("c", 32), t("u", 32, 16)]
        nodes = [
            cast("x", "h", kind),
            helper.make_node("Gemm", ["h", "w", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Gemm", ["r", "v", "c"], ["d"]),
            helper.make_node("Tanh", ["d"], ["e"]),
            helper.make_node("MatMul", ["e", "u"], ["z"]),
            helper.make_node("Softmax", ["z"], ["p"]),
            cast("p", "y", TensorProto.FLOAT),
        ]
        shape, y = [64], [16]
    else:
        weights = [t("w", 16, 8, 3, 3), t("b", 16), t("v", 16, 16, 3, 3), t("c", 16), t("u", 16, 10)]
        nodes = [
            cast("x", "h", kind),
            helper.make_node("Conv", ["h", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Conv", ["r", "v", "c"], ["s"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["r", "s"], ["d"]),
            helper.make_node("Relu", ["d"], ["e"]),
            helper.make_node("GlobalAveragePool", ["e"], ["f"]),
            helper.make_node("Flatten", ["f"], ["g"]),
            helper.make_node("MatMul", ["g", "u"], ["z"]),
            cast("z", "y", TensorProto.FLOAT),
        ]
        shape, y = [8, 9, 9], [10]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", *y])],
        weights,
    )
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return rng.normal(size=[64, *shape]).astype(np.float32)


def assert_valid(path: Path) -> None:
    model = onnx.load(path)
    for value in [*model.graph.input, *model.graph.output]:
        # The checker asks for a shape that some of these models never had.
        value.type.tensor_type.shape.SetInParent()
        if value.type.tensor_type.shape.dim or value.name == "x":
            continue
        value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
        value.CopyFrom(next(other for other in inferred if other.name == value.name))
    onnx.checker.check_model(model, full_check=True)


def check(fewbits: Fewbits, source: Path, data: Path, out: Path, recipe: str, least: float) -> None:
    command = ["quantize", source, "-o", out, "--recipe", recipe, "--json", "--calibrate", data]
    report = fewbits(*command).assert_done().json()
    assert report["quantized"] > 0
    assert not [kept for kept in report["kept_float"] if "no values" in kept["why"]]
    assert_valid(out)
    x = np.load(data)["x"]
    expected, meant = meaning(source, x)[0], meaning(out, x)[0]
    assert sqnr_db(expected, meant) >= least
    assert sqnr_db(meant, default_session(out).run(None, {"x": x})[0]) >= 50
    # Ours computes it, too.
    answers = out.with_suffix(".npz")
    fewbits("run", out, "--data", data, "-o", answers, "--force").assert_done()
    ours = np.load(answers)
    assert sqnr_db(expected, ours[ours.files[0]]) >= least - 3
    ops = {node.op_type for node in onnx.load(source).graph.node}
    # Convolutions are not quantized as they come.
    if recipe == "static" or (recipe == "dynamic" and ops & {"Gemm", "MatMul"}):
        ops = {node.op_type for node in onnx.load(out).graph.node}
        assert ops & {"DynamicQuantizeLinear", "QuantizeLinear"} or report["notes"], report


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("source", "data"), FROM_REPORTS, ids=lambda p: p.stem)
def test_models_of_reports(
    fewbits: Fewbits, tmp_path: Path, source: Path, data: Path, recipe: str
) -> None:
    check(fewbits, source, data, tmp_path / "q.onnx", recipe, 30)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("form", ["perceptron", "convolutions"])
@pytest.mark.parametrize(
    ("kind", "opset"),
    [(TensorProto.FLOAT16, 17), (TensorProto.FLOAT16, 21), (TensorProto.DOUBLE, 17)],
    ids=["half", "half-21", "double"],
)
def test_every_recipe(
    fewbits: Fewbits, tmp_path: Path, kind: int, opset: int, form: str, recipe: str
) -> None:
    if kind == TensorProto.DOUBLE and form == "convolutions":
        pytest.skip("onnxruntime has no Conv of doubles")
    source, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    np.savez(data, x=write(source, kind, opset, form))
    check(fewbits, source, data, tmp_path / "q.onnx", recipe, 28)


@pytest.mark.parametrize("recipe", RECIPES)
def test_brain_floats_become_a_valid_file(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    """onnxruntime computes little of them on a CPU: what it refuses of the source it may refuse here."""
    source, data, out = tmp_path / "m.onnx", tmp_path / "x.npz", tmp_path / "q.onnx"
    np.savez(data, x=write(source, TensorProto.BFLOAT16, 17, "perceptron"))
    command = ["quantize", source, "-o", out, "--recipe", recipe, "--calibrate", data]
    fewbits(*command).assert_done()
    assert_valid(out)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_last_product_of_doubles(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    rng = np.random.default_rng(4)
    w, v = rng.normal(size=(64, 48)) / 8, rng.normal(size=(48, 24)) / 7
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["t"]),
        helper.make_node("Cast", ["t"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 64])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["b", 24])],
        [numpy_helper.from_array(w.astype(np.float32), "w"), numpy_helper.from_array(v, "v")],
    )
    source, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), source)
    np.savez(data, x=rng.normal(size=(64, 64)).astype(np.float32))
    check(fewbits, source, data, tmp_path / "q.onnx", recipe, 28)


@pytest.mark.parametrize("recipe", ["weights", "dynamic", "static"])
def test_declared_initializers(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    """Some exporters declare the types of initializers as of values: those of integers are others."""
    rng = np.random.default_rng(5)
    floats = lambda name, *shape: numpy_helper.from_array(
        rng.normal(size=shape).astype(np.float32), name
    )
    weights = [floats("table", 200, 32), floats("w", 32, 48), floats("v", 48, 16)]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "x"], ["e"]),
            helper.make_node("MatMul", ["e", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["b", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 6, 16])],
        weights,
        value_info=[helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights],
    )
    source, data, out = tmp_path / "m.onnx", tmp_path / "x.npz", tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    np.savez(data, x=rng.integers(0, 200, (64, 6)))
    check(fewbits, source, data, out, recipe, 28)
    stored = {t.name: t.data_type for t in onnx.load(out).graph.initializer}
    assert stored["table"] == TensorProto.INT8


MOST = 2**31 - 1
# Nodes, constants, rows, and whether they are refused: numpy's and onnxruntime's answers are the same.
LONG: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], np.ndarray, bool]] = {
    "Cast": (
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
        {},
        np.array([[3e9, -5.7, 1e12, -2.5e15]], np.float32),
        False,
    ),
    "Cast of halves": (
        [
            helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["h"], ["i"], to=TensorProto.INT64),
            helper.make_node("Mul", ["i", "i"], ["y"]),
        ],
        {},
        np.array([[60000, -7.5]], np.float32),
        False,
    ),
    "CumSum": (
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        {"axis": np.array(1)},
        np.array([[MOST, 5, MOST, -7], [1, 2, 3, 4]]),
        False,
    ),
    "CumSum from the last": (
        [helper.make_node("CumSum", ["x", "axis"], ["y"], reverse=1, exclusive=1)],
        {"axis": np.array(-2)},
        np.array([[[MOST, 5], [MOST, -7], [1, 2]]]),
        False,
    ),
    "ReduceSum": (
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        {"axes": np.array([-1, 1])},
        np.array([[[MOST, 5, 1], [MOST, 3, 2]], [[1, 2, 3], [4, 5, 6]]]),
        False,
    ),
    "ReduceSum in the middle": (
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"])],
        {"axes": np.array([1])},
        np.array([[[MOST, 5, 1], [MOST, 3, 2]], [[1, 2, 3], [4, 5, 6]]]),
        False,
    ),
    "Pow": (
        [helper.make_node("Pow", ["x", "three"], ["y"])],
        {"three": np.array(3)},
        np.array([[3000, -2000, 0]]),
        False,
    ),
    "ReduceProd": (
        [helper.make_node("ReduceProd", ["x", "axes"], ["y"])],
        {"axes": np.array([1])},
        np.array([[MOST, MOST]]),
        True,
    ),
}


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    rows: np.ndarray,
    output: int,
    opset: int,
) -> onnx.ModelProto:
    """Nodes from `x`, which takes the rows, to `y`."""
    kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", kind, [None, *rows.shape[1:]])],
        [value("y", output, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def assert_answers(
    fewbits: Fewbits, folder: Path, model: onnx.ModelProto, rows: np.ndarray, lacks: str | None
) -> None:
    """The answer is exactly what the model means, or the refusal says what the executor lacks."""
    path, data, out = folder / "model.onnx", folder / "rows.npz", folder / "answer.npz"
    onnx.save(model, path)
    np.savez(data, x=rows)
    done = fewbits("run", path, "--data", data, "-o", out, "--batch", "whole")
    if lacks:
        done.assert_refused(1)
        assert lacks in done.err
        return
    done.assert_done()
    wanted = meaning(model, {"x": rows}, ["y"])[0]
    given = np.load(out)["y"]
    assert given.dtype == wanted.dtype and given.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", LONG)
def test_integers_beyond_32_bits(fewbits: Fewbits, tmp_path: Path, name: str) -> None:
    nodes, constants, rows, refused = LONG[name]
    model = model_of(nodes, constants, rows, TensorProto.INT64, 18)
    assert_answers(fewbits, tmp_path, model, rows, "64-bit integers" if refused else None)
    if not refused:
        assert np.abs(meaning(model, {"x": rows}, ["y"])[0]).max() > MOST


def branch(name: str, op: str, **attributes: int) -> onnx.GraphProto:
    nodes = [
        helper.make_node(op, ["x"], [f"{name}_inner"], **attributes),
        helper.make_node("Cast", [f"{name}_inner"], [name], to=TensorProto.FLOAT),
    ]
    given = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [given])


def branches() -> list[onnx.NodeProto]:
    """A Cast to bool inside an If, or a Sign, as the limit says."""
    node = helper.make_node
    inner = {
        "then_branch": branch("then", "Cast", to=TensorProto.BOOL),
        "else_branch": branch("else", "Sign"),
    }
    return [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Cast", ["most"], ["most_single"], to=TensorProto.FLOAT),
        node("Greater", ["most_single", "limit"], ["large"]),
        node("If", ["large"], ["y"], **inner),
    ]


def state_of_loop() -> list[onnx.NodeProto]:
    """The Sign of a state whose type follows from what is fed."""
    node, value = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["goes"]), node("Identity", ["state"], ["next"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            onnx.ValueInfoProto(name="state"),
        ],
        [value("goes", TensorProto.BOOL, []), onnx.ValueInfoProto(name="next")],
    )
    loop = node("Loop", ["count", "", "x"], ["last"], body=body)
    return [loop, node("Sign", ["last"], ["y"])]


TYPED_ROWS = {
    TensorProto.FLOAT: np.array([[0.4, -0.3, 0.0, 2.0]], np.float32),
    TensorProto.FLOAT16: np.array([[0.4, -0.3, 0.0, 2.0]], np.float16),
    TensorProto.DOUBLE: np.array([[0.4, -0.3, 0.0, 2.0]]),
    TensorProto.INT64: np.array([[4, -3, 0, 2]]),
    TensorProto.INT32: np.array([[4, -3, 0, 2]], np.int32),
    TensorProto.UINT8: np.array([[4, 3, 0, 2]], np.uint8),
}


@pytest.mark.parametrize("limit", [-100.0, 100.0])
@pytest.mark.parametrize("form", ["bool", "sign", "branches", "state"])
@pytest.mark.parametrize("kind", TYPED_ROWS)
def test_zero_and_its_neighbours(
    fewbits: Fewbits, tmp_path: Path, kind: int, form: str, limit: float
) -> None:
    """Cast to bool and Sign, of every type and in every place, are those of ONNX."""
    rows, node = TYPED_ROWS[kind], helper.make_node
    nodes, output = {
        "bool": ([node("Cast", ["x"], ["y"], to=TensorProto.BOOL)], TensorProto.BOOL),
        "sign": ([node("Sign", ["x"], ["y"])], kind),
        "branches": (branches(), TensorProto.FLOAT),
        "state": (state_of_loop(), kind),
    }[form]
    constants = {"limit": np.array(limit, np.float32), "count": np.array(2)}
    model = model_of(nodes, constants, rows, output, 17)
    lacks = "is a Sign" if kind == TensorProto.UINT8 and form != "bool" else None
    assert_answers(fewbits, tmp_path, model, rows, lacks)
