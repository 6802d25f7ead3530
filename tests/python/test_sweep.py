"""What `fewbits sweep` advises, and that its page says what the JSON says."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import DENSE, FIXTURES, NOTEBOOK, Case, load_rows
from onnx import numpy_helper
from test_demo import REMOTE

LINEAR = [case for case in DENSE if case.name != "mlp"]


def test_page(fewbits: Fewbits, tmp_path: Path) -> None:
    digits, page = FIXTURES / "digits", tmp_path / "page.html"
    command = ["sweep", digits / "mlp.onnx", "--data", digits / "test.npz", "--bits", "2,4,8"]
    result = fewbits(*command, "--report", page, "--json").assert_done().json()
    text = unescape(page.read_text(encoding="utf-8"))
    assert REMOTE.search(text) is None and "<script" not in text
    assert result["verdict"] in text
    for measured in (result["float"], *result["points"]):
        assert f"{measured['metric']:.4f}" in text
        assert f"{measured['file_bytes']:,}" in text
    for note in result["notes"]:
        assert note in text
    for fact in ("cpu", "system", "fewbits"):
        assert result["environment"][fact] in text
    # A second run keeps the first.
    before = page.read_bytes()
    fewbits(*command, "--report", page).assert_refused(1)
    assert page.read_bytes() == before


def sweep(fewbits: Fewbits, case: Case, rows: str, tmp_path: Path) -> dict[str, Any]:
    """A sweep of every width, calibrated on rows without labels if wanted."""
    command = ["sweep", case.model, "--data", case.rows, "--json"]
    if rows == "calibrated":
        np.savez(tmp_path / "calib.npz", X=load_rows(case.rows)[0])
        command += ["--calibrate", tmp_path / "calib.npz"]
    return fewbits(*command).assert_done().json()


@pytest.mark.parametrize("rows", ["weights", "calibrated"])
@pytest.mark.parametrize("case", DENSE, ids=str)
def test_only_what_is_smaller_is_advised(
    fewbits: Fewbits, tmp_path: Path, case: Case, rows: str
) -> None:
    result = sweep(fewbits, case, rows, tmp_path)
    whole, points, advised = result["float"], result["points"], result["advised"]
    candidates = [p for p in points if p["quantized"] and p["file_bytes"] < whole["file_bytes"]]
    near = [p for p in candidates if p["drop"] <= 0.005]
    if advised is None:
        assert not near
        assert result["verdict"].startswith("No width")
        return
    [point] = [p for p in points if p["bits"] == advised["bits"]]
    assert point in near
    assert {key: point[key] for key in advised} == advised
    unit = "1 bit " if advised["bits"] == 1 else f"{advised['bits']} bits "
    assert result["verdict"].startswith(unit)
    for other in points:
        if other["quantized"] and other["bits"] > point["bits"] and other["drop"] <= point["drop"]:
            assert point["file_bytes"] < other["file_bytes"], other
        if other["quantized"] and other["drop"] < point["drop"]:
            assert point["file_bytes"] < other["file_bytes"], other


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_no_method_moves_weights_into_floats(fewbits: Fewbits, tmp_path: Path, case: Case) -> None:
    """Below 8 bits no floats stand in a linear model that do not at 8 bits without any method."""
    np.savez(tmp_path / "calib.npz", X=load_rows(case.rows)[0])
    command = ["quantize", case.model, "--recipe", "static", "--calibrate", tmp_path / "calib.npz"]
    # Where nothing is left float for its accuracy.
    command += ["--min-sqnr", "none"]

    def floats(path: Path) -> int:
        arrays = (numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer)
        return sum(a.size for a in arrays if a.dtype == np.float32)

    plain = tmp_path / "plain.onnx"
    fewbits(*command, "-o", plain, "--methods", "none").assert_done()
    for bits in range(1, 8):
        out = tmp_path / f"{bits}.onnx"
        fewbits(*command, "-o", out, "--bits", bits).assert_done()
        assert floats(out) <= floats(plain)
        assert out.stat().st_size <= plain.stat().st_size


def test_what_tables_and_notes_say(fewbits: Fewbits) -> None:
    command = ["sweep", NOTEBOOK / "model.onnx", "--data", NOTEBOOK / "test.npz"]
    result = fewbits(*command, "--json").assert_done().json()
    sizes = {point["file_bytes"] for point in result["points"]}
    assert len(sizes) == 1
    [why] = [note for note in result["notes"] if "alike" in note]
    assert why.startswith(f"1 to 8 bits take {sizes.pop()} bytes alike: ")
    said = fewbits(*command).assert_done()
    assert why in said.err
    assert "weight bytes" in said.out and "file bytes" in said.out
    rows = re.findall(r"^ (?:float|\d)  .*", said.out, re.MULTILINE)
    for row, measured in zip(rows, [result["float"], *result["points"]], strict=True):
        assert f" {measured['weight_bytes']} " in row and f" {measured['file_bytes']} " in row


@pytest.mark.parametrize("name", ["ridge", "ridge_raw"])
def test_a_width_at_which_nothing_is_quantized_is_none(fewbits: Fewbits, name: str) -> None:
    folder = FIXTURES / "diabetes"
    command = ["sweep", folder / f"{name}.onnx", "--data", folder / "test.npz"]
    said = fewbits(*command).assert_done()
    assert "nothing is quantized" in said.out
    # Once for all widths, not once for each.
    assert said.err.count("nothing is quantized") == 1 and "at 1 to 8 bits" in said.err
    assert fewbits(*command, "--json").assert_done().json()["advised"] is None


class TestFixedPoint:
    """The notebook's rule, round(w * 2^N) / 2^N, half to even."""

    MODEL = NOTEBOOK / "model.onnx"

    @staticmethod
    def weights(path: Path) -> np.ndarray:
        """The column of the product, as the file's operators give it."""
        model = onnx.load(path)
        arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Gemm":
                return arrays[node.input[1]].ravel()
            if node.op_type == "Cast":
                arrays[node.output[0]] = arrays[node.input[0]].astype(np.float32)
            elif node.op_type == "DequantizeLinear":
                q, scale = (arrays[name] for name in node.input[:2])
                arrays[node.output[0]] = q.astype(np.float32) * scale
            elif node.op_type == "Mul" and all(name in arrays for name in node.input):
                arrays[node.output[0]] = arrays[node.input[0]] * arrays[node.input[1]]
        raise AssertionError("no product")

    def test_fifteen_widths_are_numpys(self, fewbits: Fewbits, tmp_path: Path) -> None:
        [node] = onnx.load(self.MODEL).graph.node
        values = next(a.floats for a in node.attribute if a.name == "coefficients")
        w = np.array(values, np.float64)[20:]
        command = ["sweep", self.MODEL, "--data", NOTEBOOK / "test.npz", "--scheme", "fixed-point"]
        result = fewbits(*command, "--bits", "1..15", "-o", tmp_path, "--json").assert_done().json()
        assert [point["bits"] for point in result["points"]] == list(range(1, 16))
        for bits in range(1, 16):
            expected = np.round(w * 2**bits) / 2**bits
            alone = tmp_path / f"alone-{bits}.onnx"
            named = ["--scheme", "fixed-point", "--bits", bits]
            fewbits("quantize", self.MODEL, "-o", alone, *named).assert_done()
            assert alone.read_bytes() == (tmp_path / f"model-{bits}.onnx").read_bytes()
            np.testing.assert_array_equal(self.weights(alone), expected.astype(np.float32))

    def test_integers_of_more_than_16_bits_are_told(self, fewbits: Fewbits, tmp_path: Path) -> None:
        command = ["quantize", self.MODEL, "-o", tmp_path / "q.onnx", "--scheme", "fixed-point"]
        assert "16 bits" not in fewbits(*command, "--bits", 14).assert_done().err
        said = fewbits(*command, "--bits", 15, "--force").assert_done()
        assert "'coef' is rounded and stays float" in said.err and "use fewer bits" in said.err
        calibrated = fewbits(*command, "--bits", 15, "--force", "--calibrate", NOTEBOOK / "test.npz")
        assert "'coef' is rounded and stays float" in calibrated.assert_done().err

    @pytest.mark.parametrize("scheme", ["symmetric", "affine"])
    def test_others_have_at_most_eight_bits(
        self, fewbits: Fewbits, tmp_path: Path, scheme: str
    ) -> None:
        out, data = tmp_path / "q.onnx", NOTEBOOK / "test.npz"
        for command in (
            ["quantize", self.MODEL, "-o", out, "--bits", 9],
            ["sweep", self.MODEL, "--data", data, "--bits", "8..15"],
        ):
            refused = fewbits(*command, "--scheme", scheme)
            refused.assert_refused(2)
            assert "only --scheme fixed-point takes up to 15" in refused.err
        for bits in (0, 16):
            command = ["quantize", self.MODEL, "-o", out, "--scheme", "fixed-point", "--bits", bits]
            fewbits(*command).assert_refused(2)
        assert not out.exists()
