"""Small nets of convolutions with random weights, each of another form."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from nets import IMAGES, Arrays, images, save, separable, separable_weights
from onnx import helper as h


class Graph:
    """Writes nodes one after the other, with random weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: Arrays = {}
        self.rng = np.random.default_rng(11)

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        output = output or f"v{len(self.nodes)}"
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(h.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, values: object, kind: type = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(values, kind)
        return name

    def conv(self, x: str, *shape: int, bias: bool = True, **attributes: object) -> str:
        """A convolution with weights of `shape`."""
        deviation = (2 / np.prod(shape[1:])) ** 0.5
        inputs = [x, self.constant(self.rng.normal(0, deviation, shape))]
        if bias:
            inputs.append(self.constant(self.rng.normal(0, 0.2, shape[0])))
        return self.node("Conv", inputs, kernel_shape=list(shape[2:]), **attributes)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def head(self, x: str, inputs: int) -> None:
        """The mean of images, and a product of it."""
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        w = self.constant(self.rng.normal(0, inputs**-0.5, (10, inputs)))
        bias = self.constant(self.rng.normal(0, 0.1, 10))
        self.node("Gemm", [flat, w, bias], "y", transB=1)

    def save(self, path: Path, rank: int = 2, shape: Sequence[int | str] = IMAGES["x"]) -> Path:
        return save(path, self.nodes, self.weights, {"x": shape}, rank)


SAME = {"pads": [1, 1, 1, 1]}


def depthwise(path: Path) -> Path:
    return separable(path, separable_weights(), ceiling=3.0)


def residual(path: Path) -> Path:
    g = Graph()
    x = g.relu(g.conv("x", 16, 3, 3, 3, **SAME))
    inner = g.conv(g.relu(g.conv(x, 16, 16, 3, 3, **SAME)), 16, 16, 3, 3, **SAME)
    x = g.relu(g.node("Add", [inner, x]))
    inner = g.conv(g.relu(g.conv(x, 24, 16, 3, 3, strides=[2, 2], **SAME)), 24, 24, 3, 3, **SAME)
    x = g.relu(g.node("Add", [inner, g.conv(x, 24, 16, 1, 1, strides=[2, 2])]))
    g.head(x, 24)
    return g.save(path)


def dense(path: Path) -> Path:
    """Concats of a value and what is made of it."""
    g = Graph()
    x, channels = g.relu(g.conv("x", 7, 3, 3, 3, **SAME)), 7
    for _ in range(3):
        new = g.relu(g.conv(x, 5, channels, 3, 3, **SAME))
        x, channels = g.node("Concat", [x, new], axis=1), channels + 5
    g.head(x, channels)
    return g.save(path)


def pools(path: Path) -> Path:
    g = Graph()
    x = g.relu(g.conv("x", 12, 3, 3, 3, **SAME))
    x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1])
    x = g.conv(x, 20, 12, 2, 2)
    x = g.node("AveragePool", [x], kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1])
    x = g.relu(g.conv(x, 9, 20, 1, 1))
    x = g.node("AveragePool", [x], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    g.head(x, 9)
    return g.save(path)


def groups(path: Path) -> Path:
    g = Graph()
    x = g.relu(g.conv("x", 12, 1, 3, 3, group=3, pads=[2, 2, 2, 2], dilations=[2, 2]))
    x = g.relu(g.conv(x, 16, 3, 3, 3, group=4, strides=[2, 1], pads=[0, 1, 2, 0]))
    x = g.relu(g.conv(x, 32, 1, 3, 3, group=16, **SAME))
    x = g.relu(g.conv(x, 33, 32, 1, 2, bias=False, dilations=[1, 3]))
    g.head(x, 33)
    return g.save(path)


def sound(path: Path) -> Path:
    """One dimension."""
    g = Graph()
    x = g.relu(g.conv("x", 16, 3, 5, strides=[2], pads=[2, 2]))
    x = g.relu(g.conv(x, 16, 1, 3, group=16, dilations=[2], pads=[2, 2]))
    x = g.node("MaxPool", [x], kernel_shape=[3], strides=[2], pads=[1, 1])
    g.head(g.relu(g.conv(x, 20, 16, 3)), 20)
    return g.save(path, shape=("n", 3, 50))


def excited(path: Path) -> Path:
    """Squeeze and excitation, and smooth activation functions."""
    g = Graph()
    x = g.node("HardSwish", [g.conv("x", 16, 3, 3, 3, **SAME)])
    mean = g.node("GlobalAveragePool", [x])
    weight = g.conv(g.relu(g.conv(mean, 4, 16, 1, 1)), 16, 4, 1, 1)
    x = g.node("Mul", [x, g.node("Sigmoid", [weight])])
    swish = g.conv(x, 16, 16, 3, 3, **SAME)
    x = g.node("Mul", [swish, g.node("Sigmoid", [swish])])
    weight = g.conv(g.node("GlobalAveragePool", [x]), 16, 16, 1, 1)
    x = g.node("Mul", [g.node("HardSigmoid", [weight]), x])
    g.head(x, 16)
    return g.save(path)


def moved(path: Path) -> Path:
    """Channels shuffled, and products of rows that were images."""
    g = Graph()
    x = g.relu(g.conv("x", 12, 3, 3, 3, **SAME))
    x = g.node("Reshape", [x, g.constant([0, 3, 4, 10, 10], np.int64)])
    x = g.node("Transpose", [x], perm=[0, 2, 1, 3, 4])
    x = g.node("Reshape", [x, g.constant([0, 12, 10, 10], np.int64)])
    x = g.relu(g.conv(x, 8, 12, 3, 3, strides=[2, 2]))
    x = g.node("Reshape", [x, g.constant([0, 8, -1], np.int64)])
    x = g.node("Transpose", [x], perm=[0, 2, 1])
    x = g.node("MatMul", [x, g.constant(g.rng.normal(0, 0.3, (8, 6)))])
    x = g.relu(g.node("Add", [x, g.constant(g.rng.normal(0, 0.3, 6))]))
    x = g.node("Flatten", [x])
    g.node("MatMul", [x, g.constant(g.rng.normal(0, 0.1, (96, 10)))], "y")
    return g.save(path)


NETS: dict[str, Callable[[Path], Path]] = {
    f.__name__: f
    for f in (depthwise, residual, dense, pools, groups, sound, excited, moved)
}


def rows_of(net: str, rows: int, seed: int) -> np.ndarray:
    if net == "sound":
        return np.random.default_rng(seed).normal(size=(rows, 3, 50)).astype(np.float32)
    return images(rows, seed)["x"]
