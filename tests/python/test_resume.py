"""`quantize --resume`: killed after any layer, it goes on to the same bytes."""

import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import FIXTURES

LM = FIXTURES / "tiny_lm"
MODEL, CALIB = LM / "model.onnx", LM / "calib.npz"
OPTIONS = ["--bits", "3", "--granularity", "group=32", "--scheme", "affine"]
OPTIONS += ["--calibrate", str(CALIB), "--limit", "32"]
# Runs that are killed, fewer where a run is long.
MOMENTS = {"gptq": 6, "adaround": 3, "auto": 2}


def run_until(command: list[str], state: Path, size: int) -> bool:
    """Kills the command once its state has `size` bytes; whether it was still running."""
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    while running.poll() is None:
        if state.exists() and state.stat().st_size >= size:
            running.kill()
            running.wait()
            return True
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("rounding", MOMENTS)
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    binary: Path, fewbits: Fewbits, tmp_path: Path, rounding: str
) -> None:
    command = ["quantize", str(MODEL), *OPTIONS, "--rounding", rounding]
    plain = tmp_path / "plain.onnx"
    fewbits(*command, "-o", plain).assert_done()
    state = tmp_path / "whole.state"
    whole = tmp_path / "whole.onnx"
    fewbits(*command, "-o", whole, "--resume", state).assert_done()
    assert whole.read_bytes() == plain.read_bytes()
    complete = state.stat().st_size
    sizes = random.Random(11)
    killed = 0
    for moment in range(MOMENTS[rounding]):
        folder = tmp_path / str(moment)
        folder.mkdir()
        out, state, plan = folder / "q.onnx", folder / "layers.state", folder / "plan.json"
        resumed = [*command, "-o", str(out), "--resume", str(state), "--save-plan", str(plan)]
        # Each of two runs is killed a little later than the one before.
        for size in sorted(sizes.randrange(complete) for _ in range(2)):
            killed += run_until([str(binary), *resumed], state, size)
        fewbits(*resumed).assert_done()
        assert out.read_bytes() == plain.read_bytes(), f"moment {moment}"
        assert state.stat().st_size == complete
    assert killed


@pytest.mark.parametrize("cut", [1, 40, 5000])
def test_a_layer_that_is_cut_short_is_done_again(
    fewbits: Fewbits, tmp_path: Path, cut: int
) -> None:
    out, state = tmp_path / "q.onnx", tmp_path / "layers.state"
    command = ["quantize", MODEL, *OPTIONS, "--rounding", "gptq", "-o", out, "--resume", state]
    fewbits(*command).assert_done()
    finished, layers = out.read_bytes(), state.read_bytes()
    out.unlink()
    state.write_bytes(layers[:-cut])
    fewbits(*command).assert_done()
    assert out.read_bytes() == finished and state.read_bytes() == layers


def test_a_plan_goes_on_too(fewbits: Fewbits, tmp_path: Path) -> None:
    plan, first, out = tmp_path / "plan.json", tmp_path / "first.onnx", tmp_path / "q.onnx"
    command = ["quantize", MODEL, *OPTIONS, "--rounding", "gptq", "--save-plan", plan]
    fewbits(*command, "-o", first).assert_done()
    state = tmp_path / "layers.state"
    command = ["quantize", MODEL, "--plan", plan, "--calibrate", CALIB, "--limit", 32]
    command += ["-o", out, "--resume", state]
    for _ in range(2):
        fewbits(*command).assert_done()
        assert out.read_bytes() == first.read_bytes()


def test_the_state_of_something_else_is_refused(fewbits: Fewbits, tmp_path: Path) -> None:
    state, out = tmp_path / "layers.state", tmp_path / "q.onnx"
    command = ["quantize", MODEL, *OPTIONS, "--rounding", "gptq", "--resume", state]
    fewbits(*command, "-o", tmp_path / "first.onnx").assert_done()
    before = state.read_bytes()
    model = tmp_path / "other.onnx"
    model.write_bytes(MODEL.read_bytes() + b"\x22\x00")
    data = tmp_path / "other.npz"
    arrays = dict(np.load(CALIB))
    np.savez(data, **{name: array[::-1] for name, array in arrays.items()})
    plan = tmp_path / "plan.json"
    fewbits(*command[:-2], "-o", tmp_path / "p.onnx", "--save-plan", plan).assert_done()

    def refuse(*options: object) -> None:
        result = fewbits(*options, "-o", out, "--resume", state)
        result.assert_refused(1)
        assert "layers.state" in result.err and "--resume" in result.err
        assert not out.exists() and state.read_bytes() == before

    refuse("quantize", model, *OPTIONS, "--rounding", "gptq")
    refuse("quantize", MODEL, *OPTIONS, "--rounding", "adaround")
    refuse("quantize", MODEL, *OPTIONS[2:], "--bits", 4, "--rounding", "gptq")
    refuse("quantize", MODEL, *OPTIONS[:-1], 31, "--rounding", "gptq")
    others = [data if option == str(CALIB) else option for option in OPTIONS]
    refuse("quantize", MODEL, *others, "--rounding", "gptq")
    refuse("quantize", MODEL, "--plan", plan, "--calibrate", CALIB, "--limit", 32)


@pytest.mark.parametrize("junk", [b"", b"{}", b"junk\n", b"\xff" * 1000, b'{"fewbits_tune":1}\n'])
def test_what_is_no_state_is_refused_and_kept(
    fewbits: Fewbits, tmp_path: Path, junk: bytes
) -> None:
    state, out = tmp_path / "layers.state", tmp_path / "q.onnx"
    state.write_bytes(junk)
    command = ["quantize", MODEL, *OPTIONS, "--rounding", "gptq", "-o", out, "--resume", state]
    fewbits(*command).assert_refused(1)
    assert state.read_bytes() == junk and not out.exists()


def test_without_data_there_is_nothing_to_go_on_with(fewbits: Fewbits, tmp_path: Path) -> None:
    command = ["quantize", MODEL, "-o", tmp_path / "q.onnx", "--resume", tmp_path / "state"]
    result = fewbits(*command)
    assert result.code == 2 and "--calibrate" in result.err
    assert not list(tmp_path.iterdir())
