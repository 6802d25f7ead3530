"""NaN and empty cells in data are told, and refused where they are many."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import FIXTURES

MODEL = FIXTURES / "notebook" / "model.onnx"
COMMANDS = [
    ("run", MODEL, "-o", "answers.npz", "--data"),
    ("compare", MODEL, MODEL, "--data"),
    ("sweep", MODEL, "--bits", "8", "--data"),
]


def table(path: Path, empty: dict[int, int]) -> Path:
    """The rows of the notebook's test set, cells left empty by their row and column from 1."""
    header, *rows = (FIXTURES / "notebook" / "test.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    for row, column in empty.items():
        cells[row - 1][column - 1] = ""
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_few_are_told_with_the_first(
    fewbits: Fewbits, tmp_path: Path, command: tuple[object, ...]
) -> None:
    data = table(tmp_path / "data.csv", {3: 5, 9: 1})
    column = data.read_text().split("\n")[0].split(",")[4]
    done = fewbits(*command, data, cwd=tmp_path).assert_done()
    warnings = [line for line in done.err.splitlines() if "NaN" in line]
    assert len(warnings) == 1, done.report()
    assert warnings[0].startswith(f"warning: {data}: 2 of ")
    assert f"the first in row 3, column '{column}'" in warnings[0]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_many_are_refused(
    fewbits: Fewbits, tmp_path: Path, command: tuple[object, ...]
) -> None:
    rows = len((FIXTURES / "notebook" / "test.csv").read_text().splitlines()) - 1
    data = table(tmp_path / "data.csv", {row: 2 for row in range(1, rows + 1)})
    refusal = fewbits(*command, data, cwd=tmp_path)
    refusal.assert_refused(1)
    assert f"{rows} of " in refusal.err and "row 1, column" in refusal.err
    assert not (tmp_path / "answers.npz").exists()


def test_calibration_tells_where_the_first_is(fewbits: Fewbits, tmp_path: Path) -> None:
    data = table(tmp_path / "data.csv", {3: 5, 9: 1})
    quantize = ("quantize", MODEL, "-o", tmp_path / "small.onnx", "--recipe", "static")
    refusal = fewbits(*quantize, "--calibrate", data)
    refusal.assert_refused(1)
    assert "2 of 4000 numbers are NaN or missing, the first in row 3, column 'x4'" in refusal.err


def test_arrays_are_looked_at_too(fewbits: Fewbits, tmp_path: Path) -> None:
    rows = np.load(FIXTURES / "digits" / "test.npz")
    x = rows["X"].astype(np.float32)
    x[7, 12] = np.nan
    np.savez(tmp_path / "data.npz", X=x, y=rows["y"])
    run = ("run", FIXTURES / "digits" / "mlp.onnx", "--data", tmp_path / "data.npz", "-o")
    done = fewbits(*run, tmp_path / "a.npz").assert_done()
    assert "1 of 28800 numbers is NaN or missing, the first in row 8, column 13" in done.err
    # As they are is as they are.
    whole = fewbits(*run, tmp_path / "b.npz", "--batch", "whole").assert_done()
    assert whole.err == ""
