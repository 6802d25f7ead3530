"""`fewbits inspect --runtime`: the steps in which a model runs, and why some are left to rten."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from meaning import meaning
from models import FIXTURES
from nets import save
from onnx import TensorProto, helper

CNN = FIXTURES / "digits_cnn"
STEP_KEYS = {"node", "what", "where", "nodes", "why", "exact"}


def execution(fewbits: Fewbits, model: Path) -> dict:
    result = fewbits("inspect", model, "--runtime", "--json").assert_done().json()
    assert set(result) == {"path", "cpu", "steps", "nodes", "own_nodes", "rten_regions"}
    steps = result["steps"]
    assert all(set(step) == STEP_KEYS for step in steps)
    rest = [step for step in steps if step["where"] == "rten"]
    assert {step["where"] for step in steps} <= {"integers", "floats", "rten"}
    assert result["rten_regions"] == len(rest)
    assert result["nodes"] == sum(step["nodes"] for step in steps)
    assert result["nodes"] - result["own_nodes"] == sum(step["nodes"] for step in rest)
    assert all(bool(step["why"]) == (step["where"] == "rten") for step in steps)
    assert all(step["exact"] for step in steps if step["where"] != "rten")
    return result


@pytest.fixture(scope="module")
def static(fewbits: Fewbits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("static") / "cnn.onnx"
    command = ["quantize", CNN / "model.onnx", "-o", out, "--recipe", "static"]
    fewbits(*command, "--calibrate", CNN / "calib.npz").assert_done()
    return out


def test_convolutions_are_fused(fewbits: Fewbits, static: Path) -> None:
    result = execution(fewbits, static)
    what = {step["what"]: step for step in result["steps"]}
    assert what["Conv + Add"]["where"] == what["depth-wise Conv"]["where"] == "integers"
    assert what["Conv + Add"]["nodes"] >= 3
    # Over images it is one of integers.
    assert what["ReduceMean"]["where"] == "integers"


def test_all_nodes_are_counted(fewbits: Fewbits, static: Path) -> None:
    # Those that depend on an input: all but the DequantizeLinear of weights and biases.
    held = fewbits("inspect", static, "--json").assert_done().json()["operators"]
    weights = 12
    assert execution(fewbits, static)["nodes"] == sum(held.values()) - weights


def test_the_table_says_the_same(fewbits: Fewbits, static: Path, tmp_path: Path) -> None:
    result = execution(fewbits, static)
    text = fewbits("inspect", static, "--runtime").assert_done().out
    assert text.splitlines()[0].endswith(f"kernels for {result['cpu']}")
    nodes = result["nodes"]
    summary = f"{nodes} of {nodes} nodes run on our kernels; nothing in rten, so every CPU gives the same bits"
    assert text.splitlines()[-1] == summary
    assert "Conv + Add" in text

    left = convolution(tmp_path / "left.onnx", **BY_SIZE)
    result = execution(fewbits, left)
    text = fewbits("inspect", left, "--runtime").assert_done().out
    summary = f"{result['own_nodes']} of {result['nodes']} nodes run on our kernels; 1 region in rten"
    assert text.splitlines()[-1] == summary
    assert "whose last bits may depend on the CPU" in text
    assert not any(step["exact"] for step in result["steps"] if step["where"] == "rten")


def test_regions_that_round_nothing_are_told_apart(fewbits: Fewbits, tmp_path: Path) -> None:
    constants = {
        "from": np.array([1]),
        "to": np.array([5]),
        "s": np.array(0.1, np.float32),
        "z": np.array(3, np.uint8),
        "w": np.ones((4, 3), np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["x", "from", "to", "from"], ["part"], name="part"),
        helper.make_node("QuantizeLinear", ["part", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    model = save(tmp_path / "net.onnx", nodes, constants, {"x": ("n", 7)}, rank=2)
    [region] = [step for step in execution(fewbits, model)["steps"] if step["where"] == "rten"]
    assert (region["node"], region["exact"]) == ("part", True)
    text = fewbits("inspect", model, "--runtime").assert_done().out
    assert "in rten, which moves or converts values here: the same bits on every CPU: part" in text
    assert text.splitlines()[-1].endswith("; 1 region in rten, which rounds nothing")


def test_the_level_that_is_asked_for(
    fewbits: Fewbits, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBITS_CPU", "scalar")
    assert execution(fewbits, static)["cpu"] == "scalar"
    monkeypatch.setenv("FEWBITS_CPU", "abacus")
    fewbits("inspect", static, "--runtime").assert_refused()


# Padding that depends on sizes, which are not known.
BY_SIZE = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
BY_SIZE_IS_LEFT = "Conv: auto_pad is SAME_UPPER; images of declared sizes are padded by numbers"


def float_convolution(path: Path) -> Path:
    """One that is left to rten, since its padding depends on the size."""
    weights = np.random.default_rng(0).normal(size=(32, 32, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **BY_SIZE)]
    return save(path, nodes, {"w": weights}, {"x": ("n", 32, "h", "w")}, rank=4)


def test_groups_of_weights_are_multiplied_as_floats(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "grouped.onnx"
    grouped = ("--bits", 4, "--granularity", "group=16")
    model = float_convolution(tmp_path / "float.onnx")
    fewbits("quantize", model, "-o", out, *grouped).assert_done()
    [region] = [step for step in execution(fewbits, out)["steps"] if step["where"] == "rten"]
    assert region["why"] == [BY_SIZE_IS_LEFT]
    fewbits("quantize", CNN / "model.onnx", "-o", out, *grouped, "--force").assert_done()
    assert {step["where"] for step in execution(fewbits, out)["steps"]} == {"floats"}


@pytest.mark.parametrize("name", ["digits/mlp.onnx", "digits_cnn/model.onnx"])
def test_float_models_run_on_our_kernels(fewbits: Fewbits, name: str) -> None:
    result = execution(fewbits, FIXTURES / name)
    assert {step["where"] for step in result["steps"]} == {"floats"}
    assert result["own_nodes"] == result["nodes"]


def convolution(path: Path, **attributes: object) -> Path:
    """A convolution between quantized values."""
    constants = {
        "s": np.array(0.1, np.float32),
        "z": np.array(3, np.uint8),
        "w": np.ones((2, 2, 3, 3), np.int8),
        "ws": np.array(0.5, np.float32),
        "wz": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["d", "wd"], ["c"], name="conv", **attributes),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    return save(path, nodes, constants, {"x": ("n", 2, "h", "w")}, rank=4)


def test_padding_that_depends_on_the_size(fewbits: Fewbits, tmp_path: Path) -> None:
    fused = execution(fewbits, convolution(tmp_path / "a.onnx", pads=[1, 1, 1, 1]))
    assert fused["own_nodes"] == fused["nodes"] == 5
    same = execution(fewbits, convolution(tmp_path / "same.onnx", auto_pad="SAME_UPPER"))
    assert same["own_nodes"] == same["nodes"] == 5
    left = execution(fewbits, convolution(tmp_path / "b.onnx", **BY_SIZE))
    [region] = [step for step in left["steps"] if step["where"] == "rten"]
    assert (region["node"], region["why"]) == ("conv", [BY_SIZE_IS_LEFT])


def dynamic_convolution(path: Path, spatial: int = 2, **attributes: object) -> Path:
    """One of values quantized as they come."""
    weights = np.random.default_rng(0).integers(-9, 9, (4, 2, *[3] * spatial)).astype(np.int8)
    constants = {"w": weights, "wz": np.array(1, np.int8), "ws": np.array(0.5, np.float32)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z", "wz"], ["c"], name="conv", **attributes),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["ws", "s"], ["m"]),
        helper.make_node("Mul", ["m", "f"], ["y"]),
    ]
    return save(path, nodes, constants, {"x": ("n", 2, *[6] * spatial)}, rank=2 + spatial)


@pytest.mark.parametrize(("spatial", "attributes"), [(2, {"auto_pad": "SAME_UPPER"}), (3, {})])
def test_convolutions_quantized_as_they_come(
    fewbits: Fewbits, tmp_path: Path, spatial: int, attributes: dict[str, str]
) -> None:
    fused = execution(fewbits, dynamic_convolution(tmp_path / "a.onnx", pads=[1, 1, 1, 1]))
    steps = [(step["what"], step["where"], step["nodes"]) for step in fused["steps"]]
    assert steps == [("DynamicQuantizeLinear", "integers", 1), ("ConvInteger", "integers", 4)]
    # What cannot be computed with the nodes behind it is not left to rten either.
    model = dynamic_convolution(tmp_path / "b.onnx", spatial, **attributes)
    steps = execution(fewbits, model)["steps"]
    assert ("ConvInteger", "integers") in [(step["what"], step["where"]) for step in steps]
    x = np.random.default_rng(1).normal(size=(3, 2, *[6] * spatial)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    fewbits("run", model, "--data", tmp_path / "x.npz", "-o", tmp_path / "y.npz").assert_done()
    [y] = meaning(model, x)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], y)


def test_float_models_and_what_cannot_run(fewbits: Fewbits, tmp_path: Path) -> None:
    result = execution(fewbits, float_convolution(tmp_path / "float.onnx"))
    assert result["own_nodes"] == 0 and result["rten_regions"] == 1
    assert result["steps"][0]["why"] == [BY_SIZE_IS_LEFT]
    trees = FIXTURES / "wine" / "svc_rbf.onnx"
    fewbits("inspect", trees, "--runtime").assert_refused()
