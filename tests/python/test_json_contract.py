"""The JSON keys and exit codes that scripts rely on."""

from pathlib import Path

import pytest
from conftest import Fewbits
from models import NOTEBOOK

MODEL = NOTEBOOK / "model.onnx"
ROWS = NOTEBOOK / "test.npz"

COMPARE_KEYS = {
    "metric", "a", "b", "drop", "agreement", "max_abs_error", "sqnr_db", "verdict",
}  # fmt: skip
SIDE_KEYS = {"path", "metric", "file_bytes", "weight_bytes", "latency_ms", "peak_rss_bytes"}
QUANTIZE_KEYS = {"out", "file_bytes", "quantized", "kept_float", "seconds", "peak_rss_bytes"}


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
    assert "panicked" not in worse.err
    if output:
        assert worse.json()["drop"] > 0.01


def test_limit_uses_the_first_rows(fewbits: Fewbits, eight: Path) -> None:
    command = ["compare", MODEL, eight, "--data", ROWS, "--json", "--limit", 10]
    accuracy = fewbits(*command).assert_done().json()["a"]["metric"]
    assert accuracy * 10 == pytest.approx(round(accuracy * 10), abs=1e-6)


def test_progress_is_not_on_standard_output(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("quantize", MODEL, "-o", tmp_path / "q.onnx", "--json").assert_done()
    assert result.out.startswith("{") and result.out.rstrip().endswith("}")


def test_version_and_help(fewbits: Fewbits) -> None:
    assert fewbits("--version").assert_done().out.startswith("fewbits ")
    for command in ("inspect", "quantize", "compare", "run", "bench", "demo"):
        assert command in fewbits("--help").assert_done().out
        assert "--" in fewbits(command, "--help").assert_done().out
