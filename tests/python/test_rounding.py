"""Ways of rounding: what ONNX Runtime makes of the saved files."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard
from test_static import CNN, LM, accuracy, perplexity

ROUNDINGS = ["nearest", "hqq", "gptq", "adaround"]
DIGITS = FIXTURES / "digits"
GROUPS = ["--scheme", "affine", "--granularity"]


@pytest.mark.parametrize(
    ("bits", "group", "rounding", "most"),
    [
        (4, 32, "gptq", 7.86),
        (4, 32, "hqq", 7.93),
        (3, 32, "gptq", 8.15),
        (3, 32, "hqq", 8.15),
        (2, 16, "gptq", 9.6),
        (2, 16, "adaround", 9.6),
    ],
)
def test_a_language_model_of_few_bits(
    fewbits: Fewbits, tmp_path: Path, bits: int, group: int, rounding: str, most: float
) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", LM / "model.onnx", "-o", out, "--bits", bits, *GROUPS, f"group={group}"]
    data = [] if rounding == "hqq" else ["--calibrate", LM / "calib.npz"]
    fewbits(*command, "--rounding", rounding, *data).assert_done()
    assert_standard(out)
    assert perplexity(out) <= most
    # 4 bits in groups of 32 take 4.6 bits with their scales and zero points, the table has 8 bits;
    # onnxruntime's own file of them has 253,811 bytes.
    assert out.stat().st_size <= 224_000


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_three_bits_of_a_perceptron(fewbits: Fewbits, tmp_path: Path, rounding: str) -> None:
    drops = []
    for how in ("nearest", rounding):
        out = tmp_path / f"{how}.onnx"
        command = ["quantize", DIGITS / "mlp.onnx", "-o", out, "--bits", 3, "--rounding", how]
        fewbits(*command, "--calibrate", DIGITS / "train.npz").assert_done()
        command = ["compare", DIGITS / "mlp.onnx", out, "--data", DIGITS / "test.npz", "--json"]
        drops.append(fewbits(*command).assert_done().json()["drop"])
    assert drops[1] <= 0.01 < drops[0]


@pytest.mark.parametrize(("bits", "least"), [(4, 0.9200), (3, 0.905)])
@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_images(
    fewbits: Fewbits, tmp_path: Path, rounding: str, bits: int, least: float
) -> None:
    cases = os.environ.get("FEWBITS_CASES")
    if cases is None:
        pytest.skip("FEWBITS_CASES is not set: no images")
    folder = Path(cases) / "fashion"
    out = tmp_path / "q.onnx"
    command = ["quantize", folder / "model.onnx", "-o", out, "--recipe", "static", "--bits", bits]
    command += ["--calibrate", folder / "calib_images.npz", "--normalize", "0.286,0.353"]
    fewbits(*command, "--rounding", rounding).assert_done()
    rows = np.load(folder / "test_images.npz")
    x = ((rows["images"][:, None] / 255 - 0.286) / 0.353).astype(np.float32)
    name = onnx.load(out).graph.input[0].name
    assert accuracy(out, name, x, rows["labels"]) >= least


def test_what_measures_best_is_taken(fewbits: Fewbits, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    command = ["quantize", LM / "model.onnx", "-o", tmp_path / "q.onnx", "--bits", 3]
    command += [*GROUPS, "group=32", "--calibrate", LM / "calib.npz", "--save-plan", plan]
    fewbits(*command).assert_done()
    tried = json.loads(plan.read_text())["tried"]
    assert {t["rounding"] for t in tried if "rounding" in t} == {"nearest", "gptq", "hqq", "adaround"}
    best = max((t for t in tried if t["kept"]), key=lambda t: t["sqnr_db"])
    assert best.get("rounding", "nearest") != "nearest"
    rounded = {t.get("rounding", "nearest") for t in json.loads(plan.read_text())["tensors"]}
    assert rounded == {best["rounding"]}
    assert perplexity(tmp_path / "q.onnx") <= 8.15


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_the_same_bytes_with_any_number_of_threads_and_from_a_plan(
    fewbits: Fewbits, tmp_path: Path, rounding: str
) -> None:
    files = []
    plan = tmp_path / "plan.json"
    for threads in (1, 2, 3):
        out = tmp_path / f"{threads}.onnx"
        command = ["quantize", CNN / "model.onnx", "-o", out, "--bits", 4, "--rounding", rounding]
        command += ["--calibrate", CNN / "calib.npz", "--threads", threads]
        fewbits(*command, "--save-plan", plan, "--force").assert_done()
        files.append(out.read_bytes())
    out = tmp_path / "again.onnx"
    command = ["quantize", CNN / "model.onnx", "-o", out, "--plan", plan]
    fewbits(*command, "--calibrate", CNN / "calib.npz").assert_done()
    files.append(out.read_bytes())
    assert len(set(files)) == 1
    # Without the data such a plan cannot be carried out.
    refused = fewbits("quantize", CNN / "model.onnx", "-o", tmp_path / "no.onnx", "--plan", plan)
    refused.assert_refused(1)
    assert rounding in refused.err and "--calibrate" in refused.err
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_dead_inputs_and_fewer_rows_than_columns(
    fewbits: Fewbits, tmp_path: Path, rounding: str
) -> None:
    """Some of the digits' 64 pixels are never lit, and 5 rows leave most of the Hessian unknown."""
    out = tmp_path / "q.onnx"
    command = ["quantize", DIGITS / "mlp.onnx", "-o", out, "--bits", 4, "--rounding", rounding]
    fewbits(*command, "--calibrate", DIGITS / "train.npz", "--limit", 5).assert_done()
    command = ["compare", DIGITS / "mlp.onnx", out, "--data", DIGITS / "test.npz", "--json"]
    assert fewbits(*command).assert_done().json()["drop"] <= 0.1


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_data_that_tells_nothing_is_refused(
    fewbits: Fewbits, tmp_path: Path, rounding: str
) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", DIGITS / "mlp.onnx", "-o", out, "--bits", 4, "--rounding", rounding]
    refused = fewbits(*command)
    refused.assert_refused(1)
    assert "--calibrate" in refused.err
    x = np.load(DIGITS / "train.npz")["X"].astype(np.float32)
    x[3, 7] = np.nan
    np.savez(tmp_path / "nan.npz", X=x)
    refused = fewbits(*command, "--calibrate", tmp_path / "nan.npz")
    refused.assert_refused(1)
    assert "NaN" in refused.err and "nan.npz" in refused.err
    assert not out.exists()


def test_a_group_larger_than_the_row_is_the_row(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    command = ["quantize", DIGITS / "mlp.onnx", "-o", out, "--bits", 4, "--rounding", "gptq"]
    command += ["--granularity", "group=4096", "--calibrate", DIGITS / "train.npz"]
    fewbits(*command).assert_done()
    assert_standard(out)
