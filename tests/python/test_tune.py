"""`tune`: the best model within a drop is always in its place, and a search that goes on after it
was killed ends as one that was not."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Fewbits
from models import FIXTURES, folder_bytes, open_session

DIGITS = FIXTURES / "digits"
CNN = FIXTURES / "digits_cnn"
LM = FIXTURES / "tiny_lm"
MLP = [DIGITS / "mlp.onnx", "--data", DIGITS / "test.npz", "--calibrate", DIGITS / "test.npz"]
NET = [CNN / "model.onnx", "--data", CNN / "test.npz", "--calibrate", CNN / "calib.npz"]
# Moments at which the search is killed.
MOMENTS = 20


def test_the_figures_are_those_of_the_file(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "best.onnx"
    command = ["tune", *NET, "--max-drop", 0.005, "-o", out, "--json"]
    tuned = fewbits(*command).assert_done().json()
    best = tuned["best"]
    assert Path(tuned["out"]) == out
    assert best["file_bytes"] == out.stat().st_size < tuned["float"]["file_bytes"] / 4
    assert best["drop"] <= 0.005
    assert tuned["complete"]
    assert best["file_bytes"] in {point["file_bytes"] for point in tuned["points"]}
    assert {"tensor", "costs"} <= set(tuned["sensitivity"][0])
    open_session(out)
    compared = fewbits("compare", NET[0], out, *NET[1:3], "--json").assert_done().json()
    assert compared["b"]["metric"] == best["metric"]
    assert compared["drop"] == pytest.approx(best["drop"])


def test_a_language_model_keeps_its_perplexity(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "best.onnx"
    data = ["--data", LM / "test.npz", "--calibrate", LM / "calib.npz", "--metric", "perplexity"]
    command = ["tune", LM / "model.onnx", *data, "--max-drop", 0.08, "-o", out, "--json"]
    best = fewbits(*command).assert_done().json()["best"]
    assert best["drop"] <= 0.08
    assert best["file_bytes"] == out.stat().st_size <= 190_000


def test_the_fastest_model_holds_the_drop(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "best.onnx"
    command = ["tune", *NET, "--max-drop", 0.005, "-o", out, "--objective", "latency", "--json"]
    tuned = fewbits(*command).assert_done().json()
    assert tuned["best"]["drop"] <= 0.005
    assert tuned["best"]["file_bytes"] == out.stat().st_size
    open_session(out)


def test_agreement_is_a_metric_too(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "best.onnx"
    command = ["tune", *NET, "--metric", "agreement", "--max-drop", 0.02, "-o", out, "--json"]
    tuned = fewbits(*command).assert_done().json()
    assert tuned["best"]["metric"] == tuned["best"]["agreement"] >= 0.98
    assert tuned["sensitivity"][0]["costs"][0]["drop"] is None


def test_killed_at_any_moment_it_goes_on_to_the_same_model(
    binary: Path, fewbits: Fewbits, tmp_path: Path
) -> None:
    options = ["--max-drop", "0.005"]
    whole = tmp_path / "whole.onnx"
    fewbits("tune", *NET, *options, "-o", whole).assert_done()
    moments = random.Random(7)
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        out, state = folder / "best.onnx", folder / "state.json"
        command = ["tune", *map(str, NET), *options, "-o", str(out), "--resume", str(state)]
        search = subprocess.Popen(
            [str(binary), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            search.wait(timeout=moments.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            search.kill()
            search.wait()
        if out.exists():
            open_session(out)
        fewbits(*command).assert_done()
        assert out.read_bytes() == whole.read_bytes(), f"moment {moment}"


def test_ctrl_c_leaves_the_best_so_far(binary: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "best.onnx", tmp_path / "state.json"
    data = ["--data", LM / "test.npz", "--calibrate", LM / "calib.npz", "--metric", "perplexity"]
    command = [binary, "tune", LM / "model.onnx", *data, "--max-drop", "0.08", "-o", out]
    search = subprocess.Popen(
        [*map(str, command), "--resume", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while search.poll() is None and not state.exists():
        time.sleep(0.01)
    os.kill(search.pid, signal.SIGINT)
    said, _ = search.communicate(timeout=120)
    assert search.returncode == 0
    assert "stopped before the end" in said
    open_session(out)


def test_where_nothing_holds_nothing_is_written(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("tune", *MLP, "--max-drop=-1", "-o", tmp_path / "best.onnx")
    assert result.code == 3, result.report()
    assert "no model with fewer bits" in result.err
    assert folder_bytes(tmp_path) == {}


def test_the_same_rows_for_both_are_told(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("tune", *MLP, "--max-drop", 0.01, "-o", tmp_path / "best.onnx")
    assert "other data" in result.assert_done().err


def test_a_time_limit_ends_the_search(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "best.onnx"
    result = fewbits("tune", *MLP, "--max-drop", 0.01, "-o", out, "--time-limit", 0, "--json")
    assert result.code == 3, result.report()
    assert not result.json()["complete"]
    assert not out.exists()


def test_the_page(fewbits: Fewbits, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ["tune", *MLP, "--max-drop", 0.01, "-o", tmp_path / "best.onnx", "--report", page]
    tuned = fewbits(*command, "--json").assert_done().json()
    html = page.read_text()
    assert f'data-value="{tuned["best"]["file_bytes"]}"' in html
    assert "<script" not in html


class TestBadInput:
    def test_an_output_that_exists(self, fewbits: Fewbits, tmp_path: Path) -> None:
        out = tmp_path / "best.onnx"
        out.write_bytes(b"mine")
        fewbits("tune", *MLP, "--max-drop", 0.01, "-o", out).assert_refused()
        assert out.read_bytes() == b"mine"

    def test_a_state_of_another_search(self, fewbits: Fewbits, tmp_path: Path) -> None:
        state = tmp_path / "state.json"
        common = ["-o", tmp_path / "best.onnx", "--resume", state, "--force"]
        fewbits("tune", *MLP, "--max-drop", 0.01, *common).assert_done()
        before = folder_bytes(tmp_path)
        fewbits("tune", *MLP, "--max-drop", 0.02, *common).assert_refused()
        state.write_text("{")
        fewbits("tune", *MLP, "--max-drop", 0.01, *common).assert_refused()
        assert folder_bytes(tmp_path).keys() == before.keys()

    def test_no_labels(self, fewbits: Fewbits, tmp_path: Path) -> None:
        data = ["--data", LM / "calib.npz", "--calibrate", LM / "calib.npz"]
        out = tmp_path / "best.onnx"
        fewbits("tune", LM / "model.onnx", *data, "--max-drop", 0.1, "-o", out).assert_refused()
        assert folder_bytes(tmp_path) == {}
