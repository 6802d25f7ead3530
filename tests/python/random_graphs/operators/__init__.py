"""The steps that a random graph is made of, each with how often it is tried."""

from collections.abc import Callable

from random_graphs.builder import Builder
from random_graphs.operators import convolutions, elementwise

Step = Callable[[Builder], None]

STEPS: dict[Step, float] = {**convolutions.STEPS, **elementwise.STEPS}
