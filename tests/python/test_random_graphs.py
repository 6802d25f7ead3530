"""Graphs that nobody drew, quantized by every recipe: the answers are what the files mean.

`python -m random_graphs --seeds A..B --keep DIR` runs more of them and saves what fails, minimized.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from random_graphs.generate import generate
from random_graphs.judge import Judge
from random_graphs.known import known_faults
from random_graphs.pieces import shown
from random_graphs.recipes import recipes_of
from random_graphs.tool import Fault

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
    drawn = {node.op_type for seed in range(150) for node in generate(seed).model.graph.node}
    expected = "Conv ConvTranspose Gemm MatMul Gather LSTM GRU BatchNormalization LayerNormalization If"
    expected += " Shape Reshape Transpose Squeeze Unsqueeze Split Slice Concat Pad Softmax Where Cast"
    assert set(expected.split()) <= drawn
    assert len(drawn) >= 80


def test_the_judge_sees_a_wrong_answer(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is another's, integers two steps off, and a wrong shape or type."""
    seed = next(s for s in SEEDS if s not in known_faults() and not faults(judge, s))
    case, right = generate(seed), judge.tool.run
    spoilers = {
        "wrong": lambda a: a[::-1] * 1.01,
        "shape": lambda a: a[..., np.newaxis],
        "type": lambda a: a.astype(np.float64),
        "nan": lambda a: a * np.nan,
    }
    for kind, spoil in spoilers.items():
        monkeypatch.setattr(
            type(judge.tool),
            "run",
            lambda self, *told, spoil=spoil, **more: {
                name: spoil(array) for name, array in right(*told, **more).items()
            },
        )
        assert [fault.kind for fault in judge.one(case, "float").faults] == [kind]
