"""Files compute what they mean on every CPU, also on those that add pairs of products in 16 bits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Fewbits
from meaning import default_session, meaning, sqnr_db
from models import FIXTURES
from nets import (
    VOCABULARY,
    Arrays,
    images,
    save,
    scale_channels,
    separable,
    separable_weights,
    transformer,
)
from onnx import helper, numpy_helper
from pairs import assert_no_pair_saturates, integers_of_products

REPORTED = FIXTURES / "reports" / "float_bias_made_int32_by_ort"

# Decibels between what a file means and what a session gives. Saturation leaves 5 to 30; rounding the other
# way where two orders of the same operations differ, 50 and more.
SAME = 50


def apart_db(path: Path, rows: Arrays) -> float:
    """How far a session with nothing set is from what the file means, of its worst output."""
    given = default_session(path).run(None, rows)
    return min(sqnr_db(e, g) for e, g in zip(meaning(path, rows), given, strict=True))


# Nets whose pairs saturate, with rows to calibrate on and to measure.


def rescaled(path: Path) -> Path:
    """Depth-wise layers whose channels differ a thousandfold."""
    weights = separable_weights()
    for name in ("stem", "point1"):
        count = len(weights[f"{name}_b"])
        scale_channels(weights, name, 10 ** np.random.default_rng(1).uniform(-1.5, 1.5, count))
    return separable(path, weights)


def dense(path: Path, operator: str, inputs: int) -> Path:
    """A perceptron of one sign, so that neighbours are large together."""
    rng = np.random.default_rng(2)
    weights: Arrays = {}
    nodes, value = [], "x"
    for layer, (k, n) in enumerate([(inputs, 33), (33, 24), (24, 10)]):
        w = np.abs(rng.normal(0.5, 0.2, (k, n))) * np.where(rng.random(n) < 0.5, -1, 1)
        name, b, out = f"w{layer}", f"b{layer}", f"s{layer}"
        transposed = operator == "transB"
        weights[name] = np.ascontiguousarray(w.T if transposed else w).astype(np.float32)
        weights[b] = rng.normal(0, 1, n).astype(np.float32)
        if operator == "MatMul":
            nodes.append(helper.make_node("MatMul", [value, name], [f"p{layer}"]))
            nodes.append(helper.make_node("Add", [f"p{layer}", b], [out]))
        else:
            node = helper.make_node("Gemm", [value, name, b], [out], transB=int(transposed))
            nodes.append(node)
        value = "y" if layer == 2 else f"r{layer}"
        last = helper.make_node("Tanh" if layer == 2 else "Relu", [out], [value])
        nodes.append(last)
    nodes.pop()
    nodes.append(helper.make_node("Identity", ["s2"], ["y"]))
    return save(path, nodes, weights, {"x": ("n", inputs)}, 2)


def coarse(path: Path, bias: tuple[int, ...]) -> Path:
    """Differences of neighbours that are nearly alike, and a bias of so few steps of the sums that rounding it
    is seen."""
    rng = np.random.default_rng(6)
    w = np.zeros((32, 64), np.float32)
    for column in range(64):
        at, value = 2 * rng.integers(16), rng.choice([-1, 1]) * rng.uniform(0.5, 1)
        w[at : at + 2, column] = value, -value
    weights = {
        "w": w,
        "b": (rng.normal(0, 0.4, 64)).astype(np.float32).reshape(bias),
        "v": rng.normal(0, 0.1, (64, 8)).astype(np.float32),
        "c": rng.normal(0, 0.1, 8).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["q"]),
        helper.make_node("Add", ["q", "c"], ["y"]),
    ]
    return save(path, nodes, weights, {"x": ("n", 32)}, 2)


def alike(seed: int) -> Arrays:
    """Rows whose neighbours are alike."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.uniform(0, 254, (200, 16)), 2, 1) + rng.uniform(0, 1.2, (200, 32))
    return {"x": np.round(x).astype(np.float32)}


