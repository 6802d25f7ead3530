"""ONNX's own test sets: each is answered rightly, or refused in one clear line, and what is not is known.

What is known stands in `conformance/`: `python -m conformance --write` keeps what is so now.
"""

from pathlib import Path

import onnxruntime
import pytest
from conformance.judge import RIGHT, Verdict, difference, judge_all
from conformance.known import PROVEN, complaints, lines, proven, summary
from conformance.sets import KINDS, Set, all_sets, plain


@pytest.fixture(scope="module")
def sets() -> list[Set]:
    found = all_sets()
    kinds = {one.kind for one in found}
    if missing := [kind for kind in KINDS if kind not in kinds]:
        pytest.skip(f"the installed onnx package has no sets of {', '.join(missing)}")
    return found


@pytest.fixture(scope="module")
def verdicts(binary: Path, sets: list[Set]) -> dict[str, Verdict]:
    return judge_all(binary, sets)


def test_every_set_is_right_or_known(verdicts: dict[str, Verdict]) -> None:
    print(summary(verdicts))
    found = complaints(verdicts)
    assert not found, "\n".join([*found, "python -m conformance --write keeps what is meant"])


def test_what_is_trusted_is_proven(sets: list[Set], verdicts: dict[str, Verdict]) -> None:
    """The list that tests of the executor read is that of now."""
    assert lines(PROVEN) == proven(sets, verdicts), "python -m conformance --write keeps it"


def test_as_many_are_right_as_have_been(verdicts: dict[str, Verdict]) -> None:
    """New sets may come as refused; those that were right must not go."""
    right = sum(verdict.outcome == RIGHT for verdict in verdicts.values())
    assert right >= 1097, summary(verdicts)


@pytest.mark.long
def test_onnxruntime_counts(sets: list[Set]) -> None:
    """What another vendor's runtime makes of the same sets, judged alike."""
    outcomes: dict[str, Verdict] = {}
    for one in sets:
        outcomes[one.name] = of_onnxruntime(one)
    print("onnxruntime:", summary(outcomes))
    assert sum(verdict.outcome == RIGHT for verdict in outcomes.values()) > 1400


def of_onnxruntime(one: Set) -> Verdict:
    feeds = {}
    for declared, value in zip(one.model.graph.input, one.inputs, strict=False):
        array = plain(value)
        if array is None:
            return Verdict("not fed")
        feeds[declared.name] = array.astype(object) if array.dtype.kind == "U" else array
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(one.model.SerializeToString(), options)
        names = [output.name for output in session.get_outputs()]
        given = dict(zip(names, session.run(names, feeds), strict=True))
    # What it refuses it tells by exceptions of several kinds.
    except Exception as error:
        return Verdict("refused", str(error))
    try:
        arrays = {name: plain(value) for name, value in given.items()}
        reason = difference(one, {name: a for name, a in arrays.items() if a is not None})
    except (TypeError, ValueError) as error:
        reason = str(error)
    return Verdict("wrong", reason) if reason else Verdict(RIGHT)
