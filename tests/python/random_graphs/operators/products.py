"""Products of matrices, with weights left or right, and look-ups in tables."""

import numpy as np

from random_graphs.builder import INTEGERS, Builder, Unfit, Value

# Rows of a table.
TOKENS = 24


def biased(b: Builder, y: str, columns: int, like: Value) -> str:
    """At times a bias, on either side, and an activation."""
    if b.chance(0.5):
        shape = [1] * b.between(0, 1) + [columns]
        bias = b.normal(shape, like, 0.3)
        y = b.node("Add", *b.choose(([y, bias], [bias, y])))
    if b.chance(0.3):
        y = b.node(b.choose(("Relu", "Tanh", "Sigmoid")), y)
    return y


def matmul(b: Builder) -> None:
    """Weights on the right."""
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch != v.rank - 1)
    columns = b.between(1, 40)
    shape = [x.shape[-1], columns]
    w = b.stored(b.rng.normal(0, shape[0] ** -0.5, shape).astype(x.small.dtype))
    if b.chance(0.1):
        w = b.stored(b.rng.normal(0, shape[0] ** -0.5, shape[::-1]).astype(x.small.dtype))
        w = b.node("Transpose", w, perm=[1, 0])
    biased(b, b.node("MatMul", x.name, w), columns, x)


def matmul_left(b: Builder) -> None:
    """Weights on the left."""
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch != v.rank - 2)
    shape = [b.between(1, 24), x.shape[-2]]
    w = b.stored(b.rng.normal(0, shape[1] ** -0.5, shape).astype(x.small.dtype))
    y = b.node("MatMul", w, x.name)
    if b.chance(0.3):
        b.node("Add", y, b.normal([shape[0], 1], x, 0.3))


def matmul_batched(b: Builder) -> None:
    """Weights with axes of their own in front."""
    x = b.value(lambda v: v.is_float() and v.rank >= 3 and v.batch in (0, None))
    front = [n if b.chance(0.7) else 1 for n in x.shape[1:-2]]
    if not front and b.chance(0.5):
        front = [1]
    shape = [*front, x.shape[-1], b.between(1, 6)]
    w = b.stored(b.rng.normal(0, shape[-2] ** -0.5, shape).astype(x.small.dtype))
    b.node("MatMul", x.name, w)


def matmul_vector(b: Builder) -> None:
    """An operand of one axis, on either side."""
    x = b.value(lambda v: v.is_float() and v.rank >= 2)
    if b.chance(0.6):
        if x.batch == x.rank - 1:
            raise Unfit
        b.node("MatMul", x.name, b.normal([x.shape[-1]], x, x.shape[-1] ** -0.5))
    else:
        if x.batch == x.rank - 2:
            raise Unfit
        b.node("MatMul", b.normal([x.shape[-2]], x, x.shape[-2] ** -0.5), x.name)


def attention(b: Builder) -> None:
    """A product of two activations."""
    x = b.rows_first(3, 4)
    q, k = x.name, x.name
    if b.chance(0.6):
        shape = [x.shape[-1], b.between(2, 12)]
        q = b.node("MatMul", x.name, b.normal(shape, x, shape[0] ** -0.5))
        k = b.node("MatMul", x.name, b.normal(shape, x, shape[0] ** -0.5))
    perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    scores = b.node("MatMul", q, b.node("Transpose", k, perm=perm))
    scores = b.node("Mul", scores, b.scalar(0.3, x))
    b.node("MatMul", b.node("Softmax", scores, axis=-1 if b.chance(0.5) else x.rank - 1), x.name)


def gemm(b: Builder) -> None:
    x = b.value(lambda v: v.is_float() and v.rank == 2)
    left = x.batch == 1
    inner = x.shape[0] if left else x.shape[1]
    columns = b.between(1, 40)
    attributes: dict[str, object] = {"transA": 1} if left else {}
    if b.chance(0.2):
        attributes |= {"alpha": b.choose((0.5, 2.0, 1.0))}
    if b.chance(0.2):
        attributes |= {"beta": b.choose((0.5, 2.0, 0.0))}
    shape = [inner, columns]
    if b.chance(0.6):
        shape, attributes = shape[::-1], attributes | {"transB": 1}
    elif b.chance(0.2):
        attributes |= {"transB": 0}
    inputs = [x.name, b.stored(b.rng.normal(0, inner**-0.5, shape).astype(x.small.dtype))]
    if b.chance(0.75):
        bias = b.choose(([columns], [columns], [1, columns], [1], [], [1, 1]))
        inputs.append(b.normal(bias, x, 0.3))
    y = b.node("Gemm", *inputs, **attributes)
    if b.chance(0.3):
        b.node(b.choose(("Relu", "Tanh", "Sigmoid", "LeakyRelu")), y)


