"""Plans, and that the same command writes the same bytes."""

import json
from pathlib import Path

import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, folder_bytes

MODEL = FIXTURES / "digits" / "mlp.onnx"
OPTIONS = [[], ["--bits", "3"], ["--bits", "4", "--scheme", "affine", "--granularity", "group=16"]]


def quantize(fewbits: Fewbits, out: Path, *options: object) -> bytes:
    fewbits("quantize", MODEL, "-o", out, *options).assert_done()
    return out.read_bytes()


def test_dry_run_prints_and_writes_nothing(fewbits: Fewbits, tmp_path: Path) -> None:
    result = fewbits("quantize", MODEL, "-o", tmp_path / "q.onnx", "--dry-run").assert_done()
    assert "coefficient" in result.out, result.report()
    assert folder_bytes(tmp_path) == {}


def test_dry_run_as_json(fewbits: Fewbits, tmp_path: Path) -> None:
    command = ["quantize", MODEL, "-o", tmp_path / "q.onnx", "--dry-run", "--json"]
    plan = fewbits(*command).assert_done().json()
    assert "coefficient" in json.dumps(plan)
    assert folder_bytes(tmp_path) == {}


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_saved_plan_writes_the_same_bytes(
    fewbits: Fewbits, tmp_path: Path, options: list[str]
) -> None:
    plan = tmp_path / "plan.json"
    first = quantize(fewbits, tmp_path / "a.onnx", "--save-plan", plan, *options)
    assert isinstance(json.loads(plan.read_text()), dict)
    assert quantize(fewbits, tmp_path / "b.onnx", "--plan", plan) == first


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_runs_and_threads_do_not_change_bytes(
    fewbits: Fewbits, tmp_path: Path, options: list[str]
) -> None:
    first = quantize(fewbits, tmp_path / "a.onnx", *options)
    assert quantize(fewbits, tmp_path / "b.onnx", *options) == first
    for threads in (1, 2, 5):
        out = tmp_path / f"threads{threads}.onnx"
        assert quantize(fewbits, out, "--threads", threads, *options) == first


def test_the_model_says_where_it_came_from(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    quantize(fewbits, out)
    keys = {entry.key for entry in onnx.load(out).metadata_props}
    assert any(key.startswith("fewbits.") for key in keys), keys


def test_force_replaces_an_output(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    eight = quantize(fewbits, out, "--bits", 8)
    four = quantize(fewbits, out, "--bits", 4, "--force")
    assert len(four) < len(eight)
    assert list(folder_bytes(tmp_path)) == ["q.onnx"]
