"""A static file cut at its quantized activations, each computed from our own integers before it.

A value near a tie may fall on either side of it, and what follows from it then differs, too. So
end to end nothing can be asked; between one quantized activation and the next, everything.

Executors fuse what stands between two activations; that all are outputs here may change what ours
fuses. So the judge also looks at the answer of the file as it is.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from meaning import Meaning
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from random_graphs.builder import Arrays
from random_graphs.tool import Fault

OURS = "ours:"
BEFORE = "before:"
# How near to a tie, of one step, a value must be to fall on either side.
NEAR_A_TIE = 0.01
ON_A_TIE = 1e-4
# Where there are float16, of which a value has 11 bits.
NEAR_A_TIE_IN_HALF = 0.3


@dataclass(frozen=True)
class Quantizer:
    """A QuantizeLinear of an activation."""

    node: NodeProto
    scale: np.ndarray
    kind: int

    @property
    def output(self) -> str:
        return self.node.output[0]

    def steps(self, before: np.ndarray) -> np.ndarray:
        """The value in steps of the scale, not rounded."""
        scale = self.scale.astype(np.float64)
        if scale.size > 1 and scale.ndim == 1:
            axis = next((a.i for a in self.node.attribute if a.name == "axis"), 1)
            shape = [1] * before.ndim
            shape[axis] = -1
            scale = scale.reshape(shape)
        return before.astype(np.float64) / scale


def constants(model: ModelProto) -> Arrays:
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else []:
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def quantizers(model: ModelProto) -> list[Quantizer]:
    known, found = constants(model), []
    types = {t.name: t.data_type for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in known:
            continue
        if node.input[1] not in known:
            continue
        kind = TensorProto.UINT8
        if len(node.input) > 2 and node.input[2]:
            zero = node.input[2]
            kind = types.get(zero) or helper.np_dtype_to_tensor_dtype(known[zero].dtype)
        found.append(Quantizer(node, known[node.input[1]], kind))
    return found


def shown(model: ModelProto) -> ModelProto:
    """The file with every quantized activation as an output."""
    copy = ModelProto()
    copy.CopyFrom(model)
    given = {value.name for value in copy.graph.output}
    for one in quantizers(model):
        if one.output not in given:
            given.add(one.output)
            copy.graph.output.append(helper.make_tensor_value_info(one.output, one.kind, None))
    return copy


def cut(model: ModelProto) -> ModelProto:
    """The file in pieces: what reads a quantized activation reads an input of the graph instead."""
    copy = shown(model)
    graph, every = copy.graph, quantizers(model)
    for one in every:
        _rename(graph, one.output, OURS + one.output)
        graph.input.append(helper.make_tensor_value_info(OURS + one.output, one.kind, None))
        before = BEFORE + one.output
        graph.node.append(helper.make_node("Identity", [one.node.input[0]], [before]))
        graph.output.append(onnx.ValueInfoProto(name=before))
    # The Identity nodes above read what is made anywhere: nodes stand behind what they read.
    for node in [n for n in graph.node if n.output[0].startswith(BEFORE)]:
        for one in every:
            if node.input[0] == one.output:
                node.input[0] = OURS + one.output
    return copy


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """What reads a value reads another, also within branches."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                _rename(inner, old, new)


def meaning_of_pieces(model: ModelProto, rows: Arrays, ours: Arrays, near: float) -> Arrays:
    """What every output and integer means, given our own integers before it.

    Raises where one of our integers is not what it means; it may differ as near to a tie as `near`.
    """
    every = quantizers(model)
    pieces = Meaning(cut(model))
    fed = {n: a for n, a in rows.items() if n in pieces.inputs}
    fed |= {OURS + one.output: ours[one.output] for one in every}
    try:
        values = dict(zip(pieces.outputs, pieces.run(fed)))
    except Exception as error:
        raise Fault("shape", f"our integers do not fit: {str(error)[:200]}") from error
    for one in every:
        judge_integers(one, ours[one.output], values[one.output], values[BEFORE + one.output], near)
    return {name: a for name, a in values.items() if not name.startswith(BEFORE)}


def judge_integers(
    one: Quantizer, ours: np.ndarray, means: np.ndarray, before: np.ndarray, near: float
) -> None:
    """Equal, but for one step near a tie."""
    if ours.shape != means.shape or ours.dtype != means.dtype:
        found = f"{one.output}: {ours.dtype}{ours.shape}, not {means.dtype}{means.shape}"
        raise Fault("shape", found)
    apart = ours.astype(np.int64) - means.astype(np.int64)
    if not apart.any():
        return
    steps = one.steps(before)
    above = steps - np.floor(steps) - 0.5
    # To the other side of the tie; on it, to either.
    across = (apart == -np.sign(above)) | ((np.abs(apart) == 1) & (np.abs(above) < ON_A_TIE))
    wrong = (apart != 0) & ~((np.abs(above) <= near) & across)
    if wrong.any():
        most = int(np.abs(apart).max())
        raise Fault(
            "integers", f"{one.output}: {int(wrong.sum())} of {wrong.size} wrong, by up to {most}"
        )
