"""`inspect` accounts for every byte of the constants of a file, wherever they lie."""

from collections.abc import Iterator, Sequence
from pathlib import Path

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
