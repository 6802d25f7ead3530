"""Plans, and that the same command writes the same bytes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, folder_bytes
from onnx import TensorProto, helper, numpy_helper

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


NO_FIT = FIXTURES / "reports" / "plan-does-not-fit"


@pytest.mark.parametrize("methods", ["auto", "smoothquant", "equalization,smoothquant"])
@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_a_plan_of_our_own_is_never_refused(
    fewbits: Fewbits, tmp_path: Path, recipe: str, methods: str
) -> None:
    """The name that SmoothQuant gives to what it scales is taken here."""
    plan = tmp_path / "plan.json"
    command = ["quantize", NO_FIT / "model.onnx", "-o", tmp_path / "a.onnx", "--recipe", recipe]
    command += ["--calibrate", NO_FIT / "in.npz", "--methods", methods, "--save-plan", plan]
    fewbits(*command).assert_done()
    command = ["quantize", NO_FIT / "model.onnx", "-o", tmp_path / "b.onnx", "--plan", plan]
    fewbits(*command).assert_done()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_plan_of_huge_weights_writes_the_same_bytes(fewbits: Fewbits, tmp_path: Path) -> None:
    """The squares of their errors are no numbers of 32 bits."""
    w = np.random.default_rng(1).normal(0, 1e25, (32, 32)).astype(np.float32)
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 32]) for n in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = numpy_helper.from_array(w, "w")
    graph = helper.make_graph([product], "g", value[:1], value[1:], [weight])
    model, plan = tmp_path / "m.onnx", tmp_path / "plan.json"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), model)
    a, b = tmp_path / "a.onnx", tmp_path / "b.onnx"
    fewbits("quantize", model, "-o", a, "--save-plan", plan).assert_done()
    fewbits("quantize", model, "-o", b, "--plan", plan).assert_done()
    assert a.read_bytes() == b.read_bytes()


def broken_plans(plan: dict) -> dict[str, tuple[dict, str]]:
    """Plans that do not fit the model, and what their refusal must name."""
    first = next(t for t in plan["tensors"] if "scheme" in t)
    name = first["tensor"]
    float_entry = {k: first[k] for k in ("tensor", "shape", "read_by")} | {"float": "asked for"}
    multiply = {"edit": {"multiply": {"tensor": "nothing like it", "axis": 0}}, "values": [1.0]}
    return {
        "float": ({"tensors": [*plan["tensors"], float_entry | {"tensor": name + "x"}]}, name),
        "scheme": ({"tensors": [first | {"tensor": name + "x"}]}, name),
        "only float": ({"tensors": [float_entry | {"tensor": name + "x"}]}, name),
        "shape": ({"tensors": [float_entry | {"shape": [1, 2, 3]}]}, name),
        "twice": ({"tensors": [first, float_entry]}, "twice"),
        "activation": (
            {"activations": [{"value": "no_such", "readers": "products", "float": "asked for"}]},
            "no_such",
        ),
        "reduced range": (
            {"reduced_range": [{"tensor": "no_such", "channels": [0], "why": "pairs"}]},
            "no_such",
        ),
        "nothing": ({"tensors": []}, "it decides about no tensor"),
        "adjustment": ({"adjustments": [multiply | {"method": "smoothquant"}]}, "nothing like it"),
    }


@pytest.mark.parametrize(
    "how",
    [
        "float",
        "scheme",
        "only float",
        "shape",
        "twice",
        "activation",
        "reduced range",
        "nothing",
        "adjustment",
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["written", "dry"])
def test_a_plan_of_what_is_not_there_is_refused(
    fewbits: Fewbits, tmp_path: Path, how: str, dry: list[str]
) -> None:
    saved = tmp_path / "plan.json"
    quantize(fewbits, tmp_path / "a.onnx", "--save-plan", saved)
    plan = json.loads(saved.read_text())
    change, named = broken_plans(plan)[how]
    saved.write_text(json.dumps(plan | change))
    out = tmp_path / "b.onnx"
    refused = fewbits("quantize", MODEL, "-o", out, "--plan", saved, *dry)
    refused.assert_refused(1)
    assert named in refused.err and not out.exists(), refused.report()
