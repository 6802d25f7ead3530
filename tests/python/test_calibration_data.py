"""Calibration data that is wrong, and models that can be calibrated in part or not at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits, Outcome
from models import FIXTURES, assert_standard, folder_bytes, open_session
from onnx import TensorProto, helper, numpy_helper

CNN = FIXTURES / "digits_cnn"
ACME = "com.acme"


def images() -> np.ndarray:
    return np.load(CNN / "calib.npz")["input"][:20].astype(np.float32)


def spoiled(value: float) -> np.ndarray:
    rows = images()
    rows[7, 0, 3, 3] = value
    return rows


WRONG_DATA = {
    "NaN": (dict(input=spoiled(np.nan)), "NaN"),
    "infinite": (dict(input=spoiled(-np.inf)), "infinit"),
    "overflows inside": (dict(input=np.full_like(images(), 3e38)), "infinite"),
    "too few pixels": (dict(input=images()[:, :, :5, :5]), "shape"),
    "channels last": (dict(input=np.zeros((4, 8, 8, 3), np.float32)), "shape"),
    "flat": (dict(input=images().reshape(20, -1)), "shape"),
    "strings": (dict(input=np.full((4, 1, 8, 8), "7")), "input"),
    "no rows": (dict(input=images()[:0]), "no data"),
    "no array of that name": (dict(a=images(), b=images()), "input"),
}


@pytest.mark.parametrize(("arrays", "says"), WRONG_DATA.values(), ids=WRONG_DATA.keys())
def test_wrong_data_is_refused(
    fewbits: Fewbits, tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "calib.npz", **arrays)
    before = folder_bytes(tmp_path)
    command = ["quantize", CNN / "model.onnx", "-o", "q.onnx", "--recipe", "static"]
    command += ["--calibrate", "calib.npz", "--save-plan", "plan.json"]
    result = fewbits(*command, cwd=tmp_path)
    result.assert_refused(1)
    assert says.lower() in result.err.lower(), result.err
    assert "calib.npz" in result.err
    assert folder_bytes(tmp_path) == before


NOT_FINITE = ["NaN", "infinite", "overflows inside"]


@pytest.mark.parametrize("recipe", ["weights", "dynamic"])
@pytest.mark.parametrize("wrong", NOT_FINITE)
def test_what_is_not_finite_is_refused_by_every_recipe(
    fewbits: Fewbits, tmp_path: Path, recipe: str, wrong: str
) -> None:
    arrays, says = WRONG_DATA[wrong]
    np.savez(tmp_path / "calib.npz", **arrays)
    command = ["quantize", CNN / "model.onnx", "-o", "q.onnx", "--recipe", recipe]
    result = fewbits(*command, "--calibrate", "calib.npz", cwd=tmp_path)
    result.assert_refused(1)
    assert says.lower() in result.err.lower() and "'" in result.err, result.err
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("recipe", ["weights", "dynamic", "static"])
@pytest.mark.parametrize("token", [False, True], ids=["padding", "token"])
def test_only_what_is_not_padding_must_be_finite(
    fewbits: Fewbits, tmp_path: Path, recipe: str, token: bool
) -> None:
    """Rows divided by the mask: NaN or infinite at every padded position, and perhaps at a token."""
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["column"]),
        helper.make_node("Div", ["x", "column"], ["divided"]),
        helper.make_node("MatMul", ["divided", "w"], ["y"]),
    ]
    takes = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "s", 8]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "s"]),
    ]
    gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "s", 8])]
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    graph = helper.make_graph(nodes, "g", takes, gives, [weight("w", 8, 8), last])
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), model)
    x = np.random.default_rng(3).normal(size=(6, 4, 8)).astype(np.float32)
    mask = np.ones((6, 4), np.int64)
    mask[2, 3:] = mask[4, 1:] = 0
    x[4, 0] *= np.nan if token else 1
    np.savez(tmp_path / "calib.npz", x=x, attention_mask=mask)
    command = ["quantize", model, "-o", "q.onnx", "--recipe", recipe]
    result = fewbits(*command, "--calibrate", "calib.npz", cwd=tmp_path)
    if token:
        result.assert_refused(1)
        assert "divided" in result.err
    else:
        result.assert_done()


# Small models, made here because what is wrong with them is the point.


def weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    values = np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    shape: Sequence[int | str] = ("n", 4, 6, 6),
    opset: int = 17,
) -> Path:
    free = [f"y{i}" for i, _ in enumerate(shape)]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, free)
    graph = helper.make_graph(nodes, "g", [takes], [gives], weights)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(ACME, 1)]
    used = {node.domain for node in nodes}
    imports = [i for i in imports if i.domain in used | {""}]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def quantize(
    fewbits: Fewbits, model: Path, out: Path, *options: object, rows: np.ndarray | None = None
) -> Outcome:
    """Quantizes with the recipe `static` unless another is given, on random rows likewise."""
    if rows is None:
        rows = rows_like(model)
    calib = model.with_suffix(".npz")
    np.savez(calib, x=rows)
    recipe = [] if "--recipe" in options else ["--recipe", "static"]
    command = ["quantize", model, "-o", out, *recipe, "--calibrate", calib, "--json"]
    return fewbits(*command, *options)


def rows_like(model: Path, seed: int = 1) -> np.ndarray:
    dims = onnx.load(model).graph.input[0].type.tensor_type.shape.dim
    shape = [32, *(d.dim_value for d in dims[1:])]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(model: Path, out: Path, rows: np.ndarray, tolerance: float = 0.05) -> None:
    """What ONNX Runtime computes of the saved file differs by at most a part of the range."""
    before, after = (open_session(path).run(None, {"x": rows})[0] for path in (model, out))
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() <= tolerance * max(np.abs(before).max(), 1e-30)


def conv(name: str, source: str, output: str, **attributes: object) -> onnx.NodeProto:
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    inputs = [source, name, f"{name}_b"]
    return helper.make_node("Conv", inputs, [output], name=name, **pads, **attributes)


def conv_weights(name: str, seed: int, channels: int = 4) -> list[onnx.TensorProto]:
    return [weight(name, 4, channels, 3, 3, seed=seed), weight(f"{name}_b", 4, seed=seed + 100)]


def chain(path: Path, middle: onnx.NodeProto) -> Path:
    """Convolutions, the node from `a` to `b`, and convolutions again."""
    nodes = [
        conv("first", "x", "f"),
        helper.make_node("Relu", ["f"], ["r"]),
        conv("second", "r", "a"),
        middle,
        conv("third", "b", "t"),
        helper.make_node("Relu", ["t"], ["u"]),
        conv("last", "u", "y"),
    ]
    names = ("first", "second", "third", "last")
    return save(path, nodes, [w for i, n in enumerate(names) for w in conv_weights(n, i)])


def kept_float(result: Outcome) -> dict[str, str]:
    return {entry["tensor"]: entry["why"] for entry in result.json()["kept_float"]}


def warnings(result: Outcome, about: str) -> list[str]:
    lines = [line for line in result.err.splitlines() if line.startswith("warning:")]
    found = [line for line in lines if about in line]
    # All are in the report, too.
    assert {line.removeprefix("warning: ") for line in lines} <= set(result.json()["notes"])
    return found


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def replaced(path: Path, by: str) -> Path:
    """A copy in which operators of a domain of its own are standard ones, so that it runs."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.domain == ACME:
            node.op_type, node.domain = by, ""
    out = path.with_name(f"standard_{path.name}")
    onnx.save(model, out)
    return out


