"""The accuracy guard of `quantize`: what costs too much in integers stays float."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import meaning, sqnr_db
from models import FIXTURES, NOTEBOOK
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64


def net(path: Path, poor: int, layers: int = 3) -> Path:
    """Layers behind each other, and a second output a thousand times smaller.

    The weights of the last `poor` layers have columns with one entry that takes the scale from all others,
    for a feature that is nearly zero.
    """
    rng = np.random.default_rng(7)
    nodes, constants = [], []
    value = "x"
    for layer in range(layers):
        weight = rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
        weight[:, 0] *= 1e-6
        if layer >= layers - poor:
            weight[0] = 3e3
        constants.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"], f"layer{layer}"))
        value = f"h{layer}"
        if layer + 1 < layers:
            nodes.append(helper.make_node("Tanh", [value], [f"t{layer}"]))
            value = f"t{layer}"
    constants.append(numpy_helper.from_array(np.float32(1e-3), "small"))
    nodes += [
        helper.make_node("Identity", [value], ["large"]),
        helper.make_node("Mul", ["h0", "small"], ["little"]),
        helper.make_node("ArgMax", [value], ["label"], axis=1),
    ]
    shaped = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, WIDTH]) for n in ("large", "little")]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [*shaped, helper.make_tensor_value_info("label", TensorProto.INT64, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def rows(path: Path, count: int = 96, seed: int = 1) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0, 1, (count, WIDTH)).astype(np.float32)
    x[:, 0] *= 1e-6
    np.savez(path, x=x)
    return x


def reached(model: Path, quantized: Path, x: np.ndarray) -> dict[str, float]:
    """The SQNR of both float outputs as the files mean them."""
    names = ["large", "little"]
    return {
        name: sqnr_db(float_, integer)
        for name, float_, integer in zip(
            names, meaning(model, {"x": x}, names), meaning(quantized, {"x": x}, names), strict=True
        )
    }


PLAIN = ["--recipe", "static", "--methods", "none", "--json"]


def test_a_poor_layer_stays_float(fewbits: Fewbits, tmp_path: Path) -> None:
    model, out = net(tmp_path / "m.onnx", poor=1), tmp_path / "q.onnx"
    x = rows(tmp_path / "c.npz")
    command = ["quantize", model, "-o", out, "--calibrate", tmp_path / "c.npz", *PLAIN]
    unguarded = fewbits(*command, "--min-sqnr", "none").assert_done().json()
    assert unguarded["output_sqnr_db"] is None
    assert reached(model, out, x)["large"] < 20
    guarded = fewbits(*command, "--force").assert_done().json()
    assert guarded["output_sqnr_db"].keys() == {"large", "little"}
    assert min(guarded["output_sqnr_db"].values()) >= 20
    left = {kept["tensor"]: kept["why"] for kept in guarded["kept_float"]}
    assert "w2" in left and "w0" not in left and "w1" not in left
    assert "'large' to " in left["w2"] and left["w2"].endswith(" dB")
    for name, db in reached(model, out, x).items():
        assert db >= 20
        assert db == pytest.approx(guarded["output_sqnr_db"][name], abs=1)
    assert out.stat().st_size < 0.6 * model.stat().st_size


def test_what_holds_is_not_changed(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", poor=0)
    rows(tmp_path / "c.npz")
    command = ["quantize", model, "--calibrate", tmp_path / "c.npz", *PLAIN]
    guarded = fewbits(*command, "-o", tmp_path / "a.onnx").assert_done().json()
    fewbits(*command, "-o", tmp_path / "b.onnx", "--min-sqnr", "none").assert_done()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert min(guarded["output_sqnr_db"].values()) >= 20


def test_half_of_the_weights_stay_integers(fewbits: Fewbits, tmp_path: Path) -> None:
    model, out = net(tmp_path / "m.onnx", poor=3), tmp_path / "q.onnx"
    rows(tmp_path / "c.npz")
    done = fewbits(
        "quantize", model, "-o", out, "--calibrate", tmp_path / "c.npz", *PLAIN, "--min-sqnr", 90
    ).assert_done()
    assert "warning: outputs below 90 dB" in done.err and "less than half" in done.err
    result = done.json()
    assert any("less than half" in note for note in result["notes"])
    assert result["output_sqnr_db"]["large"] < 90
    assert result["quantized"] == 2


@pytest.mark.parametrize("asked", [["--bits", 4], ["--act-bits", 4], ["--plan", "plan.json"]])
def test_what_was_asked_for_is_only_warned_about(
    fewbits: Fewbits, tmp_path: Path, asked: list[object]
) -> None:
    model, out = net(tmp_path / "m.onnx", poor=1), tmp_path / "q.onnx"
    rows(tmp_path / "c.npz")
    common = ["quantize", model, "--calibrate", tmp_path / "c.npz"]
    how = PLAIN
    if "--plan" in asked:
        plan = tmp_path / "plan.json"
        how = ["--json"]
        fewbits(*common, *PLAIN, "--min-sqnr", "none", "--save-plan", plan, "--dry-run").assert_done()
        asked = ["--plan", plan]
    done = fewbits(*common, *how, *asked, "-o", out, "--min-sqnr", 20).assert_done()
    assert "warning: outputs below 20 dB" in done.err
    result = done.json()
    assert not any("cost too much" in kept["why"] for kept in result["kept_float"])
    assert result["output_sqnr_db"]["large"] < 20


def test_the_metric_holds_or_nothing_is_written(fewbits: Fewbits, tmp_path: Path) -> None:
    model, out = net(tmp_path / "m.onnx", poor=1), tmp_path / "q.onnx"
    rows(tmp_path / "c.npz")
    data = ["--data", tmp_path / "c.npz", "--metric", "agreement"]
    command = ["quantize", model, "-o", out, "--calibrate", tmp_path / "c.npz", *PLAIN, *data]
    fewbits(*command, "--max-drop=-0.5").assert_refused(3)
    assert not out.exists()
    result = fewbits(*command, "--max-drop", 0.15).assert_done().json()
    assert result["drop"]["drop"] <= 0.15
    assert any(kept["tensor"] == "w2" for kept in result["kept_float"])
    compared = fewbits("compare", model, out, *data, "--max-drop", 0.15, "--json").assert_done()
    assert compared.json()["drop"] == pytest.approx(result["drop"]["drop"])


def test_a_metric_of_labels_without_calibration(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", NOTEBOOK / "model.onnx", "-o", out, "--bits", 1, "--json"]
    data = ["--data", NOTEBOOK / "test.npz", "--max-drop", 0.01]
    # Its single layer loses a fifth of the accuracy at one bit, and float there is nothing left to write.
    fewbits(*command, *data).assert_refused(3)
    assert not out.exists()
    result = fewbits(*command[:-2], 8, "--json", *data).assert_done().json()
    assert result["drop"]["metric"] == "accuracy" and result["drop"]["drop"] <= 0.01


def test_a_convolutional_net_and_a_language_model_hold_as_they_are(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    for name in ("digits_cnn", "tiny_lm"):
        folder, out = FIXTURES / name, tmp_path / f"{name}.onnx"
        done = fewbits(
            "quantize", folder / "model.onnx", "-o", out, "--recipe", "static", "--calibrate",
            folder / "calib.npz", "--json",
        ).assert_done()  # fmt: skip
        result = done.json()
        assert min(result["output_sqnr_db"].values()) >= 20
        assert "cost too much" not in json.dumps(result["kept_float"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--min-sqnr", "loud"],
        ["--min-sqnr", "20"],
        ["--max-drop", "0.1"],
        ["--data", "c.npz"],
        ["--metric", "accuracy"],
    ],
)
def test_wrong_usage(fewbits: Fewbits, tmp_path: Path, arguments: list[str]) -> None:
    model = net(tmp_path / "m.onnx", poor=0)
    rows(tmp_path / "c.npz")
    fewbits("quantize", model, "-o", tmp_path / "q.onnx", *arguments, cwd=tmp_path).assert_refused(2)
    assert not (tmp_path / "q.onnx").exists()
