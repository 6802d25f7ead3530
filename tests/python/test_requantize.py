"""Weights that are integers already stay, unless others are asked for."""

import json
from pathlib import Path

import numpy as np
import onnx
from conftest import Fewbits
from meaning import default_session, meaning
from models import FIXTURES
from onnx import TensorProto


def test_integers_stay_beside_float_weights_unless_others_are_asked_for(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    """Weights of 8 bits, and what becomes of them."""
    model, first, second = (tmp_path / f"{name}.onnx" for name in "mab")
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("w", "v")}
    h = onnx.helper
    nodes = [h.make_node("MatMul", ["x", "w"], ["t"]), h.make_node("MatMul", ["t", "v"], ["y"])]
    values = [h.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    graph = h.make_graph(
        nodes,
        "g",
        values[:1],
        values[1:],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), model)
    plan = fewbits("quantize", model, "--dry-run", "--json").assert_done().json()
    plan["tensors"][1] = {**plan["tensors"][1], "float": "asked for"}
    del plan["tensors"][1]["scheme"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fewbits("quantize", model, "--plan", tmp_path / "plan.json", "-o", first).assert_done()

    def bits(path: Path) -> dict[str, int]:
        listed = fewbits("inspect", path, "--json").assert_done().json()["tensors"]
        return {entry["tensor"]: entry["bits"] for entry in listed if entry["role"] == "weight"}

    assert bits(first) == {"w": 8, "v": 32}
    fewbits("quantize", first, "-o", second, "--bits", "4").assert_done()
    assert bits(second) == {"w": 8, "v": 4}
    fewbits("quantize", first, "-o", second, "--bits", "4", "--requantize", "--force").assert_done()
    assert bits(second) == {"w": 4, "v": 4}
    # A plan does the same again.
    saved, third = tmp_path / "saved.json", tmp_path / "c.onnx"
    asked = ["--bits", "4", "--requantize", "--save-plan", saved, "--force"]
    fewbits("quantize", first, "-o", second, *asked).assert_done()
    fewbits("quantize", first, "-o", third, "--plan", saved).assert_done()
    assert third.read_bytes() == second.read_bytes()
    refused = fewbits("quantize", second, "-o", third, "--force", "--bits", "2")
    refused.assert_refused(1)
    assert "its 2 weights are quantized already; --requantize" in refused.err


def test_weights_between_quantized_activations_get_fewer_bits(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    """A file of another quantizer: its activations stay as they are."""
    source, out = FIXTURES / "digits_cnn" / "nncf.onnx", tmp_path / "q.onnx"
    fewbits("quantize", source, "-o", out, "--bits", "4", "--requantize").assert_done()
    listed = fewbits("inspect", out, "--json").assert_done().json()
    before = fewbits("inspect", source, "--json").assert_done().json()
    assert listed["activations"] == before["activations"]
    large = [t for t in listed["tensors"] if t["role"] == "weight" and np.prod(t["shape"]) > 1000]
    assert large and all(entry["bits"] == 4 for entry in large)
    default_session(out)
    rows, given = tmp_path / "rows.npz", tmp_path / "given.npz"
    np.savez(rows, input=np.load(FIXTURES / "digits_cnn" / "test.npz")["input"])
    fewbits("run", out, "--data", rows, "-o", given).assert_done()
    (expected,) = meaning(out, dict(np.load(rows)))
    # Biases are rounded to the steps of sums.
    tolerance = 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(np.load(given)["logits"], expected, rtol=0, atol=tolerance)
