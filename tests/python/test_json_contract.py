"""The JSON keys and exit codes that scripts rely on."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import FIXTURES, NOTEBOOK, load_rows

MODEL = NOTEBOOK / "model.onnx"
ROWS = NOTEBOOK / "test.npz"

COMPARE_KEYS = {
    "metric", "a", "b", "drop", "drop_interval", "agreement", "max_abs_error", "sqnr_db", "verdict",
    "notes", "energy_note",
}  # fmt: skip
SIDE_KEYS = {
    "path", "metric", "file_bytes", "weight_bytes", "latency_ms", "energy_j", "peak_rss_bytes",
}  # fmt: skip
QUANTIZE_KEYS = {"out", "file_bytes", "quantized", "kept_float", "seconds", "peak_rss_bytes"}

SWEEP_KEYS = {"metric", "rows", "float", "points", "advised", "notes", "verdict", "environment"}
ADVISED_KEYS = {"bits", "file_bytes", "metric"}
FLOAT_KEYS = {"metric", "file_bytes", "weight_bytes", "latency_ms"}
POINT_KEYS = FLOAT_KEYS | {"bits", "drop", "agreement", "path"}


@pytest.fixture
def eight(fewbits: Fewbits, tmp_path: Path) -> Path:
    """The notebook's model at 8 bits."""
    out = tmp_path / "eight.onnx"
    fewbits("quantize", MODEL, "-o", out, "--bits", 8).assert_done()
    return out


@pytest.fixture
def one(fewbits: Fewbits, tmp_path: Path) -> Path:
    """The notebook's model at 1 bit, which costs it about 0.2 of its accuracy."""
    out = tmp_path / "one.onnx"
    fewbits("quantize", MODEL, "-o", out, "--bits", 1).assert_done()
    return out


