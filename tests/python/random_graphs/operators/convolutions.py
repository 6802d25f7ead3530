"""Convolutions of every form, and their transposes."""

from collections.abc import Sequence

from random_graphs.builder import Builder, Unfit, Value


def window(b: Builder, sizes: Sequence[int]) -> dict[str, list[int]]:
    """A kernel with strides, dilations and pads; what is as by default may be left out."""
    rank = len(sizes)
    kernel = [b.between(1, min(3, size)) for size in sizes]
    if b.chance(0.2):
        kernel = [1] * rank
    strides = [b.choose((1, 1, 1, 2, 3)) for _ in sizes]
    dilations = [b.choose((1, 1, 1, 1, 2)) for _ in sizes]
    pads = [b.choose((0, 0, 1, 1, 2)) for _ in range(2 * rank)]
    if b.chance(0.5):
        pads = [k // 2 for k in kernel] * 2
    found = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    default = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * (2 * rank)}
    return {k: v for k, v in found.items() if v != default.get(k) or b.chance(0.4)}


def automatic(b: Builder, attributes: dict) -> dict:
    """At times auto_pad in place of pads."""
    if b.chance(0.7):
        return attributes | ({"auto_pad": "NOTSET"} if b.chance(0.1) else {})
    kept = {k: v for k, v in attributes.items() if k not in ("pads",)}
    if b.chance(0.7):
        kept.pop("dilations", None)
    how = "SAME_LOWER" if b.chance(0.04) else b.choose(("VALID", "SAME_UPPER"))
    return kept | {"auto_pad": how}


def groups(b: Builder, channels: int) -> int:
    fits = [g for g in range(1, channels + 1) if channels % g == 0]
    return b.choose((1, 1, 1, channels, b.choose(fits)))


def convolution(b: Builder) -> None:
    x = b.rows_first(3, 4, 5)
    if x.rank == 5 and b.chance(0.5):
        raise Unfit
    attributes = automatic(b, window(b, x.shape[2:]))
    channels, group = x.shape[1], groups(b, x.shape[1])
    outputs = group * b.between(1, max(1, 24 // group))
    shape = [outputs, channels // group, *attributes["kernel_shape"]]
    inputs = [x.name, b.normal(shape, x)]
    if b.chance(0.7):
        inputs.append(b.normal([outputs], x, 0.3))
    if b.chance(0.3):
        attributes.pop("kernel_shape")
    if group > 1 or b.chance(0.3):
        attributes["group"] = group
    y = b.node("Conv", *inputs, **attributes)
    behind(b, y, outputs, x)


def behind(b: Builder, y: str, channels: int, like: Value) -> None:
    """What exporters often write behind a convolution."""
    if b.chance(0.25):
        names = [b.normal([channels], like, 0.5) for _ in range(3)]
        variance = b.weight(b.rng.uniform(0.5, 2, channels).astype(like.small.dtype))
        y = b.node("BatchNormalization", y, *names, variance)
    if b.chance(0.5):
        b.node(b.choose(("Relu", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu")), y)


def transposed(b: Builder) -> None:
    x = b.rows_first(3, 4)
    attributes = window(b, x.shape[2:])
    channels, group = x.shape[1], groups(b, x.shape[1])
    outputs = b.between(1, max(1, 16 // group))
    shape = [channels, outputs, *attributes["kernel_shape"]]
    inputs = [x.name, b.normal(shape, x, (channels // group * 3) ** -0.5)]
    if b.chance(0.6):
        inputs.append(b.normal([outputs * group], x, 0.3))
    if "strides" in attributes and b.chance(0.3):
        attributes["output_padding"] = [s - 1 for s in attributes["strides"]]
    elif "strides" in attributes and b.chance(0.1):
        attributes["output_shape"] = [
            n * s for n, s in zip(x.shape[2:], attributes["strides"], strict=True)
        ]
    elif b.chance(0.15):
        attributes = automatic(b, attributes)
    if group > 1 or b.chance(0.2):
        attributes["group"] = group
    b.node("ConvTranspose", *inputs, **attributes)


def computed_weights(b: Builder) -> None:
    """A convolution whose filters are an activation's, or come of constants by a node."""
    x = b.rows_first(3, 4)
    channels, rank = x.shape[1], x.rank - 2
    shape = [b.between(1, 5), channels, *[b.between(1, 2)] * rank]
    w = b.node(b.choose(("Tanh", "Identity", "Neg")), b.normal(shape, x))
    strides = [b.between(1, 2)] * rank if b.chance(0.4) else None
    b.node("Conv", x.name, w, strides=strides)


STEPS = {convolution: 10, transposed: 2, computed_weights: 0.5}