def batched(path: Path) -> Path:
    """A product with a batch of matrices, each of them the same large weights."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(0.4, 0.2, (4, 31, 16)).astype(np.float32),
        "v": rng.normal(0.4, 0.2, (16, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    return save(path, nodes, weights, {"x": ("n", 4, 5, 31)}, 4)


def grouped(path: Path) -> Path:
    """Convolutions of an odd number of channels, in groups, and along one axis."""
    rng = np.random.default_rng(4)
    shapes = {"a": (12, 5, 3, 3), "b": (12, 3, 3, 3), "c": (10, 12, 2, 2)}
    weights = {n: rng.normal(0.3, 0.3, shape).astype(np.float32) for n, shape in shapes.items()}
    groups = {"a": 1, "b": 4, "c": 1}
    nodes, value = [], "x"
    for name, group in groups.items():
        nodes.append(helper.make_node("Conv", [value, name], [f"{name}_s"], group=group))
        value = f"{name}_r"
        nodes.append(helper.make_node("Relu", [f"{name}_s"], [value]))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    return save(path, nodes, weights, {"x": ("n", 5, 12, 12)}, 4)


def positive(shape: tuple[int, ...]) -> Callable[[int], Arrays]:
    """Rows that use all of 8 bits, mostly large."""

    def rows(seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {"x": (np.sqrt(rng.random((64, *shape))) * 3).astype(np.float32)}

    return rows


def tokens(seed: int) -> Arrays:
    return {"input_ids": np.random.default_rng(seed).integers(0, VOCABULARY, (24, 8))}


NETS: dict[str, tuple[Callable[[Path], Path], Callable[[int], Arrays]]] = {
    "separable": (lambda path: separable(path, separable_weights()), lambda seed: images(48, seed)),
    "rescaled": (rescaled, lambda seed: images(48, seed)),
    "transformer": (lambda path: transformer(path, table=True), tokens),
    "MatMul": (lambda path: dense(path, "MatMul", 65), positive((65,))),
    "Gemm": (lambda path: dense(path, "Gemm", 64), positive((64,))),
    "transB": (lambda path: dense(path, "transB", 63), positive((63,))),
    "coarse": (lambda path: coarse(path, (64,)), alike),
    "coarse row": (lambda path: coarse(path, (1, 64)), alike),
    "batched": (batched, positive((4, 5, 31))),
    "grouped": (grouped, positive((5, 12, 12))),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Arrays]:
    """A model, beside which there are rows to calibrate on, and other rows."""
    build, rows = NETS[request.param]
    np.savez(tmp_path / "calib.npz", **rows(1))
    return build(tmp_path / "model.onnx"), rows(2)


def quantized(fewbits: Fewbits, model: Path, *options: object) -> Path:
    out = model.with_name("q.onnx")
    calibrate = ["--calibrate", model.with_name("calib.npz")]
    command = ["quantize", model, "-o", out, *calibrate, "--force", *options]
    fewbits(*command).assert_done()
    return out


@pytest.mark.weakest
@pytest.mark.parametrize("target", ["onnx", "onnxruntime", "openvino"])
@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_a_default_session_computes_what_the_file_means(
    fewbits: Fewbits, net: tuple[Path, Arrays], recipe: str, target: str
) -> None:
    model, rows = net
    if (recipe, target) == ("dynamic", "openvino"):
        pytest.skip("OpenVINO has no dynamic quantization")
    if recipe == "dynamic" and any(n.op_type == "Conv" for n in onnx.load(model).graph.node):
        pytest.skip("convolutions have no dynamic form")
    out = quantized(fewbits, model, "--recipe", recipe, "--target", target)
    assert_no_pair_saturates(out)
    assert apart_db(out, rows) >= SAME


@pytest.mark.parametrize("bias", [(64,), (1, 64)])
def test_products_and_sums_run_on_integers(
    fewbits: Fewbits, tmp_path: Path, bias: tuple[int, ...]
) -> None:
    """onnxruntime makes a Gemm of both, which stays float, its weights dequantized at every call, unless the
    bias is int32 and the weights have zero points: 50 times slower."""
    model = coarse(tmp_path / "model.onnx", bias)
    np.savez(tmp_path / "calib.npz", **alike(1))
    out = quantized(fewbits, model, "--recipe", "static")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(out, options)
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert [node.op_type for node in nodes] == ["QuantizeLinear", "QGemm", "QGemm"]


@pytest.mark.parametrize(
    "options",
    [
        ["--granularity", "tensor"],
        ["--rounding", "gptq"],
        ["--rounding", "adaround"],
        ["--rounding", "hqq"],
        ["--methods", "equalization,smoothquant,bias-correction"],
    ],
    ids=" ".join,
)
def test_however_weights_are_rounded(
    fewbits: Fewbits, net: tuple[Path, Arrays], options: list[str]
) -> None:
    model, rows = net
    out = quantized(fewbits, model, "--recipe", "static", *options)
    assert_no_pair_saturates(out)
    assert apart_db(out, rows) >= SAME


def test_what_is_reduced_is_told(fewbits: Fewbits, tmp_path: Path) -> None:
    model, rows = dense(tmp_path / "model.onnx", "Gemm", 64), positive((64,))
    np.savez(tmp_path / "calib.npz", **rows(1))
    out, plan = tmp_path / "q.onnx", tmp_path / "plan.json"
    command = ["quantize", model, "-o", out, "--recipe", "static"]
    command += ["--calibrate", tmp_path / "calib.npz", "--save-plan", plan]
    told = fewbits(*command, "--json").assert_done().json()["reduced_range"]
    assert {entry["tensor"] for entry in told} <= {"w0", "w1", "w2"}
    assert any(len(entry["channels"]) > 8 and "16 bits" in entry["why"] for entry in told)
    assert json.loads(plan.read_text())["reduced_range"] == told
    lines = fewbits(*command, "--force").assert_done().out.splitlines()
    assert any("channels of" in line and "16 bits" in line for line in lines)
    # The plan makes the same file again.
    again = tmp_path / "again.onnx"
    fewbits("quantize", model, "-o", again, "--plan", plan).assert_done()
    assert again.read_bytes() == out.read_bytes()
    # Only weights of products on 8-bit activations have pairs.
    weights = fewbits("quantize", model, "-o", tmp_path / "w.onnx", "--json").assert_done().json()
    assert weights["reduced_range"] == []


def test_other_ranges(fewbits: Fewbits, tmp_path: Path) -> None:
    model, rows = dense(tmp_path / "model.onnx", "Gemm", 64), positive((64,))
    np.savez(tmp_path / "calib.npz", **rows(1))
    largest, noise = {}, {}
    for which in ("auto", "all", "none"):
        out = quantized(fewbits, model, "--recipe", "static", "--reduce-range", which)
        weights = [weight for _, weight in integers_of_products(out)]
        largest[which] = max(int(np.abs(w.astype(int)).max()) for w in weights)
        expected = default_session(model).run(None, rows(2))[0]
        noise[which] = sqnr_db(expected, meaning(out, rows(2))[0])
        if which == "none":
            with pytest.raises(AssertionError):
                assert_no_pair_saturates(out)
        else:
            assert_no_pair_saturates(out)
            assert apart_db(out, rows(2)) >= SAME
    assert largest["none"] == 127 and largest["all"] <= 64
    assert noise["auto"] >= noise["none"] - 6
    # A plan holds it for each weight.
    plan = tmp_path / "plan.json"
    out = quantized(
        fewbits, model, "--recipe", "static", "--reduce-range", "none", "--save-plan", plan
    )
    kept = json.loads(plan.read_text())
    assert all(t["reduce_range"] == "none" for t in kept["tensors"])
    fewbits("quantize", model, "-o", out, "--reduce-range", "some", "--force").assert_refused(2)
    # Not where all of a weight is as asked for, and not for runtimes that compute otherwise.
    tract = quantized(fewbits, model, "--recipe", "static", "--target", "tract")
    with pytest.raises(AssertionError):
        assert_no_pair_saturates(tract)


def without_a_bias_in_the_way(weights: float) -> Callable[[Path], Path]:
    """The reported model with weights of another size: less biases, the same sums."""

    def build(path: Path) -> Path:
        model = onnx.load(REPORTED / "model.onnx")
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim == 4 and np.abs(array).max() < 1e-6:
                scaled = (array / np.abs(array).max() * weights).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
        onnx.save(model, path)
        return path

    return build


def dead_norm(path: Path) -> Path:
    """A convolution behind which a batch norm has lost one channel."""
    rng = np.random.default_rng(5)
    gamma = np.ones(8, np.float32)
    gamma[3] = 1e-9
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "gamma": gamma,
        "beta": np.full(8, 2, np.float32),
        "mean": rng.normal(0, 0.1, 8).astype(np.float32),
        "var": np.ones(8, np.float32),
        "v": rng.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    return save(path, nodes, weights, {"x": ("n", 3, 8, 8)}, 4)


def tiny_products(path: Path) -> Path:
    """A product whose weights are tiny beside what is added to it."""
    rng = np.random.default_rng(6)
    weights = {
        "w": (rng.normal(0, 1, (48, 16)) * 1e-9).astype(np.float32),
        "b": rng.normal(0, 5, 16).astype(np.float32),
        "v": rng.normal(0, 0.3, (16, 40)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    return save(path, nodes, weights, {"x": ("n", 48)}, 2)


def copied(name: str) -> Callable[[Path], Path]:
    return lambda path: Path(path.write_bytes((REPORTED / name).read_bytes()) and path)


def normal(*shape: int) -> Arrays:
    return {"x": np.random.default_rng(7).normal(size=(64, *shape)).astype(np.float32)}


@pytest.mark.weakest
@pytest.mark.parametrize("target", ["onnx", "onnxruntime"])
@pytest.mark.parametrize(
    ("build", "rows"),
    [
        (copied("model.onnx"), dict(np.load(REPORTED / "data.npz"))),
        (without_a_bias_in_the_way(1e-5), dict(np.load(REPORTED / "data.npz"))),
        (copied("dead_channel-model.onnx"), normal(16, 8, 8)),
        (dead_norm, normal(3, 8, 8)),
        (tiny_products, normal(48)),
    ],
    ids=["tiny", "small", "dead_channel", "dead_norm", "MatMul"],
)
def test_biases_beside_tiny_weights(
    fewbits: Fewbits,
    tmp_path: Path,
    build: Callable[[Path], Path],
    rows: Arrays,
    target: str,
) -> None:
    """ONNX Runtime makes them int32, whatever the file says, and saturates them."""
    model = build(tmp_path / "model.onnx")
    np.savez(tmp_path / "calib.npz", **rows)
    out = quantized(fewbits, model, "--recipe", "static", "--target", target)
    assert apart_db(out, rows) >= SAME
    expected = default_session(model).run(None, rows)[0]
    assert sqnr_db(expected, default_session(out).run(None, rows)[0]) > 35
