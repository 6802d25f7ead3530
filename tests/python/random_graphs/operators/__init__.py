"""The steps that a random graph is made of, each with how often it is tried."""

from collections.abc import Callable

from random_graphs.builder import Builder
from random_graphs.operators import (
    control,
    convolutions,
    elementwise,
    norms,
    pools,
    products,
    recurrences,
    views,
)

Step = Callable[[Builder], None]

KINDS = (convolutions, products, recurrences, norms, views, pools, elementwise, control)
STEPS: dict[Step, float] = {step: often for kind in KINDS for step, often in kind.STEPS.items()}
# Those whose weights most recipes make integers.
WEIGHTY: tuple[Step, ...] = (
    convolutions.convolution,
    convolutions.transposed,
    products.matmul,
    products.gemm,
    products.shared,
    products.embedding,
    recurrences.recurrence,
    pools.excitation,
    views.rows_into_batch,
)
