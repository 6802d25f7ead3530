"""`fewbits bench`: what it answers and what it refuses. No test looks at how fast anything is."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import FIXTURES, NOTEBOOK
from nets import save
from onnx import helper

MLP = FIXTURES / "digits" / "mlp.onnx"
ROWS = FIXTURES / "digits" / "test.npz"
CNN = FIXTURES / "digits_cnn" / "model.onnx"
QUICK = ("--seconds", 0.01)

SIDE_KEYS = {"path", "median_ms", "p10_ms", "p90_ms", "rows_per_second", "calls"}


def net(path: Path, *shape: int | str, integers: bool = False) -> Path:
    """Doubles its input, which is of floats or, for a sequence, of integers."""
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("Add", ["f", "f"], ["y"])]
    names = ["x"] if integers else []
    return save(path, nodes, {}, {"x": shape}, rank=len(shape), integers=names)


def test_two_models(fewbits: Fewbits, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    fewbits("quantize", MLP, "-o", small).assert_done()
    command = ["bench", MLP, "--against", small, "--data", ROWS, "--batch", 4, "--threads", 1]
    result = fewbits(*command, "--json", *QUICK).assert_done().json()
    assert (result["threads"], result["batch"], result["notes"]) == (1, 4, [])
    for side, path in (("a", MLP), ("b", small)):
        measured = result[side]
        assert SIDE_KEYS <= set(measured)
        assert Path(measured["path"]) == path
        assert 0 < measured["p10_ms"] <= measured["median_ms"] <= measured["p90_ms"]
        assert measured["rows_per_second"] == pytest.approx(4e3 / measured["median_ms"])
        # A figure, or the reason why there is none.
        known = measured["energy_j"] is not None
        assert known != ("not available on this machine" in result["energy_note"])
    assert result["a"]["calls"] == result["b"]["calls"] >= 3
    assert result["ratio"] == pytest.approx(result["a"]["median_ms"] / result["b"]["median_ms"])
    table = fewbits(*command, *QUICK).assert_done().out
    assert "mlp.onnx" in table and "small.onnx" in table and "4 rows" in table


def test_one_model_on_made_up_inputs(fewbits: Fewbits) -> None:
    done = fewbits("bench", CNN, "--json", *QUICK).assert_done()
    result = done.json()
    assert result["threads"] >= 1 and result["batch"] == 1
    assert result["b"] is None and result["ratio"] is None
    assert "input [1, 1, 8, 8]" in result["notes"][0] and result["notes"][0] in done.err


def test_data_is_repeated_to_fill_a_batch(fewbits: Fewbits, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", X=np.load(ROWS)["X"][:3])
    command = ["bench", MLP, "--data", tmp_path / "few.npz", "--batch", 8, "--json"]
    assert fewbits(*command, *QUICK).assert_done().json()["batch"] == 8


def test_sequences_are_made_up_and_told(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", "batch", "sequence", integers=True)
    done = fewbits("bench", model, "--batch", 2, *QUICK).assert_done()
    assert "x [2, 128]" in done.err and "128" in done.err


def test_a_fixed_batch_is_kept(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", 3, 4)
    assert fewbits("bench", model, "--json", *QUICK).assert_done().json()["batch"] == 3
    refused = fewbits("bench", model, "--batch", 2, *QUICK)
    refused.assert_refused(1)
    assert "3 rows" in refused.err and "--batch" in refused.err


def test_what_cannot_be_made_up_is_refused(fewbits: Fewbits, tmp_path: Path) -> None:
    model = net(tmp_path / "m.onnx", "batch", "channels", 4)
    refused = fewbits("bench", model, *QUICK)
    refused.assert_refused(1)
    assert "'x'" in refused.err and "--data" in refused.err
    np.savez(tmp_path / "x.npz", X=np.zeros((2, 3, 4), np.float32))
    fewbits("bench", model, "--data", tmp_path / "x.npz", *QUICK).assert_done()


@pytest.mark.parametrize("data", [[], ["--data", ROWS]], ids=["made up", "data"])
def test_another_kind_of_model_is_named(fewbits: Fewbits, data: list) -> None:
    refused = fewbits("bench", MLP, "--against", CNN, *data, *QUICK)
    refused.assert_refused(1)
    assert str(CNN) in refused.err


@pytest.mark.parametrize(
    "options",
    [["--batch", 0], ["--seconds", "x"], ["--seconds", "nan"], ["--limit", 3], ["--threads", 0]],
    ids=str,
)
def test_usage(fewbits: Fewbits, options: list) -> None:
    fewbits("bench", NOTEBOOK / "model.onnx", *options).assert_refused(2)
