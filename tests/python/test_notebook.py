"""The notebook's numbers, on its own model and its 200 test rows."""

from pathlib import Path

import pytest
from conftest import Fewbits
from models import NOTEBOOK, assert_standard, load_rows, onnxruntime_score, open_session

MODEL = NOTEBOOK / "model.onnx"
ROWS = NOTEBOOK / "test.npz"

# Accuracy with the weights rounded to 1 … 8 fractional bits.
FIXED_POINT = [0.86, 0.87, 0.86, 0.865, 0.85, 0.855, 0.855, 0.855]
# Accuracy with 2 … 8 bit integers and one scale for the row.
SYMMETRIC = [0.865, 0.855, 0.87, 0.855, 0.855, 0.855, 0.855]


@pytest.mark.parametrize("bits, accuracy", list(enumerate(FIXED_POINT, start=1)))
def test_fixed_point(fewbits: Fewbits, tmp_path: Path, bits: int, accuracy: float) -> None:
    out = tmp_path / "q.onnx"
    fewbits(
        "quantize", MODEL, "-o", out, "--scheme", "fixed-point", "--bits", bits
    ).assert_done()  # fmt: skip
    assert onnxruntime_score(out, ROWS) == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.parametrize("bits, accuracy", list(enumerate(SYMMETRIC, start=2)))
@pytest.mark.parametrize("options", [[], ["--scheme", "symmetric"]], ids=["default", "named"])
def test_symmetric(
    fewbits: Fewbits, tmp_path: Path, options: list[str], bits: int, accuracy: float
) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", MODEL, "-o", out, "--bits", bits, *options).assert_done()
    assert onnxruntime_score(out, ROWS) == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.parametrize(
    "options, accuracies",
    [
        (["--scheme", "fixed-point", "--bits", "1..8"], FIXED_POINT),
        (["--bits", "2..8"], SYMMETRIC),
    ],
    ids=["fixed-point", "symmetric"],
)
def test_sweep(fewbits: Fewbits, options: list[str], accuracies: list[float]) -> None:
    result = fewbits("sweep", MODEL, "--data", ROWS, *options, "--json").assert_done().json()
    assert [point["metric"] for point in result["points"]] == pytest.approx(accuracies, abs=1e-9)
    assert result["float"]["metric"] == pytest.approx(0.855, abs=1e-9)
    table = fewbits("sweep", MODEL, "--data", ROWS, *options).assert_done().out
    for accuracy in accuracies:
        assert f"{accuracy:.4f}" in table


@pytest.mark.parametrize("rows", ["test.npz", "test_f32.npz", "test.csv"])
@pytest.mark.parametrize("scheme", ["symmetric", "fixed-point"])
def test_compare_before_and_after(fewbits: Fewbits, tmp_path: Path, scheme: str, rows: str) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", MODEL, "-o", out, "--bits", 8, "--scheme", scheme).assert_done()
    result = fewbits("compare", MODEL, out, "--data", NOTEBOOK / rows, "--json").assert_done()
    comparison = result.json()
    assert comparison["metric"] == "accuracy"
    assert comparison["a"]["metric"] == pytest.approx(0.855, abs=1e-9)
    assert comparison["b"]["metric"] == pytest.approx(0.855, abs=1e-9)
    assert comparison["drop"] == pytest.approx(0, abs=1e-9)
    table = fewbits("compare", MODEL, out, "--data", NOTEBOOK / rows).assert_done().out
    assert table.count("0.855") >= 2, table


@pytest.mark.parametrize("export", ["model_zipmap.onnx", "model_defaultopset.onnx"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_other_exports(fewbits: Fewbits, tmp_path: Path, export: str, bits: int) -> None:
    """The labels are those of the plain export at the same width."""
    plain, other = tmp_path / "plain.onnx", tmp_path / "other.onnx"
    fewbits("quantize", MODEL, "-o", plain, "--bits", bits).assert_done()
    fewbits("quantize", NOTEBOOK / export, "-o", other, "--bits", bits).assert_done()
    assert_standard(other)
    x, _ = load_rows(ROWS)
    labels = [open_session(path).run(None, {"X": x})[0].tolist() for path in (plain, other)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("export", ["model_zipmap.onnx", "model_defaultopset.onnx"])
def test_compare_other_exports(fewbits: Fewbits, tmp_path: Path, export: str) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", NOTEBOOK / export, "-o", out, "--bits", 8).assert_done()
    result = fewbits("compare", NOTEBOOK / export, out, "--data", ROWS, "--json").assert_done()
    assert result.json()["a"]["metric"] == pytest.approx(0.855, abs=1e-9)
    assert result.json()["b"]["metric"] == pytest.approx(0.855, abs=1e-9)


def test_fixed_point_says_how_wide_its_integers_are(fewbits: Fewbits, tmp_path: Path) -> None:
    """8 fractional bits make integers up to 410, which need 10 bits."""
    command = ["quantize", MODEL, "-o", tmp_path / "q.onnx", "--scheme", "fixed-point"]
    result = fewbits(*command, "--bits", 8).assert_done()
    assert "10 bits" in result.out + result.err, result.report()