def gemm_left(b: Builder) -> None:
    """Weights as the first operand."""
    x = b.value(lambda v: v.is_float() and v.rank == 2 and v.batch in (0, None))
    w = b.normal([b.between(1, 8), x.shape[1]], x, x.shape[1] ** -0.5)
    b.node("Gemm", w, x.name, transB=1)


def shared(b: Builder) -> None:
    """The same weights, read twice."""
    x = b.value(lambda v: v.is_float() and v.rank >= 2 and v.batch != v.rank - 1)
    n = x.shape[-1]
    w = b.stored(b.rng.normal(0, n**-0.5, [n, n]).astype(x.small.dtype))
    y = b.node("Tanh", b.node("MatMul", x.name, w))
    if x.rank == 2 and b.chance(0.5):
        b.node("Gemm", y, w, transB=b.between(0, 1))
    else:
        b.node("MatMul", y, w)


def einsum(b: Builder) -> None:
    b.since(12)
    x = b.rows_first(3)
    w = b.normal([x.shape[2], b.between(1, 8)], x, x.shape[2] ** -0.5)
    equation = b.choose(("btc,cd->btd", "btc,cd->bdt", "b t c, c d -> b t d"))
    b.node("Einsum", x.name, w, equation=equation)


def ids(b: Builder) -> Value:
    """Integers that are rows of a table, of any data."""

    def fits(v: Value) -> bool:
        return v.type in INTEGERS and v.large.min() >= 0 and v.large.max() < TOKENS

    return b.value(fits)


def embedding(b: Builder) -> None:
    """Rows of a table."""
    x = ids(b)
    width = b.between(2, 40)
    if b.chance(0.3):
        width = 32
    table = b.stored(b.rng.normal(0, 1, [TOKENS, width]).astype(np.float32))
    indices = x.name
    if b.chance(0.15):
        indices = b.node("Cast", indices, to=6)
    b.node("Gather", table, indices, axis=b.choose((0, None)))


def embedding_columns(b: Builder) -> None:
    """Columns of a table."""
    x = ids(b)
    table = b.stored(b.rng.normal(0, 1, [b.between(1, 24), TOKENS]).astype(np.float32))
    y = b.node("Gather", table, x.name, axis=1)
    if x.rank:
        b.node("Transpose", y, perm=[*range(1, x.rank + 1), 0])


def tied(b: Builder) -> None:
    """A table whose rows are weights, too."""
    x = ids(b)
    width = b.between(4, 40)
    table = b.stored(b.rng.normal(0, width**-0.5, [TOKENS, width]).astype(np.float32))
    y = b.node("Gather", table, x.name)
    b.node("MatMul", b.node("Tanh", y), b.node("Transpose", table, perm=[1, 0]))


def gather(b: Builder) -> None:
    """Parts of an activation."""
    x = b.value(lambda v: v.rank >= 1 and v.is_float())
    axis = b.choose([i for i in range(x.rank) if i != x.batch])
    n = x.shape[axis]
    shape = b.choose(([], [1], [2], [2, 2]))
    indices = b.weight(b.rng.integers(-n if b.chance(0.3) else 0, n, shape).astype(np.int64))
    b.node("Gather", x.name, indices, axis=axis - (x.rank if b.chance(0.2) else 0))


def one_hot(b: Builder) -> None:
    x = ids(b)
    depth = b.weight(np.array(TOKENS, np.int64))
    y = b.node("OneHot", x.name, depth, b.weight(np.array([0, 1], np.float32)))
    if b.chance(0.5):
        w = b.rng.normal(0, 0.5, [TOKENS, b.between(1, 24)]).astype(np.float32)
        b.node("MatMul", y, b.stored(w))


STEPS = {
    matmul: 7,
    matmul_left: 1.5,
    matmul_batched: 1,
    matmul_vector: 0.2,
    attention: 1,
    gemm: 6,
    gemm_left: 0.3,
    shared: 1,
    einsum: 0.3,
    embedding: 5,
    embedding_columns: 1,
    tied: 1,
    gather: 1.5,
    one_hot: 0.5,
}
