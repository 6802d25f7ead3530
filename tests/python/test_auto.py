"""`quantize --recipe auto`: what measures slower in integers stays float.

Which operators these are is up to the machine, so the tests ask only that what is told fits together.
"""

from pathlib import Path

import pytest
from conftest import Fewbits
from models import FIXTURES

CNN = FIXTURES / "digits_cnn"
MLP = FIXTURES / "digits" / "mlp.onnx"
SLOWER = "measured slower in integers on this machine: "


def quantized(fewbits: Fewbits, out: Path, *options: object) -> dict:
    done = fewbits("quantize", *options, "-o", out, "--recipe", "auto", "--json").assert_done()
    assert "nothing was timed" not in done.err
    return done.json()


def check(told: dict) -> None:
    """What is told to be slower is kept float for that reason, and nothing else is."""
    kept = [entry["why"] for entry in told["kept_float"] if entry["why"].startswith(SLOWER)]
    assert bool(kept) == bool(told["slower"])
    for slower in told["slower"]:
        times = f"{slower['integers_us']:.1f} µs, {slower['float_us']:.1f} µs in float"
        assert f"{SLOWER}{times}" in kept
        assert slower["integers_us"] > slower["float_us"] > 0
    if any(slower["what"] == "model" for slower in told["slower"]):
        assert len(told["slower"]) == 1


def test_with_calibration(fewbits: Fewbits, tmp_path: Path) -> None:
    out, model = tmp_path / "cnn.onnx", CNN / "model.onnx"
    told = quantized(fewbits, out, model, "--calibrate", CNN / "calib.npz")
    check(told)
    limit = ["--data", CNN / "test.npz", "--max-drop", 0.01]
    compared = fewbits("compare", model, out, *limit, "--json").assert_done().json()
    assert compared["b"]["file_bytes"] < compared["a"]["file_bytes"]


def test_on_made_up_inputs(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "mlp.onnx"
    check(quantized(fewbits, out, MLP))
    fewbits("compare", MLP, out, "--data", FIXTURES / "digits" / "test.npz").assert_done()


def test_of_sequences(fewbits: Fewbits, tmp_path: Path) -> None:
    check(quantized(fewbits, tmp_path / "lm.onnx", FIXTURES / "tiny_lm" / "model.onnx"))


def test_the_table_names_what_stays_float_or_says_that_nothing_does(fewbits: Fewbits) -> None:
    done = fewbits("quantize", MLP, "--dry-run", "--recipe", "auto").assert_done()
    assert ("stays float: measured slower" in done.out) != ("nothing stays float" in done.out)


@pytest.mark.parametrize("recipe", ["weights", "dynamic"])
def test_other_recipes_time_nothing(fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
    out = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in out:
        told = fewbits("quantize", MLP, "-o", path, "--recipe", recipe, "--json").assert_done()
        assert told.json()["slower"] == []
    assert out[0].read_bytes() == out[1].read_bytes()


def test_sweep_does_not_depend_on_timing(fewbits: Fewbits) -> None:
    data = FIXTURES / "digits" / "test.npz"
    fewbits("sweep", MLP, "--data", data, "--recipe", "auto").assert_refused(2)
