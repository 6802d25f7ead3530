"""Graphs that nobody drew, quantized by every recipe: the answers are what the files mean.

`python -m random_graphs --seeds A..B --keep DIR` runs more of them and saves what fails, minimized.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from random_graphs.builder import Arrays
from random_graphs.generate import Case, generate
from random_graphs.judge import FLOAT, Judge
from random_graphs.known import known_faults
from random_graphs.minimize import minimized
from random_graphs.pieces import NEAR_A_TIE, Quantizer, judge_integers
from random_graphs.recipes import recipes_of
from random_graphs.tool import Fault, Tool

SEEDS = range(200)
MORE = range(200, 4000)
# Seeds of one long test.
AT_ONCE = 50


@pytest.fixture(scope="module")
def judge(binary: Path) -> Iterator[Judge]:
    with tempfile.TemporaryDirectory() as folder:
        yield Judge(binary, Path(folder))


def faults(judge: Judge, seed: int) -> list[str]:
    verdicts = judge.case(generate(seed), recipes_of(seed))
    return [
        f"seed {seed}, {recipe}: {fault}"
        for recipe, verdict in verdicts.items()
        for fault in verdict.faults
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_answered_is_what_files_mean(judge: Judge, seed: int) -> None:
    found = faults(judge, seed)
    known = known_faults().get(seed)
    if known is None:
        assert not found, "\n".join(found)
    else:
        assert found, f"seed {seed} passes: take it out of known_faults.txt ({known})"


@pytest.mark.long
@pytest.mark.parametrize("first", MORE[::AT_ONCE])
def test_thousands_more(judge: Judge, first: int) -> None:
    seeds = [seed for seed in range(first, first + AT_ONCE) if seed not in known_faults()]
    found = [fault for seed in seeds for fault in faults(judge, seed)]
    assert not found, "\n".join(found)


def test_a_seed_is_always_the_same_graph() -> None:
    for seed in range(5):
        a, b = generate(seed), generate(seed)
        assert a.model.SerializeToString() == b.model.SerializeToString()
        assert all(np.array_equal(a.rows[name], b.rows[name]) for name in b.rows)


def test_every_kind_of_node_is_drawn() -> None:
    drawn = {node.op_type for seed in range(100) for node in generate(seed).model.graph.node}
    expected = "Conv ConvTranspose Gemm MatMul Gather LSTM GRU BatchNormalization Softmax If Cast"
    expected += " LayerNormalization Shape Reshape Transpose Squeeze Unsqueeze Split Slice Concat"
    expected += " Pad Where"
    assert set(expected.split()) <= drawn
    assert len(drawn) >= 70


SPOILERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "wrong": lambda a: a * np.asarray(1.01, a.dtype),
    "shape": lambda a: a[..., np.newaxis],
    "type": lambda a: a.astype(np.float64),
    "nan": lambda a: a * np.asarray(np.nan, a.dtype),
}


@pytest.mark.parametrize("kind", SPOILERS)
def test_the_judge_sees_a_wrong_answer(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    case, right = sound_case(judge), Tool.run

    def wrong(tool: Tool, *told: Path, **more: object) -> Arrays:
        return {n: SPOILERS[kind](array) for n, array in right(tool, *told, **more).items()}

    monkeypatch.setattr(Tool, "run", wrong)
    assert [fault.kind for fault in judge.one(case, FLOAT).faults] == [kind]


def sound_case(judge: Judge) -> Case:
    """A case whose outputs are all float32, and which is answered."""
    for case in map(generate, SEEDS):
        verdict = judge.one(case, FLOAT)
        outputs = [value.type.tensor_type.elem_type for value in case.model.graph.output]
        if verdict.judged and not verdict.faults + verdict.refusals and set(outputs) == {1}:
            return case
    raise AssertionError("no case is sound")


@pytest.mark.parametrize(
    ("before", "ours", "right"),
    [
        (2.3, 12, True),
        (2.3, 13, False),
        (2.503, 12, True),
        (2.503, 13, True),
        (2.503, 14, False),
        (2.52, 12, False),
    ],
)
def test_integers_may_differ_near_a_tie_alone(before: float, ours: int, right: bool) -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])
    one = Quantizer(node, np.array(0.5, np.float32), TensorProto.UINT8)
    values = np.array([before * 0.5], np.float32)
    means = np.array([round(before) + 10], np.uint8)
    given = np.array([ours], np.uint8)
    try:
        judge_integers(one, given, means, values, NEAR_A_TIE)
    except Fault as fault:
        assert not right and fault.kind == "integers"
    else:
        assert right


def test_a_minimized_case_still_fails(judge: Judge) -> None:
    case = next(c for c in map(generate, SEEDS) if len(c.model.graph.node) > 6)
    wanted = case.model.graph.node[3].op_type

    def fails(smaller: Case) -> bool:
        return any(node.op_type == wanted for node in smaller.model.graph.node)

    small = minimized(case, fails)
    assert fails(small) and len(small.model.graph.node) <= 3
    onnx.checker.check_model(small.model, full_check=True)
