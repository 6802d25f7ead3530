"""Write a model with random weights, to be quantized and timed.

    python make_models.py transformer|resnet|mlp OUT.onnx

transformer  a BERT-like encoder, 22.6 million weights (90 MB): 6 layers of width 384, 12 heads;
             inputs input_ids and attention_mask, both [batch, sequence] of int64, output
             last_hidden_state
resnet       8 convolutions 3x3 of 64 channels with ReLU, the input added after every second one;
             input and output are [batch, 64, 56, 56]
mlp          784-1024-1024-10 with ReLU

Needs onnx and numpy. The graphs are real ones (opset 17), so that any runtime can run what a
quantizer makes of them; the same weights every time.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 30522
POSITIONS = 512
WIDTH = 384
HEADS = 12
LAYERS = 6
INNER = 1536

CHANNELS = 64
SIDE = 56
CONVOLUTIONS = 8

MLP_WIDTHS = (784, 1024, 1024, 10)


class Builder:
    """Collects nodes and initializers; every method answers the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.random = np.random.default_rng(42)

    def node(self, operator: str, *inputs: str, **attributes) -> str:
        result = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [result], **attributes))
        return result

    def constant(self, name: str, values: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, *shape: int, deviation: float = 0.05) -> str:
        values = self.random.normal(0, deviation, shape).astype(np.float32)
        return self.constant(name, values)

    def model(self, name: str, inputs: list, output: onnx.ValueInfoProto, result: str) -> onnx.ModelProto:
        """The model whose output is the value named result."""
        self.nodes.append(helper.make_node("Identity", [result], [output.name]))
        graph = helper.make_graph(self.nodes, name, inputs, [output], self.initializers)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="fewbits")


class Encoder(Builder):
    """The parts of a transformer."""

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        weight = self.weight(f"{name}.weight", inputs, outputs)
        bias = self.weight(f"{name}.bias", outputs)
        return self.node("Add", self.node("MatMul", x, weight), bias)

    def layer_norm(self, name: str, x: str) -> str:
        scale = self.constant(f"{name}.weight", np.ones(WIDTH, np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(WIDTH, np.float32))
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Div", x, "sqrt_two"))
        return self.node("Mul", self.node("Mul", x, self.node("Add", erf, "one")), "half")

    def heads(self, x: str, order: list[int]) -> str:
        """[batch, sequence, WIDTH] to one matrix for each head."""
        return self.node("Transpose", self.node("Reshape", x, "split_heads"), perm=order)

    def attention(self, name: str, x: str, mask: str) -> str:
        query, key, value = (
            self.linear(f"{name}.{part}", x, WIDTH, WIDTH) for part in ("query", "key", "value")
        )
        query, value = self.heads(query, [0, 2, 1, 3]), self.heads(value, [0, 2, 1, 3])
        scores = self.node("MatMul", query, self.heads(key, [0, 2, 3, 1]))
        scores = self.node("Add", self.node("Mul", scores, "head_scale"), mask)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", mixed, "merge_heads")
        return self.linear(f"{name}.output", mixed, WIDTH, WIDTH)

    def layer(self, name: str, x: str, mask: str) -> str:
        attended = self.attention(f"{name}.attention", x, mask)
        x = self.layer_norm(f"{name}.norm1", self.node("Add", x, attended))
        inner = self.gelu(self.linear(f"{name}.inner", x, WIDTH, INNER))
        outer = self.linear(f"{name}.outer", inner, INNER, WIDTH)
        return self.layer_norm(f"{name}.norm2", self.node("Add", x, outer))

    def embeddings(self) -> str:
        words = self.node("Gather", self.weight("words", VOCABULARY, WIDTH), "input_ids")
        length = self.node("Shape", "input_ids", start=1, end=2)
        positions = self.node(
            "Slice",
            self.weight("positions", POSITIONS, WIDTH),
            "slice_start",
            length,
            "slice_axis",
        )
        return self.layer_norm("embeddings.norm", self.node("Add", words, positions))

    def mask(self) -> str:
        """0 where a token is, -10000 where padding is: [batch, 1, 1, sequence]."""
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        mask = self.node("Unsqueeze", mask, "mask_axes")
        return self.node("Mul", self.node("Sub", "one", mask), "masked")


def transformer() -> onnx.ModelProto:
    build = Encoder()
    for name, value in {
        "one": 1.0,
        "half": 0.5,
        "sqrt_two": 2**0.5,
        "head_scale": (WIDTH // HEADS) ** -0.5,
        "masked": -10000.0,
    }.items():
        build.constant(name, np.array(value, np.float32))
    build.constant("split_heads", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    build.constant("merge_heads", np.array([0, 0, WIDTH], np.int64))
    build.constant("mask_axes", np.array([1, 2], np.int64))
    build.constant("slice_start", np.array([0], np.int64))
    build.constant("slice_axis", np.array([0], np.int64))

    mask = build.mask()
    x = build.embeddings()
    for index in range(LAYERS):
        x = build.layer(f"layer{index}", x, mask)
    tokens = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
        for name in ("input_ids", "attention_mask")
    ]
    output = floats("last_hidden_state", *tokens, WIDTH)
    return build.model("encoder", inputs, output, x)


def resnet() -> onnx.ModelProto:
    build = Builder()
    # He et al. 2015: activations keep their scale from layer to layer.
    deviation = (2 / (CHANNELS * 9)) ** 0.5
    x = skipped = "input"
    for index in range(CONVOLUTIONS):
        weight = build.weight(f"conv{index}.weight", CHANNELS, CHANNELS, 3, 3, deviation=deviation)
        bias = build.weight(f"conv{index}.bias", CHANNELS)
        x = build.node("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        if index % 2 == 1:
            x = skipped = build.node("Relu", build.node("Add", x, skipped))
        else:
            x = build.node("Relu", x)
    shape = ["batch", CHANNELS, SIDE, SIDE]
    return build.model("resnet", [floats("input", *shape)], floats("output", *shape), x)


def mlp() -> onnx.ModelProto:
    build = Builder()
    x = "input"
    for index, (inputs, outputs) in enumerate(zip(MLP_WIDTHS, MLP_WIDTHS[1:])):
        deviation = (2 / inputs) ** 0.5
        weight = build.weight(f"layer{index}.weight", outputs, inputs, deviation=deviation)
        x = build.node("Gemm", x, weight, build.weight(f"layer{index}.bias", outputs), transB=1)
        if outputs != MLP_WIDTHS[-1]:
            x = build.node("Relu", x)
    first, last = MLP_WIDTHS[0], MLP_WIDTHS[-1]
    return build.model("mlp", [floats("input", "batch", first)], floats("output", "batch", last), x)


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


MODELS = {"transformer": transformer, "resnet": resnet, "mlp": mlp}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a model with random weights.")
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = MODELS[arguments.name]()
    onnx.checker.check_model(model)
    onnx.save(model, arguments.out)
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    print(f"{arguments.out}: {weights:,} weights, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
