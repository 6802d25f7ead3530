"""From a seed to a model, with rows to calibrate on and rows to judge by."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

from random_graphs.builder import (
    Arrays,
    Builder,
    Value,
    model_of,
    plain_session,
    reads,
    value_info,
)
from random_graphs.operators import STEPS, WEIGHTY, Step

OPSETS = range(11, 23)
# Rows to judge by, of which the smaller number is the first part, and to calibrate on.
SMALL, LARGE, CALIBRATION = 3, 7, 24
# More rows than any command takes at once.
MANY = 70
# What one part in a million, in weights and inputs, may change in an output, of its largest value.
STABLE = 2e-5
WIGGLE = 1e-6


@dataclass(frozen=True)
class Case:
    """A model with its rows; `calibration` and `rows` are arrays by the names of inputs."""

    model: onnx.ModelProto
    calibration: Arrays
    rows: Arrays
    # More rows, of which `rows` are the first.
    many: Arrays
    # The batch, where the model fixes it.
    fixed: int | None

    @cached_property
    def rows_are_independent(self) -> bool:
        """Whether the first rows give the same alone, be there few or many."""
        session = plain_session(self.model)
        many, rows = session.run(None, self.many), session.run(None, self.rows)
        few = session.run(None, {name: array[:SMALL] for name, array in self.rows.items()})
        pairs = [*zip(many, rows), *zip(rows, few)]
        return all(_begins(a, b) for a, b in pairs if a.ndim)


def _begins(whole: np.ndarray, first: np.ndarray) -> bool:
    part = whole[: len(first)]
    return part.shape == first.shape and np.allclose(part, first, atol=1e-5)


@dataclass(frozen=True)
class Input:
    """An input without its batch, and what its values are like."""

    name: str
    shape: tuple[int, ...]
    tokens: int | None = None

    def draw(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        shape = (rows, *self.shape)
        if self.tokens is not None:
            return rng.integers(0, self.tokens, shape)
        return rng.normal(0, 1, shape).astype(np.float32)


def inputs(rng: np.random.Generator) -> list[Input]:
    """One to three inputs of a theme."""
    c, t = int(rng.integers(1, 13)), int(rng.integers(2, 9))
    side = [int(n) for n in rng.integers(4, 10, 2)]
    themes = {
        "images": Input("image", (c, *side)),
        "sound": Input("sound", (c, int(rng.integers(6, 20)))),
        "sequence": Input("sequence", (t, int(rng.integers(4, 33)))),
        "flat": Input("x", (int(rng.integers(2, 65)),)),
        "ids": Input("input_ids", [(t,), (1,), ()][int(rng.integers(3))], tokens=24),
        "volume": Input("volume", (2, 4, 5, 4)),
        "column": Input("column", (1,)),
    }
    often = np.array([0.32, 0.13, 0.18, 0.17, 0.14, 0.03, 0.03])
    count = int(rng.choice([1, 2, 3], p=[0.65, 0.27, 0.08]))
    chosen = rng.choice(list(themes), count, replace=False, p=often)
    return [themes[str(name)] for name in chosen]


def generate(seed: int) -> Case:
    """The case of a seed; it tries again until a graph is valid, stable, and says something."""
    for attempt in range(200):
        case = _attempt(np.random.default_rng([seed, attempt]))
        if case is not None:
            return case
    raise AssertionError(f"seed {seed}: no valid graph in 200 attempts")


def _attempt(rng: np.random.Generator) -> Case | None:
    opset = int(rng.choice(OPSETS))
    b = Builder(rng, opset)
    fixed = int(rng.choice([1, 1, 2, 4])) if rng.random() < 0.15 else None
    small, large = (fixed, fixed) if fixed else (SMALL, LARGE)
    takes = inputs(rng)
    many = {one.name: one.draw(rng, 3 * fixed if fixed else MANY) for one in takes}
    rows = {name: array[:large] for name, array in many.items()}
    for name, array in rows.items():
        b.add_input(name, array[:small], array)
    _grow(b, rng, int(rng.integers(2, 15)))
    if not b.nodes:
        return None
    gives = _outputs(b, rng, fixed)
    if not gives:
        return None
    model = _model(b, rng, takes, gives, fixed)
    calibration = {one.name: one.draw(rng, fixed or CALIBRATION) for one in takes}
    used = {value.name for value in model.graph.input}
    case = Case(
        model,
        {name: array for name, array in calibration.items() if name in used},
        {name: array for name, array in rows.items() if name in used},
        {name: array for name, array in many.items() if name in used},
        fixed,
    )
    return case if _valid(case) else None


def _grow(b: Builder, rng: np.random.Generator, steps: int) -> None:
    every: list[Step] = list(STEPS)
    often = np.array(list(STEPS.values()))
    # Each graph has its own favourites.
    often = often * rng.exponential(1, len(every)) ** 1.5
    taken = 0
    weighty = np.where([step in WEIGHTY for step in every], often, 0)
    share = rng.choice([0.0, 0.35, 0.6])
    for _ in range(steps * 12):
        chances = weighty if rng.random() < share else often
        step = every[int(rng.choice(len(every), p=chances / chances.sum()))]
        taken += _try(b, step)
        if taken == steps:
            return


def _try(b: Builder, step: Step) -> bool:
    """What ONNX Runtime refuses is no step."""
    try:
        return b.step(step)
    except Exception as error:
        # Its exceptions have no common class but this one.
        if "onnxruntime" in type(error).__module__ or isinstance(error, RuntimeError):
            return False
        raise


def _outputs(b: Builder, rng: np.random.Generator, fixed: int | None) -> list[Value]:
    """What nothing reads, and at times a value that something reads."""
    read = reads(b.nodes)
    made = [value for value in b.values.values() if value.age > 0 and value.rank > 0]
    made = [value for value in made if _depends(b, value) and value.type != np.bool_]
    elsewhere = rng.random() < 0.08
    made = [value for value in made if elsewhere or fixed or value.batch == 0]
    made = [value for value in made if value.small.dtype != np.float16 or rng.random() < 0.05]
    leaves = [value for value in made if value.name not in read]
    inner = [value for value in made if value.name in read]
    chosen = leaves[-3:] if rng.random() < 0.8 else leaves[-1:]
    if inner and rng.random() < 0.25:
        chosen.append(inner[int(rng.integers(len(inner)))])
    if not chosen and inner:
        chosen = inner[-1:]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _depends(b: Builder, value: Value) -> bool:
    """Whether a value follows from an input."""
    from_inputs = {v.name for v in b.values.values() if v.age == 0}
    for node in b.nodes:
        if any(name in from_inputs for name in reads([node])):
            from_inputs.update(node.output)
    return value.name in from_inputs


def _model(
    b: Builder, rng: np.random.Generator, takes: list[Input], gives: list[Value], fixed: int | None
) -> onnx.ModelProto:
    """The graph of the outputs; at times with nodes and weights that none of them needs."""
    nodes = b.nodes if rng.random() < 0.15 else _needed(b, [value.name for value in gives])
    names = reads(nodes)
    dead = rng.random() < 0.1
    tensors = [
        numpy_helper.from_array(array, name)
        for name, array in b.weights.items()
        if name in names or dead
    ]
    batch = fixed or str(rng.choice(["n", "batch_size", "N"]))
    fed = [
        value_info(one.name, b.values[one.name].small, [batch, *one.shape])
        for one in takes
        if one.name in names
    ]
    if rng.random() < 0.05:
        # As files from before IR version 4 had them.
        fed += [value_info(t.name, b.weights[t.name], t.dims) for t in tensors if t.dims]
    declared = [value_info(v.name, v.small, _dims(v, batch, rng)) for v in gives]
    graph = helper.make_graph(nodes, "random", fed, declared, tensors)
    return model_of(graph, b.opset)


def _dims(value: Value, batch: int | str, rng: np.random.Generator) -> list[int | str]:
    """What an exporter declares of an output: all it knows, or ranks alone."""
    if rng.random() < 0.3:
        return [f"{value.name}_{axis}" for axis in range(value.rank)]
    if isinstance(batch, int):
        return list(value.shape)
    dims: list[int | str] = []
    for axis, (small, large) in enumerate(zip(value.small.shape, value.large.shape)):
        rows = (small, large) == (SMALL, LARGE)
        dims.append(small if small == large else batch if rows else f"rows_{axis}")
    return dims


def _needed(b: Builder, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    return needed(b.nodes, outputs)


def needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs need."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(reads([node]))
            kept.append(node)
    return kept[::-1]


def finite_answers(case: Case) -> list[np.ndarray] | None:
    """What a valid model answers for its rows; none if it is not valid, or an answer is no number."""
    try:
        onnx.checker.check_model(case.model, full_check=True)
        answers = plain_session(case.model).run(None, case.rows)
        plain_session(case.model).run(None, case.calibration)
    except Exception:
        return None
    finite = all(np.isfinite(array).all() for array in answers if array.dtype.kind == "f")
    return answers if finite else None


def _valid(case: Case) -> bool:
    """Checked, finite, and not on an edge, where rounding decides."""
    expected = finite_answers(case)
    if expected is None:
        return False
    return all(stable(case.model, case.rows, expected, seed) for seed in range(2))


def stable(
    model: onnx.ModelProto, rows: Arrays, expected: Sequence[np.ndarray], seed: int
) -> bool:
    """Whether outputs hardly change where weights and inputs hardly do."""
    rng = np.random.default_rng(seed)
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    # A scale decides on a size.
    scales = reads([node for node in model.graph.node if node.op_type == "Resize"])
    for tensor in moved.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(_wiggled(rng, array), tensor.name))
    fed = {n: _wiggled(rng, a) if a.dtype == np.float32 else a for n, a in rows.items()}
    try:
        got = plain_session(moved).run(None, fed)
    except Exception:
        return False
    return all(_close(a, b) for a, b in zip(expected, got))


def _wiggled(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    return (array * (1 + WIGGLE * rng.choice([-1, 1], array.shape))).astype(np.float32)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    most = 3e-3 if a.dtype == np.float16 else STABLE
    wide = a.astype(np.float64)
    return bool(np.abs(wide - b).max(initial=0) <= most * np.abs(wide).max(initial=0))
