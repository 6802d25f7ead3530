"""`inspect` accounts for every byte of the constants of a file, wherever they lie."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES
from onnx import NodeProto, TensorProto
from random_graphs.generate import generate

MODELS = sorted(path for path in FIXTURES.rglob("*.onnx") if path.parent.name != "hostile")
SEEDS = range(20)


def tensors_of(nodes: Sequence[NodeProto]) -> Iterator[TensorProto]:
    """The constants in attributes of nodes and in their graphs."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from [attribute.t] if attribute.HasField("t") else []
        yield from attribute.tensors
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from graph.initializer
            yield from tensors_of(graph.node)


def size(tensor: TensorProto) -> int:
    typed = (tensor.float_data, tensor.int32_data), (tensor.int64_data, tensor.double_data)
    lists = sum(4 * len(values) for values in typed[0]) + sum(8 * len(values) for values in typed[1])
    return len(tensor.raw_data) + lists + sum(map(len, tensor.string_data))


def constants(model: onnx.ModelProto) -> int:
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    tensors = [*model.graph.initializer, *(t for nodes in bodies for t in tensors_of(nodes))]
    lists = sum(len(a.floats) for nodes in bodies for node in nodes for a in node.attribute)
    return sum(map(size, tensors)) + 4 * lists


def assert_accounts(fewbits: Fewbits, path: Path) -> None:
    told = fewbits("inspect", path, "--json").assert_done().json()
    expected = constants(onnx.load(path))
    assert told["weight_bytes"] == expected
    assert sum(entry["bytes"] for entry in told["stored"]) == expected


@pytest.mark.parametrize("path", MODELS, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_fixtures(fewbits: Fewbits, path: Path) -> None:
    assert_accounts(fewbits, path)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs(fewbits: Fewbits, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(generate(seed).model, path)
    assert_accounts(fewbits, path)
    fewbits("quantize", path, "-o", tmp_path / "q.onnx")
    if (tmp_path / "q.onnx").exists():
        assert_accounts(fewbits, tmp_path / "q.onnx")


def test_integers_stay_beside_float_weights_unless_others_are_asked_for(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    """Weights of 8 bits, and what becomes of them."""
    model, first, second = (tmp_path / f"{name}.onnx" for name in "mab")
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("w", "v")}
    h = onnx.helper
    nodes = [h.make_node("MatMul", ["x", "w"], ["t"]), h.make_node("MatMul", ["t", "v"], ["y"])]
    values = [h.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    graph = h.make_graph(
        nodes,
        "g",
        values[:1],
        values[1:],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), model)
    plan = fewbits("quantize", model, "--dry-run", "--json").assert_done().json()
    plan["tensors"][1] = {**plan["tensors"][1], "float": "asked for"}
    del plan["tensors"][1]["scheme"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fewbits("quantize", model, "--plan", tmp_path / "plan.json", "-o", first).assert_done()

    def bits(path: Path) -> dict[str, int]:
        listed = fewbits("inspect", path, "--json").assert_done().json()["tensors"]
        return {entry["tensor"]: entry["bits"] for entry in listed if entry["role"] == "weight"}

    assert bits(first) == {"w": 8, "v": 32}
    fewbits("quantize", first, "-o", second, "--bits", "4").assert_done()
    assert bits(second) == {"w": 8, "v": 4}
    fewbits("quantize", first, "-o", second, "--bits", "4", "--requantize", "--force").assert_done()
    assert bits(second) == {"w": 4, "v": 4}
    # A plan does the same again.
    saved, third = tmp_path / "saved.json", tmp_path / "c.onnx"
    asked = ["--bits", "4", "--requantize", "--save-plan", saved, "--force"]
    fewbits("quantize", first, "-o", second, *asked).assert_done()
    fewbits("quantize", first, "-o", third, "--plan", saved).assert_done()
    assert third.read_bytes() == second.read_bytes()
    refused = fewbits("quantize", second, "-o", third, "--force", "--bits", "2")
    refused.assert_refused(1)
    assert "its 2 weights are quantized already; --requantize" in refused.err
