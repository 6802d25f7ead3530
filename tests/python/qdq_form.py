"""Operators on bytes as what they mean: DequantizeLinear, an operator on floats, QuantizeLinear.

The reference for files of ONNX Runtime's QOperator format: what an operator rounds can then be seen
before it is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper


@dataclass(frozen=True)
class Form:
    """Where an operator has its values, each followed by a scale and a zero point, and its result's."""

    becomes: str
    values: Sequence[int]
    # The scale of the result; its zero point stands behind.
    result: int
    # Integers whose scale is the product of those of the values.
    bias: int | None = None


UNARY = dict(values=(0,), result=3)
BINARY = dict(values=(0, 3), result=6)
FORMS = {
    "QLinearConv": Form("Conv", **BINARY, bias=8),
    "QLinearMatMul": Form("MatMul", **BINARY),
    # A scale of the sums stands before those of the result: it is 1.
    "QGemm": Form("Gemm", (0, 3), 7, bias=6),
    "QLinearAdd": Form("Add", **BINARY),
    "QLinearMul": Form("Mul", **BINARY),
    "QLinearSigmoid": Form("Sigmoid", **UNARY),
    "QLinearAveragePool": Form("AveragePool", **UNARY),
    "QLinearGlobalAveragePool": Form("GlobalAveragePool", **UNARY),
}
NOT_THEIRS = {"channels_last"}


def in_qdq(model: ModelProto) -> ModelProto:
    """The model with every operator on bytes as three; names of results stay."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_split(node))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _split(node: NodeProto) -> list[NodeProto]:
    if node.op_type == "QLinearConcat":
        form = Form("Concat", range(2, len(node.input), 3), 0)
    elif node.op_type in FORMS:
        form = FORMS[node.op_type]
    else:
        return [node]
    nodes: list[NodeProto] = []

    def add(op: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        output = output or f"{node.output[0]}:{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    # Along which weights have scales of their own.
    axis = 0 if form.becomes == "Conv" or given.get("transB") else 1
    read = []
    for at in form.values:
        read.append(add("DequantizeLinear", node.input[at : at + 3], axis=axis if at else 1))
    if form.bias is not None and len(node.input) > form.bias and node.input[form.bias]:
        first, second = (node.input[at + 1] for at in form.values)
        scale = add("Mul", [first, second])
        read.append(add("DequantizeLinear", [node.input[form.bias], scale], axis=0))
    computed = add(form.becomes, read)
    kept = [a for a in node.attribute if a.name not in NOT_THEIRS]
    nodes[-1].attribute.extend(kept)
    add("QuantizeLinear", [computed, *node.input[form.result : form.result + 2]], node.output[0])
    return nodes
