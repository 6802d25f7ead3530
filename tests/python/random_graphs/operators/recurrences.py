"""LSTM, GRU and RNN."""

import numpy as np

from random_graphs.builder import Builder, Unfit

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrence(b: Builder) -> None:
    """Batch first, as exporters write it: a Transpose before and behind."""
    x = b.value(lambda v: v.type == np.float32 and v.rank == 3 and v.batch in (0, None))
    form = b.choose(("LSTM", "LSTM", "GRU", "GRU", "RNN"))
    if form == "RNN" and b.chance(0.9):
        raise Unfit
    width, hidden = x.shape[2], b.between(1, 12)
    directions = 2 if b.chance(0.35) else 1
    time_first = b.node("Transpose", x.name, perm=[1, 0, 2])
    gates = GATES[form] * hidden
    w = b.stored(b.rng.normal(0, width**-0.5, (directions, gates, width)).astype(np.float32))
    r = b.stored(b.rng.normal(0, hidden**-0.5, (directions, gates, hidden)).astype(np.float32))
    given = [time_first, w, r, "", "", "", ""]
    if b.chance(0.7):
        given[3] = b.weight(b.rng.normal(0, 0.3, (directions, 2 * gates)).astype(np.float32))
    if b.chance(0.05):
        given[4] = _lengths(b, x.name, x.shape[1])
    if b.chance(0.25):
        given[5] = _state(b, x.name, directions, hidden)
        if form == "LSTM" and b.chance(0.8):
            given[6] = _state(b, x.name, directions, hidden)
    attributes: dict[str, object] = {"hidden_size": hidden}
    if directions == 2:
        attributes["direction"] = "bidirectional"
    elif b.chance(0.2):
        attributes["direction"] = b.choose(("forward", "reverse"))
    if form == "GRU" and b.chance(0.7):
        attributes["linear_before_reset"] = 1
    while given and not given[-1]:
        given.pop()
    wanted = b.choose(("all", "all", "last", "cell"))
    count = 3 if form == "LSTM" and wanted == "cell" else 2
    outputs = b.nodes_out(form, given, count, **attributes)
    if wanted == "all":
        _batch_first(b, outputs[0], directions, hidden)
    else:
        b.node("Transpose", outputs[-1], perm=[1, 0, 2])


def _batch_first(b: Builder, y: str, directions: int, hidden: int) -> None:
    """From [time, directions, batch, hidden] to [batch, time, all hidden]."""
    if directions == 1 and b.chance(0.6):
        y = b.with_axes("Squeeze", y, [1])
        b.node("Transpose", y, perm=[1, 0, 2])
        return
    y = b.node("Transpose", y, perm=[2, 0, 1, 3])
    b.node("Reshape", y, b.integers(0, 0, directions * hidden))


def _state(b: Builder, x: str, directions: int, hidden: int) -> str:
    """A first state of as many rows as there are, of zeros or of a number."""
    rows = b.node("Gather", b.node("Shape", x), b.integers(0), axis=0)
    shape = b.node("Concat", b.integers(directions), rows, b.integers(hidden), axis=0)
    number = np.array(b.choose((0.0, 0.4)), np.float32)
    return b.node("Expand", b.weight(number.reshape(1, 1, 1)), shape)


def _lengths(b: Builder, x: str, length: int) -> str:
    """One length for all rows."""
    rows = b.node("Gather", b.node("Shape", x), b.integers(0), axis=0)
    return b.node("Expand", b.weight(np.array([b.between(1, length)], np.int32)), rows)


def time_first(b: Builder) -> None:
    """A recurrence along the first axis, whose rows are not independent."""
    x = b.value(lambda v: v.type == np.float32 and v.rank == 3)
    hidden = b.between(1, 6)
    form = b.choose(("LSTM", "GRU"))
    gates = GATES[form] * hidden
    w = b.normal([1, gates, x.shape[2]], x, x.shape[2] ** -0.5)
    r = b.normal([1, gates, hidden], x, hidden**-0.5)
    more = {"linear_before_reset": 1} if form == "GRU" else {}
    y = b.nodes_out(form, [x.name, w, r], 1, hidden_size=hidden, **more)
    b.with_axes("Squeeze", y[0], [1])


STEPS = {recurrence: 4, time_first: 0.1}
