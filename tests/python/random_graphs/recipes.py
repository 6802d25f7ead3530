"""Which recipes a seed is quantized by."""

from random_graphs.tool import RECIPES


def _of(kind: str) -> list[str]:
    return [name for name in RECIPES if name.split("-")[0] == kind]


WEIGHTS, DYNAMIC, STATIC = _of("weights"), _of("dynamic"), _of("static")


def recipes_of(seed: int) -> list[str]:
    """One of each kind, in turn, and at times `auto`; the plain ones every other time."""
    plain = seed % 2 == 0
    kinds = (WEIGHTS, DYNAMIC, STATIC)
    found = [kind[0] if plain else kind[seed // 2 % len(kind)] for kind in kinds]
    return found + (["auto"] if seed % 5 == 0 else [])
