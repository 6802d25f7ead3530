"""What moves values: reshapes, also by shapes that are computed, transposes, parts, joins, pads."""

from math import prod

import numpy as np

from random_graphs.builder import Builder, Unfit, Value


def _splits(b: Builder, x: Value) -> list[int]:
    """Another shape for what is behind the batch."""
    sizes = list(x.shape[1:])
    total = prod(sizes)
    form = b.choose(("flat", "split", "merge"))
    if form == "flat" or not sizes:
        return [total]
    if form == "merge" and len(sizes) > 1:
        at = b.between(0, len(sizes) - 2)
        return [*sizes[:at], sizes[at] * sizes[at + 1], *sizes[at + 2 :]]
    at = b.between(0, len(sizes) - 1)
    factor = b.choose([f for f in range(1, sizes[at] + 1) if sizes[at] % f == 0])
    return [*sizes[:at], factor, sizes[at] // factor, *sizes[at + 1 :]]


def reshape(b: Builder) -> None:
    """By a constant: 0 keeps the batch, or -1 finds it."""
    x = b.value(lambda v: v.rank >= 1 and v.batch in (0, None) and v.type != np.bool_)
    shape = _splits(b, x)
    if len(shape) > 4:
        raise Unfit
    first = b.choose((0, -1))
    if first == 0 and b.chance(0.4):
        shape[b.between(0, len(shape) - 1)] = -1
    b.node("Reshape", x.name, b.integers(first, *shape))


def computed_reshape(b: Builder) -> None:
    """Shape, Gather, Unsqueeze, Concat, Reshape."""
    x = b.value(lambda v: v.rank >= 1 and v.batch in (0, None) and v.is_float())
    shape = b.node("Shape", x.name)
    if b.chance(0.6):
        rows = b.node("Gather", shape, b.weight(np.array(0, np.int64)), axis=0)
        rows = b.with_axes("Unsqueeze", rows, [0])
    else:
        rows = b.node("Slice", shape, b.integers(0), b.integers(1))
    sizes = _splits(b, x)
    if b.chance(0.5):
        b.node("Reshape", x.name, b.node("Concat", rows, b.integers(*sizes), axis=0))
        return
    parts = [b.integers(size) for size in sizes[:-1]]
    b.node("Reshape", x.name, b.node("Concat", rows, *parts, b.integers(-1), axis=0))


def rows_into_batch(b: Builder) -> None:
    """Folds an axis into the batch and back."""
    x = b.rows_first(3)
    _, t, c = x.shape
    flat = b.node("Reshape", x.name, b.integers(-1, c))
    columns = b.between(1, 32)
    y = b.node("Gemm", flat, b.normal([columns, c], x), b.normal([columns], x, 0.3), transB=1)
    b.node("Reshape", y, b.integers(-1, t, columns))


def flatten(b: Builder) -> None:
    x = b.value(lambda v: v.rank >= 1 and v.batch in (0, None) and v.is_float())
    b.node("Flatten", x.name, axis=b.choose((1, None, -x.rank + 1 if x.rank > 1 else 1)))


def transpose(b: Builder) -> None:
    x = b.value(lambda v: v.rank >= 2 and v.type != np.bool_)
    perm = [int(i) for i in b.rng.permutation(x.rank)]
    if x.batch == 0 and b.chance(0.9):
        perm = [0, *(int(i) + 1 for i in b.rng.permutation(x.rank - 1))]
    elif x.batch is not None and b.chance(0.7):
        perm.remove(x.batch)
        perm.insert(0, x.batch)
    b.node("Transpose", x.name, perm=perm)


def unsqueeze(b: Builder) -> None:
    x = b.value(lambda v: v.rank <= 3 and v.type != np.bool_)
    axis = b.between(1, x.rank) if x.rank else 0
    b.with_axes("Unsqueeze", x.name, [b.choose((axis, -1))])


def squeeze(b: Builder) -> None:
    x = b.value(lambda v: 1 in v.shape[1:])
    ones = [axis for axis, n in enumerate(x.shape) if n == 1 and axis > 0]
    b.with_axes("Squeeze", x.name, [axis - (x.rank if b.chance(0.3) else 0) for axis in ones])


def _inner_axis(b: Builder, x: Value) -> int:
    return b.choose([axis for axis in range(x.rank) if axis != x.batch])


def split(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    axis = _inner_axis(b, x)
    n = x.shape[axis]
    if n < 2:
        raise Unfit
    first = n // 2 if b.chance(0.5) else b.between(1, n - 1)
    sizes = [first, n - first]
    inputs, more = [x.name], {}
    if b.opset < 13:
        more = {"split": sizes} if sizes[0] != sizes[1] or b.chance(0.5) else {}
    elif sizes[0] != sizes[1] or b.opset < 18 or b.chance(0.5):
        inputs.append(b.integers(*sizes))
    else:
        more = {"num_outputs": 2}
    left, right = b.nodes_out("Split", inputs, 2, axis=axis, **more)
    if b.chance(0.4):
        b.node("Concat", right, left, axis=axis)
    elif b.chance(0.3) and sizes[0] == sizes[1]:
        b.node("Mul", left, b.node("Sigmoid", right))


def slice_(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    axis = _inner_axis(b, x)
    n = x.shape[axis]
    start, step = b.between(0, n - 1), b.choose((1, 1, 1, 2, -1))
    end = b.choose((n, 2**31, b.between(start + 1, n)))
    if step < 0:
        start, end = -1, -(2**31)
    shown = axis - (x.rank if b.chance(0.3) else 0)
    inputs = [x.name, b.integers(start), b.integers(end), b.integers(shown)]
    if step != 1 or b.chance(0.3):
        inputs.append(b.integers(step))
    b.node("Slice", *inputs)


def concat(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    axis = _inner_axis(b, x)

    def fits(v: Value) -> bool:
        same = v.type == x.type and v.rank == x.rank and v.batch == x.batch
        return same and all(v.shape[i] == n for i, n in enumerate(x.shape) if i != axis)

    parts = [x.name, *(b.value(fits).name for _ in range(b.between(1, 2)))]
    b.node("Concat", *parts, axis=axis - (x.rank if b.chance(0.2) else 0))


def with_token(b: Builder) -> None:
    """A constant in front of every row, as a class token."""
    x = b.rows_first(3)
    rows = b.node("Gather", b.node("Shape", x.name), b.integers(0), axis=0)
    shape = b.node("Concat", rows, b.integers(1, x.shape[2]), axis=0)
    token = b.node("Expand", b.normal([1, 1, x.shape[2]], x, 1.0), shape)
    b.node("Concat", token, x.name, axis=1)


def pad(b: Builder) -> None:
    x = b.rows_first(2, 3, 4)
    mode = b.choose(("constant", "constant", "reflect", "edge", None))
    most = [0 if axis == 0 else min(2, n - 1) for axis, n in enumerate(x.shape)]
    pads = [b.between(0, n) for n in (*most, *most)]
    if mode == "constant" and b.chance(0.1):
        axis = b.between(1, x.rank - 1)
        pads[axis] = -1 if x.shape[axis] > 1 else 0
    inputs = [x.name, b.integers(*pads)]
    if mode == "constant" and b.chance(0.5):
        inputs.append(b.scalar(b.choose((0.0, 0.5, -1.0)), x))
    b.node("Pad", *inputs, mode=mode)


def tile(b: Builder) -> None:
    x = b.rows_first(2, 3, 4)
    b.node("Tile", x.name, b.integers(1, *(b.between(1, 2) for _ in x.shape[1:])))


def expand(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and 1 in v.shape[1:])
    shape = [1 if n > 1 else b.between(1, 4) for n in x.shape]
    b.node("Expand", x.name, b.integers(1, *shape[1:]))


def resize(b: Builder) -> None:
    x = b.rows_first(4)
    mode = b.choose(("nearest", "nearest", "linear", "linear", "cubic"))
    if mode == "cubic" and b.chance(0.7):
        raise Unfit
    where = b.choose(("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel", None))
    more: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        more["nearest_mode"] = b.choose(("floor", "round_prefer_floor", "ceil", None))
    roi = b.weight(np.zeros(0, np.float32)) if b.opset < 13 or b.chance(0.2) else ""
    if b.chance(0.6):
        factors = [b.choose((1, 2, 2, 1.5, 0.5)) for _ in range(2)]
        scales = b.weight(np.array([1, 1, *factors], np.float32))
        b.node("Resize", x.name, roi, scales, **more)
        return
    size = [b.between(1, 2 * n) for n in x.shape[2:]]
    rows = b.node("Slice", b.node("Shape", x.name), b.integers(0), b.integers(2))
    sizes = b.node("Concat", rows, b.integers(*size), axis=0)
    empty = b.weight(np.zeros(0, np.float32)) if b.opset < 13 else ""
    b.node("Resize", x.name, roi, empty, sizes, **more)


def depth_to_space(b: Builder) -> None:
    x = b.rows_first(4)
    if x.shape[1] % 4 == 0 and b.chance(0.6):
        b.node("DepthToSpace", x.name, blocksize=2, mode=b.choose(("DCR", "CRD", None)))
    else:
        b.node("SpaceToDepth", x.name, blocksize=2)


def shuffle(b: Builder) -> None:
    """Channels in another order, by views."""
    x = b.rows_first(4)
    _, c, h, w = x.shape
    groups = b.choose([g for g in range(2, c + 1) if c % g == 0])
    y = b.node("Reshape", x.name, b.integers(-1, groups, c // groups, h, w))
    y = b.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    b.node("Reshape", y, b.integers(-1, c, h, w))


def heads(b: Builder) -> None:
    """Heads of attention, by views."""
    x = b.rows_first(3)
    _, t, c = x.shape
    count = b.choose([g for g in range(1, c + 1) if c % g == 0])
    y = b.node("Reshape", x.name, b.integers(0, 0, count, c // count))
    y = b.node("Transpose", y, perm=[0, 2, 1, 3])
    if b.chance(0.5):
        y = b.node("Transpose", y, perm=[0, 2, 1, 3])
        b.node("Reshape", y, b.integers(0, 0, c))


STEPS = {
    reshape: 2,
    computed_reshape: 2,
    rows_into_batch: 0.7,
    flatten: 1.5,
    transpose: 1.5,
    unsqueeze: 1,
    squeeze: 1,
    split: 1.2,
    slice_: 1,
    concat: 2,
    with_token: 0.4,
    pad: 1,
    tile: 0.3,
    expand: 0.4,
    resize: 0.8,
    depth_to_space: 0.4,
    shuffle: 0.4,
    heads: 0.6,
}