class TestUnknownOperator:
    def test_in_the_middle(self, fewbits: Fewbits, tmp_path: Path) -> None:
        magic = helper.make_node("Magic", ["a"], ["b"], name="foo", domain=ACME)
        model, out = chain(tmp_path / "m.onnx", magic), tmp_path / "q.onnx"
        result = quantize(fewbits, model, out).assert_done()
        # What lies before it has scales, what lies behind it none, weights are integers anyway.
        kept = kept_float(result)
        assert {"b", "u"} <= set(kept), kept
        assert kept["b"] == (
            "it lies behind 'foo' (com.acme.Magic), which the executor lacks: "
            "no calibration data reaches it"
        )
        assert not {"x", "r", "a"} & set(kept), kept
        assert result.json()["quantized"] == 4
        [warning] = warnings(result, "the executor lacks")
        assert "com.acme.Magic" in warning and "foo" in warning
        # The others say that nothing could be tried or measured on the data.
        assert len(result.err.splitlines()) == 3
        assert ops(out).count("QuantizeLinear") == 3
        assert_close(replaced(model, "Tanh"), replaced(out, "Tanh"), rows_like(model))

    @pytest.mark.parametrize("op", ["GlobalLpPool"])
    def test_a_standard_one(self, fewbits: Fewbits, tmp_path: Path, op: str) -> None:
        node = helper.make_node(op, ["a"], ["b"])
        model, out = chain(tmp_path / "m.onnx", node), tmp_path / "q.onnx"
        result = quantize(fewbits, model, out).assert_done()
        assert f"'b' ({op})" in kept_float(result)["u"]
        assert_standard(out)
        assert_close(model, out, rows_like(model))

    def test_in_a_subgraph(self, fewbits: Fewbits, tmp_path: Path) -> None:
        def branch(op: str, output: str) -> onnx.GraphProto:
            value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
            return helper.make_graph([helper.make_node(op, ["a"], [output])], op, [], [value])

        branches = {"then_branch": branch("Celu", "then"), "else_branch": branch("Neg", "else")}
        node = helper.make_node("If", ["flag"], ["b"], name="either", **branches)
        model, out = chain(tmp_path / "m.onnx", node), tmp_path / "q.onnx"
        proto = onnx.load(model)
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
        onnx.save(proto, model)
        result = quantize(fewbits, model, out).assert_done()
        assert "'either' (Celu inside If)" in kept_float(result)["u"]
        assert len(warnings(result, "the executor lacks")) == 1
        assert len(warnings(result, "nothing was tried on the data")) == 1
        assert_close(model, out, rows_like(model))

    def test_an_unlowered_classical_one(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """A tree on top of a network: everything below it is quantized."""
        tree = helper.make_node(
            "TreeEnsembleRegressor",
            ["h"],
            ["y"],
            name="tree",
            domain="ai.onnx.ml",
            n_targets=1,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0],
            nodes_values=[0.0, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            target_treeids=[0, 0],
            target_nodeids=[1, 2],
            target_ids=[0, 0],
            target_weights=[1.0, 2.0],
        )
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), tree]
        model = save(tmp_path / "m.onnx", nodes, [weight("w", 64, 8)], shape=("n", 64))
        proto = onnx.load(model)
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        onnx.save(proto, model)
        out = tmp_path / "q.onnx"
        result = quantize(fewbits, model, out).assert_done()
        assert ops(out).count("QuantizeLinear") == 1
        [warning] = warnings(result, "the executor lacks")
        assert "ai.onnx.ml.TreeEnsembleRegressor" in warning
        assert_standard(out)
        rows = rows_like(model)
        before, after = (open_session(path).run(None, {"x": rows})[0] for path in (model, out))
        assert np.mean(before == after) > 0.9

    def test_beside_what_can_be_calibrated(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """Values that share a scale by a Concat, only one of which is reached."""
        nodes = [
            conv("first", "x", "f"),
            helper.make_node("Magic", ["f"], ["m"], name="foo", domain=ACME),
            conv("second", "m", "s"),
            conv("third", "f", "t"),
            helper.make_node("Concat", ["s", "t"], ["c"], axis=1),
            conv("last", "c", "y"),
        ]
        names = ("first", "second", "third")
        weights = [w for i, name in enumerate(names) for w in conv_weights(name, i)]
        model = save(tmp_path / "m.onnx", nodes, [*weights, *conv_weights("last", 9, 8)])
        out = tmp_path / "q.onnx"
        kept = kept_float(quantize(fewbits, model, out).assert_done())
        assert {"m", "s", "c"} <= set(kept) and "t" not in kept, kept
        assert_close(replaced(model, "Neg"), replaced(out, "Neg"), rows_like(model))

    @pytest.mark.parametrize("op", ["Magic", "GlobalLpPool"])
    def test_before_everything(self, fewbits: Fewbits, tmp_path: Path, op: str) -> None:
        domain = ACME if op == "Magic" else ""
        nodes = [
            helper.make_node(op, ["x"], ["m"], name="foo", domain=domain),
            conv("first", "m", "f"),
            conv("last", "f", "y"),
        ]
        weights = [*conv_weights("first", 0), *conv_weights("last", 1)]
        model = save(tmp_path / "m.onnx", nodes, weights)
        np.savez(tmp_path / "calib.npz", x=rows_like(model))
        before = folder_bytes(tmp_path)
        command = ["quantize", model, "-o", tmp_path / "q.onnx", "--recipe"]
        result = fewbits(*command, "static", "--calibrate", tmp_path / "calib.npz")
        result.assert_refused(1)
        assert op in result.err and "foo" in result.err and "m.onnx" in result.err
        assert "--recipe weights" in result.err and "dynamic" in result.err
        assert folder_bytes(tmp_path) == before
        # The way out.
        for recipe in ("weights", "dynamic"):
            fewbits(*command, recipe, "--force").assert_done()

    def test_one_that_fails_on_the_data(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """The executor has Pad, but mirrors no channels, and finds out when it runs."""
        pads = numpy_helper.from_array(np.array([0, 1, 0, 0, 0, 1, 0, 0]), "pads")
        nodes = [
            helper.make_node("Pad", ["x", "pads"], ["a"], mode="reflect"),
            helper.make_node("Conv", ["a", "w"], ["y"]),
        ]
        model = save(tmp_path / "m.onnx", nodes, [weight("w", 8, 6, 3, 3), pads], ("n", 4, 6, 6))
        result = quantize(fewbits, model, tmp_path / "q.onnx")
        result.assert_refused(1)
        assert "m.npz" in result.err and "--recipe weights" in result.err
        assert not (tmp_path / "q.onnx").exists()

    def test_one_that_is_known_to_be_lacking(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """The executor lacks the operator: what lies before it is calibrated."""
        size = numpy_helper.from_array(np.array([4, 4]), "size")
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("CenterCropPad", ["c", "size"], ["a"], axes=[2, 3]),
            helper.make_node("Relu", ["a"], ["y"]),
        ]
        weights = [weight("w", 8, 4, 3, 3), size]
        model = save(tmp_path / "m.onnx", nodes, weights, ("n", 4, 6, 6))
        result = quantize(fewbits, model, tmp_path / "q.onnx").assert_done()
        assert "the executor lacks CenterCropPad (node 'a')" in result.err

    def test_compare_and_run_name_it(self, fewbits: Fewbits, tmp_path: Path) -> None:
        magic = helper.make_node("Magic", ["a"], ["b"], name="foo", domain=ACME)
        model = chain(tmp_path / "m.onnx", magic)
        np.savez(tmp_path / "rows.npz", x=rows_like(model), y=np.zeros(32))
        before = folder_bytes(tmp_path)
        for command in (["compare", model, model], ["run", model, "-o", tmp_path / "out.npz"]):
            result = fewbits(*command, "--data", tmp_path / "rows.npz")
            result.assert_refused(1)
            assert "Magic" in result.err and "foo" in result.err
        assert folder_bytes(tmp_path) == before


class TestOldOpset:
    """A model that cannot be brought to the opset of the forms that are written."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        norm = [f"norm{i}" for i in range(4)]
        # Parameters for every position: no later opset has that.
        node = helper.make_node("BatchNormalization", ["h", *norm], ["y"], name="old", spatial=0)
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), node]
        ones = [numpy_helper.from_array(np.ones(32, np.float32), name) for name in norm]
        weights = [weight("w", 64, 32), *ones]
        return save(tmp_path / "m.onnx", nodes, weights, shape=("n", 64), opset=8)

    @pytest.mark.parametrize("recipe", ["weights", "dynamic", "static"])
    def test_quantize_says_so(
        self, fewbits: Fewbits, tmp_path: Path, model: Path, recipe: str
    ) -> None:
        out = tmp_path / "q.onnx"
        result = quantize(fewbits, model, out, "--recipe", recipe).assert_done()
        note, *rest = result.json()["notes"]
        assert all("opset 8" not in other for other in rest)
        assert "opset 8" in note and "'old'" in note and "spatial" in note
        assert f"note: {note}" in result.err.splitlines()
        assert result.json()["quantized"] == 1
        # Only operators that opset 8 has.
        assert set(ops(out)) == {"Cast", "Mul", "MatMul", "BatchNormalization"}
        if recipe == "weights":
            assert not warnings(result, "stay float")
        else:
            [warning] = warnings(result, "stay float")
            assert "opset" in warning and "opset" in kept_float(result)["x"]

    def test_inspect_says_so(self, fewbits: Fewbits, model: Path) -> None:
        result = fewbits("inspect", model, "--json").assert_done()
        [note] = result.json()["notes"]
        assert "opset 8" in note
        assert fewbits("inspect", model).assert_done().err == f"note: {note}\n"


class TestDeadValues:
    def test_a_dead_channel(self, fewbits: Fewbits, tmp_path: Path) -> None:
        magic = helper.make_node("Relu", ["a"], ["b"])
        model, out = chain(tmp_path / "m.onnx", magic), tmp_path / "q.onnx"
        proto = onnx.load(model)
        for tensor in proto.graph.initializer:
            values = numpy_helper.to_array(tensor).copy()
            values[2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(proto, model)
        assert quantize(fewbits, model, out).assert_done().json()["quantized"] == 4
        rows = rows_like(model)
        assert_close(model, out, rows)
        assert (open_session(out).run(None, {"x": rows})[0][:, 2] == 0).all()

    @pytest.mark.parametrize("method", ["minmax", "percentile=99.9", "mse", "entropy"])
    def test_a_value_that_is_always_zero(
        self, fewbits: Fewbits, tmp_path: Path, method: str
    ) -> None:
        """Below zero always, the Relu gives nothing but zeros on the data."""
        dead = helper.make_node("Relu", ["a"], ["b"])
        model, out = chain(tmp_path / "m.onnx", dead), tmp_path / "q.onnx"
        proto = onnx.load(model)
        for tensor in proto.graph.initializer:
            if tensor.name == "second_b":
                tensor.CopyFrom(numpy_helper.from_array(np.full(4, -100, np.float32), tensor.name))
        onnx.save(proto, model)
        quantize(fewbits, model, out, "--range", method).assert_done()
        assert_close(model, out, rows_like(model))

    def test_data_of_zeros(self, fewbits: Fewbits, tmp_path: Path) -> None:
        model, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
        chain(model, helper.make_node("Relu", ["a"], ["b"]))
        rows = np.zeros_like(rows_like(model))
        quantize(fewbits, model, out, rows=rows).assert_done()
        assert_close(model, out, rows)


EXTREMES = {
    "largest": [3.4e38, -3.4e38, 1.0, 0.0],
    "large": [1e30, -1e29, 1e28, 0.0],
    "small": [1e-30, -1e-31, 3e-31, 0.0],
    "subnormal": [1e-40, -1e-41, 3e-41, 0.0],
    "smallest": [1.4e-45, -1.4e-45, 0.0, 0.0],
}


class TestExtremeScales:
    @pytest.mark.parametrize("scheme", ["symmetric", "affine"])
    @pytest.mark.parametrize("values", EXTREMES.values(), ids=EXTREMES.keys())
    @pytest.mark.parametrize("recipe", ["weights", "dynamic", "static"])
    def test_weights(
        self, fewbits: Fewbits, tmp_path: Path, recipe: str, values: list[float], scheme: str
    ) -> None:
        """A scale at either end of what a float holds: as good as the float model, or float."""
        w = np.tile(np.array(values, np.float32), 256).reshape(64, 16)
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
            helper.make_node("MatMul", ["h", "v"], ["y"]),
        ]
        # What the first product makes is brought back towards the size of its input.
        back = np.clip(1 / max(map(abs, values)), 1e-34, 1e34)
        v = (np.eye(16) * back).astype(np.float32)
        arrays = {"w": w, "b": np.zeros(16, np.float32), "v": v}
        tensors = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
        model = save(tmp_path / "m.onnx", nodes, tensors, shape=("n", 64))
        out = tmp_path / "q.onnx"
        # Sums of the largest weights must not overflow in float either.
        rows = rows_like(model) / 256
        options = ["--recipe", recipe, "--scheme", scheme, "--json"]
        np.savez(tmp_path / "calib.npz", x=rows)
        if recipe == "static":
            options += ["--calibrate", tmp_path / "calib.npz"]
        result = fewbits("quantize", model, "-o", out, *options).assert_done()
        scales = [
            numpy_helper.to_array(t)
            for t in onnx.load(out).graph.initializer
            if t.data_type == TensorProto.FLOAT and t.name != "v"
        ]
        assert all(np.isfinite(s).all() for s in scales)
        kept = kept_float(result)
        assert all(kept.values())
        before, after = (open_session(path).run(None, {"x": rows})[0] for path in (model, out))
        assert np.isfinite(after).all()
        assert np.abs(after - before).max() <= 0.05 * np.abs(before).max(), kept
        # What no scale can tell from zero says so.
        if max(values) < 1e-37:
            assert "subnormal" in kept["w"]
