"""The recipes `static` and `dynamic`: what ONNX Runtime makes of the saved files."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard, open_session

RANGES = ["minmax", "percentile=99.99", "mse", "entropy"]
CNN = FIXTURES / "digits_cnn"
LM = FIXTURES / "tiny_lm"


def accuracy(model: Path, name: str, x: np.ndarray, y: np.ndarray) -> float:
    session = open_session(model)
    batches = [session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)]
    return float(np.mean(np.concatenate(batches).argmax(1) == y))


def perplexity(model: Path) -> float:
    rows = np.load(LM / "test.npz")
    logits = open_session(model).run(None, {"input_ids": rows["input_ids"]})[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(np.exp(-np.take_along_axis(log_p, rows["y"][..., None], -1).mean()))


@pytest.mark.parametrize("method", RANGES)
def test_a_convolutional_net(fewbits: Fewbits, tmp_path: Path, method: str) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", CNN / "model.onnx", "-o", out, "--recipe", "static"]
    fewbits(*command, "--calibrate", CNN / "calib.npz", "--range", method).assert_done()
    assert_standard(out)
    rows = np.load(CNN / "test.npz")
    x, y = rows["input"], rows["y"]
    assert accuracy(CNN / "model.onnx", "input", x, y) - accuracy(out, "input", x, y) <= 0.0045
    # Saturation performs the activation functions between layers; the last one, before a mean in
    # floats, stays.
    ops = [node.op_type for node in onnx.load(out).graph.node]
    assert "Clip" not in ops and ops.count("Relu") <= 1
    # What we compute from the file is what ONNX Runtime computes.
    result = fewbits("compare", CNN / "model.onnx", out, "--data", CNN / "test.npz", "--json")
    assert result.assert_done().json()["b"]["metric"] == pytest.approx(
        accuracy(out, "input", x, y), abs=0.003
    )


def test_batch_norms_are_folded(fewbits: Fewbits, tmp_path: Path) -> None:
    sizes = []
    for name in ("model.onnx", "model_bn.onnx"):
        out = tmp_path / name
        command = ["quantize", CNN / name, "-o", out, "--recipe", "static"]
        fewbits(*command, "--calibrate", CNN / "calib.npz").assert_done()
        sizes.append(out.stat().st_size)
        assert "BatchNormalization" not in [node.op_type for node in onnx.load(out).graph.node]
    assert abs(sizes[0] - sizes[1]) < 2000


@pytest.mark.parametrize(("recipe", "most"), [("static", 7.84), ("dynamic", 7.83)])
def test_a_language_model(fewbits: Fewbits, tmp_path: Path, recipe: str, most: float) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", LM / "model.onnx", "-o", out, "--recipe", recipe]
    if recipe == "static":
        command += ["--calibrate", LM / "calib.npz"]
    fewbits(*command).assert_done()
    assert_standard(out)
    assert perplexity(out) <= most
    assert out.stat().st_size * 3 < (LM / "model.onnx").stat().st_size


def test_plans_hold_the_ranges(fewbits: Fewbits, tmp_path: Path) -> None:
    command = ["quantize", CNN / "model.onnx", "-o", "a.onnx", "--recipe", "static"]
    command += ["--calibrate", CNN / "calib.npz", "--save-plan", "plan.json"]
    fewbits(*command, cwd=tmp_path).assert_done()
    again = ["quantize", CNN / "model.onnx", "-o", "b.onnx", "--plan", "plan.json"]
    fewbits(*again, cwd=tmp_path).assert_done()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(fewbits: Fewbits, tmp_path: Path, threads: int) -> None:
    command = ["quantize", LM / "model.onnx", "--recipe", "dynamic", "--threads", threads]
    fewbits(*command, "-o", tmp_path / "a.onnx").assert_done()
    fewbits(*command[:-2], "-o", tmp_path / "b.onnx").assert_done()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_data_that_is_no_number_is_refused(fewbits: Fewbits, tmp_path: Path) -> None:
    rows = np.load(CNN / "calib.npz")["input"].copy()
    rows[3, 0, 2, 2] = np.nan
    np.savez(tmp_path / "nan.npz", input=rows)
    command = ["quantize", CNN / "model.onnx", "-o", "q.onnx", "--recipe", "static"]
    result = fewbits(*command, "--calibrate", "nan.npz", cwd=tmp_path)
    result.assert_refused(1)
    assert "NaN" in result.err
    assert not (tmp_path / "q.onnx").exists()


def test_calibration_needs_data(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("quantize", CNN / "model.onnx", "-o", "q.onnx", "--recipe", "static", cwd=tmp_path)
    result.assert_refused(2)


@pytest.mark.parametrize("method", RANGES)
def test_fashion(fewbits: Fewbits, tmp_path: Path, method: str) -> None:
    cases = Path(os.environ.get("FEWBITS_CASES", FIXTURES / "../../../shared/cases"))
    fashion = cases / "fashion"
    if not fashion.is_dir():
        pytest.skip(f"{fashion} is not there")
    out = tmp_path / "q.onnx"
    command = ["quantize", fashion / "model.onnx", "-o", out, "--recipe", "static", "--range", method]
    command += ["--calibrate", fashion / "calib_images.npz", "--normalize", "0.286,0.353"]
    fewbits(*command).assert_done()
    assert out.stat().st_size <= 272_000
    rows = np.load(fashion / "test_images.npz")
    x = ((rows["images"][:, None].astype(np.float32) / 255 - 0.286) / 0.353).astype(np.float32)
    score = accuracy(out, "input", x, rows["labels"])
    assert score >= 0.9248 - 0.002
    if method == "minmax":
        assert score >= 0.9243
