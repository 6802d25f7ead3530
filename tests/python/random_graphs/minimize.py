"""Makes a case smaller while the same fault persists."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper

from random_graphs.builder import Arrays, plain_session, reads, value_info
from random_graphs.generate import Case, finite_answers, needed

# The arrays of a case.
ROWS = ("calibration", "rows", "many")
Fails = Callable[[Case], bool]


def minimized(case: Case, fails: Fails) -> Case:
    """The smallest case found that still fails."""
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in _smaller(case):
            if _size(smaller) < _size(case) and finite_answers(smaller) is not None and fails(smaller):
                case, shrinking = smaller, True
                break
    return case


def _size(case: Case) -> tuple[int, int, int]:
    graph = case.model.graph
    working = [node for node in graph.node if node.op_type != "Identity"]
    return len(graph.node), len(working), len(graph.output)


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with less, those with much less first."""
    nodes = case.model.graph.node
    made = [name for node in nodes for name in node.output if name]
    gives = [value.name for value in case.model.graph.output]
    if len(gives) > 1:
        for name in gives:
            yield _with_outputs(case, [name])
    # An earlier value in place of the outputs.
    for name in made[:-1]:
        if len(nodes) > 1 and [name] != gives:
            found = _with_outputs(case, [name])
            if len(found.model.graph.node) < len(nodes):
                yield found
    if len(gives) > 1:
        for name in gives:
            yield _with_outputs(case, [other for other in gives if other != name])
    # An input in place of a later value.
    for name in reversed(made):
        if name not in gives:
            found = _with_input(case, name)
            if found is not None and len(found.model.graph.node) < len(nodes):
                yield found
    for index, node in enumerate(nodes):
        for name in [name for name in node.input if name]:
            yield _bypassed(case, index, name)


def _copy(case: Case) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    return model


def _values(case: Case, rows: Arrays) -> Arrays:
    """Every value of the main graph."""
    model = _copy(case)
    given = {value.name for value in model.graph.output}
    for node in model.graph.node:
        new = [name for name in node.output if name and name not in given]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
    names = [value.name for value in model.graph.output]
    return dict(zip(names, plain_session(model).run(names, rows)))


def _finished(case: Case, model: onnx.ModelProto, new: dict[str, Arrays] | None = None) -> Case:
    """Without what nothing needs."""
    graph = model.graph
    kept = needed(graph.node, [value.name for value in graph.output])
    del graph.node[:]
    graph.node.extend(kept)
    names = set(reads(kept)) | {value.name for value in graph.output}
    for values in (graph.initializer, graph.input):
        dead = [value for value in values if value.name not in names]
        for value in dead:
            values.remove(value)
    fed = {value.name for value in graph.input}
    every = {name: {**getattr(case, name), **(new or {}).get(name, {})} for name in ROWS}
    kept_rows = {
        name: {n: array for n, array in arrays.items() if n in fed}
        for name, arrays in every.items()
    }
    return Case(model, **kept_rows, fixed=case.fixed)


def _with_outputs(case: Case, names: list[str]) -> Case:
    model = _copy(case)
    values = _values(case, case.rows)
    declared = {value.name: value for value in model.graph.output}
    new = [
        declared.get(name)
        or value_info(name, values[name], [f"d{i}" for i in range(values[name].ndim)])
        for name in names
    ]
    del model.graph.output[:]
    model.graph.output.extend(new)
    return _finished(case, model)


def _with_input(case: Case, name: str) -> Case | None:
    new = {rows: {name: _of_all(case, getattr(case, rows), name)} for rows in ROWS}
    array, count = new["rows"][name], len(next(iter(case.rows.values()), np.zeros(0)))
    if not array.ndim or len(array) != count or array.dtype == bool:
        return None
    model = _copy(case)
    batch = case.fixed or _batch_of(model)
    model.graph.input.append(value_info(name, array, [batch, *array.shape[1:]]))
    for node in model.graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = f"{name}.unused"
    return _finished(case, model, new)


def _of_all(case: Case, rows: Arrays, name: str) -> np.ndarray:
    """A value for rows that may be more than a fixed batch."""
    count = len(next(iter(rows.values()), np.zeros(0)))
    step = case.fixed or count
    parts = [
        _values(case, {n: a[at : at + step] for n, a in rows.items()})[name]
        for at in range(0, count, step)
    ]
    return np.concatenate(parts) if len(parts) > 1 and parts[0].ndim else parts[0]


def _batch_of(model: onnx.ModelProto) -> str:
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_param:
            return dims[0].dim_param
    return "n"


def _bypassed(case: Case, index: int, name: str) -> Case:
    """What a node makes is one of its inputs."""
    model = _copy(case)
    node = model.graph.node[index]
    through = helper.make_node("Identity", [name], [node.output[0]])
    if node.op_type == "Identity":
        _rewire(model.graph, node.output[0], name)
        return _finished(case, model)
    model.graph.node[index].CopyFrom(through)
    return _finished(case, model)


def _rewire(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