def test_quantize(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    result = fewbits("quantize", MODEL, "-o", out, "--json").assert_done().json()
    assert QUANTIZE_KEYS <= set(result)
    assert Path(result["out"]) == out
    assert result["file_bytes"] == out.stat().st_size
    assert result["quantized"]
    for entry in result["kept_float"]:
        assert {"tensor", "why"} <= set(entry)
        assert entry["why"]


def test_compare(fewbits: Fewbits, eight: Path) -> None:
    result = fewbits("compare", MODEL, eight, "--data", ROWS, "--json").assert_done().json()
    assert COMPARE_KEYS <= set(result)
    for side, path in (("a", MODEL), ("b", eight)):
        measured = result[side]
        assert SIDE_KEYS <= set(measured)
        assert Path(measured["path"]) == path
        assert measured["file_bytes"] == path.stat().st_size
        assert 0 < measured["weight_bytes"] < measured["file_bytes"]
        assert measured["latency_ms"]["median"] > 0
        assert measured["peak_rss_bytes"] > 0
    assert result["drop"] == pytest.approx(result["a"]["metric"] - result["b"]["metric"])
    assert 0 <= result["agreement"] <= 1
    assert result["max_abs_error"] >= 0
    assert isinstance(result["verdict"], str)
    interval = result["drop_interval"]
    assert set(interval) == {"low", "high", "confidence", "method"}
    assert interval["low"] <= result["drop"] <= interval["high"]
    assert (interval["confidence"], "Tango 1998" in interval["method"]) == (0.95, True)
    # A figure, or the reason why there is none; never neither.
    for measured in (result["a"], result["b"]):
        if measured["energy_j"] is None:
            assert "not available on this machine" in result["energy_note"]
        else:
            assert measured["energy_j"] > 0


def test_sweep(fewbits: Fewbits, tmp_path: Path) -> None:
    """Every figure is that of the file, and the file that of `quantize`."""
    folder = tmp_path / "widths"
    command = ["sweep", MODEL, "--data", ROWS, "--bits", "1..3,8", "--json"]
    result = fewbits(*command, "-o", folder).assert_done().json()
    assert SWEEP_KEYS <= set(result)
    assert FLOAT_KEYS <= set(result["float"])
    assert (result["metric"], result["rows"]) == ("accuracy", 200)
    assert result["float"]["file_bytes"] == MODEL.stat().st_size
    assert [point["bits"] for point in result["points"]] == [1, 2, 3, 8]
    for point in result["points"]:
        assert POINT_KEYS <= set(point)
        path = folder / f"model-{point['bits']}.onnx"
        assert Path(point["path"]) == path
        alone = tmp_path / path.name
        fewbits("quantize", MODEL, "-o", alone, "--bits", point["bits"]).assert_done()
        assert path.read_bytes() == alone.read_bytes()
        compared = fewbits("compare", MODEL, path, "--data", ROWS, "--json").assert_done().json()
        for key in ("metric", "file_bytes", "weight_bytes"):
            assert point[key] == compared["b"][key], key
            assert result["float"][key] == compared["a"][key], key
        for key in ("drop", "agreement", "max_abs_error", "sqnr_db"):
            assert point[key] == compared[key], key
        assert point["latency_ms"] > 0
    # Nothing is kept unasked, and the figures are the same.
    unkept = fewbits(*command, cwd=tmp_path).assert_done().json()
    for point, other in zip(result["points"], unkept["points"], strict=True):
        assert other["path"] is None
        assert point["metric"] == other["metric"] and point["agreement"] == other["agreement"]
    assert set(result["advised"]) == ADVISED_KEYS
    # As many bytes as the others, and the most accurate.
    assert result["advised"]["bits"] == 2 and result["verdict"].startswith("2 bits")


def test_sweep_with_calibration(fewbits: Fewbits, tmp_path: Path) -> None:
    """Calibrated once, the files are still those of one `quantize` each."""
    cnn, folder = FIXTURES / "digits_cnn", tmp_path / "widths"
    calibrate = ["--calibrate", cnn / "calib.npz"]
    command = ["sweep", cnn / "model.onnx", "--data", cnn / "test.npz", *calibrate, "-o", folder]
    result = fewbits(*command, "--bits", "2,4,8", "--json").assert_done().json()
    for point in result["points"]:
        alone = tmp_path / f"alone-{point['bits']}.onnx"
        static = ["--recipe", "static", *calibrate, "--bits", point["bits"]]
        fewbits("quantize", cnn / "model.onnx", "-o", alone, *static).assert_done()
        assert (folder / f"model-{point['bits']}.onnx").read_bytes() == alone.read_bytes()


def test_sweep_without_labels(fewbits: Fewbits, tmp_path: Path) -> None:
    """What needs no labels is still measured, if it is asked for."""
    x, _ = load_rows(ROWS)
    np.save(tmp_path / "rows.npy", x)
    command = ["sweep", MODEL, "--data", tmp_path / "rows.npy", "--bits", 8]
    refused = fewbits(*command)
    refused.assert_refused(1)
    assert "--metric agreement" in refused.err
    result = fewbits(*command, "--metric", "agreement", "--json").assert_done().json()
    assert result["float"]["metric"] == 1
    assert result["points"][0]["metric"] == result["points"][0]["agreement"]


def test_compare_with_itself(fewbits: Fewbits) -> None:
    result = fewbits("compare", MODEL, MODEL, "--data", ROWS, "--json").assert_done().json()
    assert result["drop"] == 0
    assert result["agreement"] == 1
    assert result["max_abs_error"] == 0


def test_inspect(fewbits: Fewbits, eight: Path) -> None:
    for model in (MODEL, eight):
        assert fewbits("inspect", model, "--json").assert_done().json()
        assert fewbits("inspect", model).assert_done().out.strip()


@pytest.mark.parametrize("output", [["--json"], []], ids=["json", "table"])
def test_max_drop(fewbits: Fewbits, eight: Path, one: Path, output: list[str]) -> None:
    limit = ["--data", ROWS, "--max-drop", "0.01", *output]
    fewbits("compare", MODEL, eight, *limit).assert_done()
    worse = fewbits("compare", MODEL, one, *limit)
    assert worse.code == 3, worse.report()
    # One line says why: the metric, both values, the drop, how sure it is, and what is allowed.
    [line] = [line for line in worse.err.splitlines() if line.startswith("worse than allowed")]
    accuracies = re.search(r"accuracy (0\.\d{4}) became (0\.\d{4}), a drop of (0\.\d{4})", line)
    assert accuracies, line
    before, after, drop = map(float, accuracies.groups())
    assert drop == pytest.approx(before - after, abs=2e-4) and drop > 0.01
    assert "95 % confidence" in line and line.endswith("--max-drop is 0.01")
    assert "panicked" not in worse.err
    if output:
        assert worse.json()["drop"] == pytest.approx(drop, abs=1e-4)


def test_too_few_rows_are_told_and_do_not_decide(fewbits: Fewbits) -> None:
    same = ["compare", MODEL, MODEL, "--data", ROWS, "--json"]
    few = fewbits(*same, "--max-drop", 0.001).assert_done()
    [note] = few.json()["notes"]
    told = re.search(r"^200 rows cannot show .* at most 0\.001: .* about (\d+) rows", note)
    # Models that never differ: the upper end is z²/(n + z²).
    assert told and int(told[1]) == pytest.approx(1.96**2 * 0.999 / 0.001, rel=0.06), note
    assert note in few.err
    assert "too few" in few.json()["verdict"]
    enough = fewbits(*same, "--max-drop", 0.02).assert_done()
    assert enough.json()["notes"] == []
    assert "too few" not in enough.json()["verdict"]


def test_limit_uses_the_first_rows(fewbits: Fewbits, eight: Path) -> None:
    command = ["compare", MODEL, eight, "--data", ROWS, "--json", "--limit", 10]
    accuracy = fewbits(*command).assert_done().json()["a"]["metric"]
    assert accuracy * 10 == pytest.approx(round(accuracy * 10), abs=1e-6)


def test_progress_is_not_on_standard_output(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("quantize", MODEL, "-o", tmp_path / "q.onnx", "--json").assert_done()
    assert result.out.startswith("{") and result.out.rstrip().endswith("}")


def test_version_and_help(fewbits: Fewbits) -> None:
    assert fewbits("--version").assert_done().out.startswith("fewbits ")
    for command in ("inspect", "quantize", "compare", "sweep", "run", "bench", "demo"):
        assert command in fewbits("--help").assert_done().out
        assert "--" in fewbits(command, "--help").assert_done().out
