"""The test sets of the installed onnx package, as files that `fewbits run` takes."""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.loader import DATA_DIR, load_model_tests

KINDS = ["node", "simple", "pytorch-converted", "pytorch-operator"]

# What numpy writes into .npz by itself; bfloat16, small floats and small integers are not of it.
CARRIED = "biufcUS"


@dataclass
class Set:
    """A model, and what it must answer."""

    name: str
    kind: str
    operator: str
    model: onnx.ModelProto
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float

    def write(self, folder: Path) -> tuple[Path, Path] | None:
        """The files of the model and its inputs; none if .npz cannot carry these."""
        arrays = {}
        for declared, value in zip(self.model.graph.input, self.inputs, strict=False):
            array = plain(value)
            if array is None:
                return None
            arrays[declared.name] = array
        if any(kind_of(i) != "tensor_type" for i in self.model.graph.input):
            return None
        model, data = folder / f"{self.name}.onnx", folder / f"{self.name}.npz"
        model.write_bytes(self.model.SerializeToString())
        np.savez(data, **arrays)  # type: ignore[arg-type]
        return model, data


def kind_of(value: onnx.ValueInfoProto) -> str:
    """Whether a value is a tensor, a sequence, a map or optional."""
    return value.type.WhichOneof("value") or "tensor_type"


def plain(value: Any) -> NDArray[Any] | None:
    """A tensor as numpy's own array; none for what is no tensor, or of another's type."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic):
        return None
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(str)
    # Types that another package adds have kinds of numpy's own.
    return array if array.dtype.kind in CARRIED and array.dtype.isbuiltin != 2 else None


@cache
def all_sets() -> list[Set]:
    """Every set that is in the package with its data, in the order of their names."""
    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The expected values of the sets overflow and divide by zero on purpose.
        warnings.simplefilter("ignore")
        for kind in KINDS:
            if kind == "node" or (Path(DATA_DIR) / kind).is_dir():
                found += [read for case in load_model_tests(kind=kind) for read in sets_of(case)]
    with_operators(found)
    return sorted(found, key=lambda s: (s.kind, s.name))


def sets_of(case: Any) -> list[Set]:
    if case.model is not None:
        model, data = case.model, [tuple(map(list, data)) for data in case.data_sets]
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        folders = sorted(folder.glob("test_data_set_*"))
        data = [(values(f, "input", model), values(f, "output", model)) for f in folders]
    return [
        Set(
            name=case.name if i == 0 else f"{case.name}_{i}",
            kind=case.kind,
            operator=model.graph.node[0].op_type if len(model.graph.node) == 1 else "",
            model=model,
            inputs=inputs,
            outputs=outputs,
            rtol=max(case.rtol, 1e-3),
            atol=max(case.atol, 1e-5),
        )
        for i, (inputs, outputs) in enumerate(data)
    ]


def values(folder: Path, what: str, model: onnx.ModelProto) -> list[Any]:
    """What the files of a folder hold; a string for what is no tensor."""
    declared = model.graph.input if what == "input" else model.graph.output
    found: list[Any] = []
    for i in range(len(list(folder.glob(f"{what}_*.pb")))):
        if kind_of(declared[i]) != "tensor_type":
            found.append("no tensor")
            continue
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / f"{what}_{i}.pb").read_bytes())
        found.append(numpy_helper.to_array(tensor))
    return found


def with_operators(sets: list[Set]) -> None:
    """Names what each set tests: the operator whose function it spells out, else its rarest one."""
    single = {s.name: s.operator for s in sets if s.operator}
    counts: dict[str, int] = {}
    for one in sets:
        for op in {node.op_type for node in one.model.graph.node}:
            counts[op] = counts.get(op, 0) + 1
    for one in sets:
        if one.operator:
            continue
        base = one.name.split("_expanded")[0]
        rarest = sorted((counts[n.op_type], n.op_type) for n in one.model.graph.node)
        one.operator = single.get(base) or (rarest[0][1] if rarest else "none")
