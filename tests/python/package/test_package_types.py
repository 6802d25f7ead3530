"""Results are dataclasses, and type checkers see what is in them."""

import ast
import dataclasses
import importlib
import inspect
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import HANGS_AFTER_SECONDS, ROOT
from models import FIXTURES
from onnx import TensorProto, helper, numpy_helper

import fewbits as fb
from fewbits.record import Record, Tagged, read_json
from fewbits.table import Tabled

USER = Path(__file__).with_name("typed_results.py")
CONFIG = ROOT / "bindings" / "python" / "pyproject.toml"
MODEL = FIXTURES / "digits" / "mlp.onnx"
ROWS = np.load(FIXTURES / "digits" / "test.npz")
X, Y = ROWS["X"], ROWS["y"]


def subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


RESULTS = [kind for kind in subclasses(Record) if kind not in (Tagged, Tabled)]


def mypy(*what: str | Path) -> str:
    """What mypy has against it."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", CONFIG, *what]
    # Beside no sources, so that the package is the one that is installed.
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS, cwd=USER.parent
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_installed_package_is_strictly_typed() -> None:
    assert mypy("-p", "fewbits") == ""


def test_a_user_sees_every_type() -> None:
    assert mypy("--disallow-any-expr", USER) == ""


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_results_are_frozen_dataclasses_whose_every_type_is_asserted(kind: type) -> None:
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    names = {field.name for field in dataclasses.fields(kind)}
    names |= {name for name, one in inspect.getmembers(kind) if isinstance(one, property)}
    asserted = set()
    for function in ast.parse(USER.read_text(encoding="utf-8")).body:
        if isinstance(function, ast.FunctionDef) and function.args.args[0].annotation is not None:
            of = ast.unparse(function.args.args[0].annotation).removeprefix("fb.")
            # What holds of a class holds of those that are made of it.
            if of in {base.__name__ for base in kind.__mro__}:
                parts = [n for n in ast.walk(function) if isinstance(n, ast.Attribute)]
                asserted |= {n.attr for n in parts if ast.unparse(n.value) == "x"}
    assert names <= asserted, names - asserted
    own = [name for name in inspect.get_annotations(kind) if name not in (kind.__doc__ or "")]
    assert not own, f"{own} are not documented"


def poor(folder: Path) -> Path:
    """The same answers, but a pixel that is always 0 takes the scale of every hidden unit."""
    model = onnx.load(MODEL)
    assert not X[:, 0].any()
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor).copy()
        if weight.ndim == 2 and weight.shape[0] == X.shape[1]:
            weight[0] = 1e5
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, folder / "poor.onnx")
    return folder / "poor.onnx"


CALLS = {
    "compare": lambda _: fb.compare(MODEL, fb.quantize(MODEL, 2), X, Y),
    "compare equals": lambda _: fb.compare(MODEL, MODEL, X),
    "sweep": lambda f: fb.sweep(MODEL, X, Y, bits=[2, 8], folder=f),
    "sweep without labels": lambda _: fb.sweep(MODEL, X, bits=[4], scheme="fixed-point"),
    "inspect": lambda _: fb.inspect(MODEL),
    "inspect static": lambda _: fb.inspect(fb.quantize(MODEL, calibration=X)),
    "guarded": lambda f: fb.quantize(
        poor(f), calibration=X, methods="none", data=(X, Y), max_drop=0.01
    ).guarded,
    "not guarded": lambda _: fb.quantize(MODEL).guarded,
    "tune": lambda _: fb.tune(MODEL, X, X, Y, max_drop=0.01),
    "tune for time": lambda f: fb.tune(poor(f), X, X, Y, max_drop=0.01, objective="latency"),
    "tune in vain": lambda _: fb.tune(MODEL, X[:50], X[:50], Y[:50], max_drop=-1.0),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_read_is_what_was_told(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`to_dict` is the native module's JSON, whatever is in it."""
    told = {}

    def listen(kind: type, text: str) -> Record:
        told[kind] = text
        return read_json(kind, text)

    for module in ("measure", "model", "quantize"):
        monkeypatch.setattr(importlib.import_module(f"fewbits.{module}"), "read_json", listen)
    result = CALLS[call](tmp_path)
    kind = type(result)
    assert result.to_dict() == json.loads(told[kind])
    assert read_json(kind, json.dumps(result.to_dict())) == read_json(kind, told[kind])


