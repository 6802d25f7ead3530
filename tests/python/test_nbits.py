"""MatMulNBits for `--target onnxruntime`: opens in any session, and gives what we measure."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard
from onnx import TensorProto, helper, numpy_helper

LM = FIXTURES / "tiny_lm"
MICROSOFT = "com.microsoft"


def run_plainly(model: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Without any option: what the file says is what is computed."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def perplexity(model: Path) -> float:
    rows = np.load(LM / "test.npz")
    logits = run_plainly(model, {"input_ids": rows["input_ids"]})[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(np.exp(-np.take_along_axis(log_p, rows["y"][..., None], -1).mean()))


def products(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.domain == MICROSOFT]


def dequantized(path: Path) -> int:
    return sum(node.op_type == "DequantizeLinear" for node in onnx.load(path).graph.node)


def attributes(node: onnx.NodeProto) -> dict[str, int]:
    return {a.name: a.i for a in node.attribute}


def net(path: Path, k: int, opset: int = 17) -> Path:
    """A product, two of Gemm either way round, and one whose Gemm is more than a product."""
    rng = np.random.default_rng(5)
    weights = {
        "a": rng.normal(size=(k, 48)),
        "b": rng.normal(size=(48, 40)),
        "c": rng.normal(size=(33, 40)),
        "d": rng.normal(size=(33, 24)),
        "b_bias": rng.normal(size=40),
        "c_bias": rng.normal(size=33),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "product"),
        helper.make_node("Gemm", ["h", "b", "b_bias"], ["i"], "columns"),
        helper.make_node("Relu", ["i"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "c_bias"], ["j"], "rows", transB=1),
        helper.make_node("Gemm", ["j", "d"], ["y"], "halved", alpha=0.5),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def ours(fewbits: Fewbits, model: Path, x: np.ndarray) -> np.ndarray:
    data, out = model.with_suffix(".npz"), model.with_suffix(".out.npz")
    np.savez(data, x=x)
    fewbits("run", model, "--data", data, "-o", out, "--force").assert_done()
    return np.load(out)["y"]


# 45 is no multiple of any block: the last group is short. 4096 is longer than every row.
@pytest.mark.parametrize("k", [45, 64])
@pytest.mark.parametrize("group", [16, 32, 128, 4096])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_products_of_groups(
    fewbits: Fewbits, tmp_path: Path, scheme: str, group: int, k: int
) -> None:
    model = net(tmp_path / "net.onnx", k)
    options = ["--bits", 4, "--granularity", f"group={group}", "--scheme", scheme]
    files = {target: tmp_path / f"{target}.onnx" for target in ("onnx", "onnxruntime")}
    plan = tmp_path / "plan.json"
    command = ["quantize", model, "-o", files["onnx"], *options, "--save-plan", plan]
    fewbits(*command).assert_done()
    # By a plan, which is carried out although padding makes a file with the longest blocks larger.
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "target": "onnxruntime"}))
    fewbits("quantize", model, "-o", files["onnxruntime"], "--plan", plan).assert_done()
    assert_standard(files["onnx"])
    out = files["onnxruntime"]
    onnx.checker.check_model(str(out))
    assert {node.name for node in products(out)} == {"product", "columns", "rows"}
    # What is more than a product keeps its form.
    assert dequantized(out) == 1
    for node in products(out):
        says = attributes(node)
        assert says["accuracy_level"] == 1 and says["bits"] == 4 and says["block_size"] == group
        assert (len(node.input) > 3 and node.input[3] != "") == (scheme == "affine")
    x = np.random.default_rng(6).normal(size=(5, k)).astype(np.float32)
    [theirs] = run_plainly(out, {"x": x})
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours(fewbits, out, x), theirs, atol=1e-5 * scale)
    # The same integers as in the standard form.
    np.testing.assert_allclose(ours(fewbits, files["onnx"], x), theirs, atol=1e-5 * scale)
    [exact] = run_plainly(model, {"x": x})
    assert 1e-3 * scale < np.abs(theirs - exact).max() < 0.5 * scale


def test_large_products_stay_integers_while_they_run(fewbits: Fewbits, tmp_path: Path) -> None:
    # As floats the first weight takes more than a mebibyte.
    model, k = net(tmp_path / "net.onnx", 6001), 6001
    x = np.random.default_rng(6).normal(size=(5, k)).astype(np.float32)
    answers = []
    for target, operator in (("onnx", "MatMul"), ("onnxruntime", "MatMulNBits")):
        out = tmp_path / f"{target}.onnx"
        options = ["--bits", 4, "--granularity", "group=32", "--scheme", "affine"]
        fewbits("quantize", model, "-o", out, *options, "--target", target).assert_done()
        seen = fewbits("inspect", out, "--runtime", "--json").assert_done().json()
        what = {step["what"]: step for step in seen["steps"]}
        step = what[f"{operator} by 4-bit weights"]
        assert step["where"] == "floats" and step["exact"]
        # All but the Gemm that is more than a product.
        assert seen["own_nodes"] == seen["nodes"] - 1
        answers.append(ours(fewbits, out, x))
    np.testing.assert_array_equal(*answers)
    [theirs] = run_plainly(out, {"x": x})
    np.testing.assert_allclose(answers[0], theirs, atol=1e-5 * np.abs(theirs).max())


def test_integers_stay_in_the_file_that_is_read_back(fewbits: Fewbits, tmp_path: Path) -> None:
    model, out = net(tmp_path / "net.onnx", 45), tmp_path / "q.onnx"
    options = ["--bits", 4, "--granularity", "group=16", "--target", "onnxruntime"]
    fewbits("quantize", model, "-o", out, *options).assert_done()
    seen = fewbits("inspect", out, "--json").assert_done().json()
    tensors = {t["tensor"]: t for t in seen["tensors"]}
    assert {name: tensors[name]["shape"] for name in "abcd"} == {
        "a": [45, 48],
        "b": [48, 40],
        "c": [40, 33],
        "d": [33, 24],
    }
    assert all(tensors[name]["bits"] == 4 for name in "abcd")
    assert all("groups of 16" in tensors[name]["scheme"] for name in "abcd")
    # Their scales are counted with them.
    assert set(tensors) == {*"abcd", "b_bias", "c_bias"}
    x = np.random.default_rng(1).normal(size=(9, 45)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    compare = ["compare", model, out, "--data", tmp_path / "x.npz", "--metric", "agreement", "--json"]
    assert fewbits(*compare).assert_done().json()["b"]["file_bytes"] == out.stat().st_size
    # Quantizing again finds nothing that is still float, and says so.
    again = tmp_path / "again.onnx"
    refused = fewbits("quantize", out, "-o", again)
    refused.assert_refused(1)
    assert "its 4 weights are quantized already" in refused.err and not again.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--bits", 4],
        ["--bits", 8, "--granularity", "group=32"],
        ["--bits", 3, "--granularity", "group=32"],
        ["--bits", 2, "--granularity", "group=32"],
        ["--bits", 4, "--granularity", "group=8"],
        ["--bits", 4, "--granularity", "group=24"],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_what_it_does_not_take_has_the_standard_form(
    fewbits: Fewbits, tmp_path: Path, options: list[object]
) -> None:
    model = net(tmp_path / "net.onnx", 64)
    files = []
    for target in ("onnx", "onnxruntime"):
        out = tmp_path / f"{target}.onnx"
        fewbits("quantize", model, "-o", out, *options, "--target", target).assert_done()
        assert_standard(out)
        loaded = onnx.load(out)
        # The plan, and its hash with it, names the target.
        del loaded.metadata_props[:]
        files.append(loaded.SerializeToString())
    assert files[0] == files[1]


def test_weights_that_others_read_too_have_the_standard_form(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    model = onnx.load(net(tmp_path / "net.onnx", 64))
    model.graph.node.append(helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))
    # Another product of the same weight is no hindrance.
    model.graph.node.append(helper.make_node("Gemm", ["h", "b"], ["again"], "again"))
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["n", 40]))
    onnx.save(model, tmp_path / "shared.onnx")
    out = tmp_path / "q.onnx"
    options = ["--bits", 4, "--granularity", "group=16", "--target", "onnxruntime"]
    fewbits("quantize", tmp_path / "shared.onnx", "-o", out, *options).assert_done()
    assert {node.name for node in products(out)} == {"columns", "again", "rows"}
    [columns, again] = [n for n in products(out) if n.name in ("columns", "again")]
    assert columns.input[1:3] == again.input[1:3]
    x = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_allclose(ours(fewbits, out, x), run_plainly(out, {"x": x})[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_with_quantized_activations_the_form_is_standard(
    fewbits: Fewbits, tmp_path: Path, recipe: str
) -> None:
    model, out = net(tmp_path / "net.onnx", 64), tmp_path / "q.onnx"
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).normal(size=(9, 64)).astype(np.float32))
    options = ["--bits", 4, "--granularity", "group=16", "--target", "onnxruntime"]
    options += ["--recipe", recipe, "--calibrate", tmp_path / "x.npz"]
    fewbits("quantize", model, "-o", out, *options).assert_done()
    if any(n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for n in onnx.load(out).graph.node):
        assert_standard(out)
    run_plainly(out, {"x": np.load(tmp_path / "x.npz")["x"]})


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_a_language_model(fewbits: Fewbits, tmp_path: Path, rounding: str) -> None:
    """Accuracy level 1: any session has the perplexity that we measure, in fewer bytes than
    onnxruntime's own file of 4 bits in groups of 32, which has 253,811."""
    out = tmp_path / "q.onnx"
    options = ["--bits", 4, "--granularity", "group=32", "--scheme", "affine"]
    options += ["--rounding", rounding, "--calibrate", LM / "calib.npz", "--target", "onnxruntime"]
    fewbits("quantize", LM / "model.onnx", "-o", out, *options).assert_done()
    # Four of each block, and the one that scores words.
    assert len(products(out)) == 9
    compare = ["compare", LM / "model.onnx", out, "--data", LM / "test.npz"]
    measured = fewbits(*compare, "--metric", "perplexity", "--json").assert_done().json()
    assert perplexity(out) == pytest.approx(measured["b"]["metric"], abs=1e-4)
    standard = tmp_path / "standard.onnx"
    fewbits("quantize", LM / "model.onnx", "-o", standard, *options[:-2]).assert_done()
    compare[2] = standard
    reference = fewbits(*compare, "--metric", "perplexity", "--json").assert_done().json()
    assert measured["b"]["metric"] == pytest.approx(reference["b"]["metric"], abs=1e-4)
    assert out.stat().st_size <= 1.05 * standard.stat().st_size


@pytest.mark.parametrize(("scales", "operators"), [("f16", 9), ("u8", 0)])
def test_narrow_scales(fewbits: Fewbits, tmp_path: Path, scales: str, operators: int) -> None:
    """Those of 16 bits are widened for the operator; those of 8 bits have blocks of their own."""
    model, out = LM / "model.onnx", tmp_path / "q.onnx"
    options = ["--recipe", "weights", "--bits", 4, "--granularity", "group=32"]
    options += ["--target", "onnxruntime", "--scales", scales]
    fewbits("quantize", model, "-o", out, *options).assert_done()
    assert len(products(out)) == operators
    compare = ["compare", model, out, "--data", LM / "test.npz", "--metric", "perplexity", "--json"]
    measured = fewbits(*compare).assert_done().json()["b"]["metric"]
    # A plain session rounds activations of blocks.
    assert perplexity(out) == pytest.approx(measured, abs=1e-4 if operators else 0.02)