SCHEMES = ["symmetric", "affine", "fixed-point", "fp8-e4m3", "mxfp4", "nvfp4"]


@pytest.mark.parametrize(
    "options",
    [
        *({"scheme": scheme} for scheme in SCHEMES),
        {"bits": 4, "granularity": "group=8"},
        {"bits": 4, "granularity": "tensor", "scales": "f16"},
        {"bits": 3, "rounding": "gptq", "calibration": X},
        {"recipe": "dynamic", "target": "onnxruntime"},
        {"calibration": X},
        {"calibration": X, "range": "percentile=99.9", "methods": "equalization,smoothquant"},
        {"calibration": X, "methods": "bias-correction", "range": "auto"},
        {"calibration": X, "bits": 2},
    ],
    ids=str,
)
def test_plans_are_read_and_written(options: dict) -> None:
    plan = fb.plan(MODEL, **options)
    told = plan.to_dict()
    assert fb.Plan(json.dumps(told)) == plan == fb.Plan.read(plan)
    # The library takes what we write for the same plan.
    from fewbits import _fewbits

    assert json.loads(_fewbits.check_plan(plan.to_json())) == told
    assert len(repr(plan).splitlines()) >= 2 + len(plan.tensors)
    for tensor in plan.tensors:
        assert (tensor.scheme is None) != (tensor.float is None)
    if "recipe" in options:
        assert any(activation.is_dynamic for activation in plan.activations)
        assert "scaled at every call" in repr(plan)


@pytest.mark.parametrize("objective", ["size", "latency"])
def test_tuned(objective: str) -> None:
    options = {"recipe": "static"} if objective == "latency" else {}
    tuned = fb.tune(MODEL, X, X, Y, max_drop=0.01, objective=objective, **options)
    # Its rows are as wide as its head.
    assert "mean bits" in repr(tuned) and "weight bytes" in tuned._repr_html_()
    assert tuned.points and tuned.objective == objective
    assert (tuned.best is None) == (tuned.model is None)
    if tuned.best is not None:
        assert tuned.model is not None and tuned.model.plan == tuned.best.plan
        assert tuned.to_dict()["best"]["plan"] == tuned.best.plan.to_dict()
    assert "model" not in tuned.to_dict()
    json.dumps(tuned.to_dict())


def test_what_json_cannot_hold_is_not_a_number(tmp_path: Path) -> None:
    """A weight with NaN still prints."""
    weight = np.ones((4, 3), np.float32)
    weight[1, 1] = np.nan
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "holes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    inspected = fb.inspect(tmp_path / "m.onnx")
    [tensor] = inspected.tensors
    assert math.isnan(tensor.min) and math.isnan(tensor.max)
    assert "nan" in repr(inspected) and inspected.to_dict()["tensors"][0]["min"] is None


def test_results_are_as_they_were_measured() -> None:
    comparison = fb.compare(MODEL, MODEL, X, Y, max_drop=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        comparison.drop = 0.0  # type: ignore[misc]
    # A field by its key, as in the JSON.
    assert comparison["drop"] == comparison.drop and comparison.a["metric"] == comparison.a.metric
    with pytest.raises(KeyError, match="dorp"):
        comparison["dorp"]
    with pytest.raises(AttributeError, match="dorp"):
        comparison.dorp  # type: ignore[attr-defined]
    assert comparison.max_drop == 0.5 and "max_drop" not in comparison.to_dict()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fewbits_plan": 2, "tensors": []}'])
def test_what_is_no_plan_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="plan"):
        fb.Plan(text)
