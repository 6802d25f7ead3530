"""A file cut at its quantized activations, each computed from our own integers before it.

A value near a tie may fall on either side of it, and what follows from it then differs, too. So
end to end nothing can be asked; between one quantized activation and the next, everything.

Executors fuse what stands between two activations; that all are outputs here may change what ours
fuses. So the judge also looks at the answer of the file as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from meaning import Meaning
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from qdq_form import in_qdq

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


@dataclass(frozen=True)
class DynamicQuantizer:
    """A DynamicQuantizeLinear: bytes, their scale and their zero point follow from the values."""

    node: NodeProto

    @property
    def outputs(self) -> dict[str, int]:
        """What it gives, with the types."""
        types = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
        return dict(zip(self.node.output, types))

    def judge(self, ours: Arrays, before: np.ndarray, near: float) -> None:
        """What ONNX defines, but for one step near a tie."""
        output, scale, zero = (ours[name] for name in self.outputs)
        values = before.astype(np.float64)
        low, high = min(0.0, values.min(initial=0)), max(0.0, values.max(initial=0))
        means = (high - low) / 255
        # Sums of floats differ by their order: the range may be so much of a step wider.
        if abs(scale.item() - means) * 255 > near * means:
            raise Fault("integers", f"{self.node.output[1]}: {scale.item()}, not {means}")
        if means == 0:
            return
        parts = {
            self.node.output[2]: (zero, -low / means),
            self.node.output[0]: (output, values / np.float64(scale) + zero),
        }
        for name, (found, exact) in parts.items():
            wrong = np.abs(found - np.clip(exact, 0, 255)) > 0.5 + near
            if wrong.any():
                raise Fault("integers", f"{name}: {int(wrong.sum())} of {wrong.size} wrong")


def dynamic_quantizers(model: ModelProto) -> list[DynamicQuantizer]:
    nodes = model.graph.node
    return [DynamicQuantizer(node) for node in nodes if node.op_type == "DynamicQuantizeLinear"]


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


def shown(model: ModelProto, integers: dict[str, int]) -> ModelProto:
    """The file with every quantized activation as an output."""
    copy = ModelProto()
    copy.CopyFrom(model)
    given = {value.name for value in copy.graph.output}
    for name, kind in integers.items():
        if name not in given:
            copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy


def _integers(model: ModelProto) -> dict[str, int]:
    """What quantizers give, with the types; of dynamic ones their scales, too."""
    found = {one.output: one.kind for one in quantizers(model)}
    for one in dynamic_quantizers(model):
        found |= one.outputs
    return found


def cut(model: ModelProto) -> ModelProto:
    """The file in pieces: what reads a quantized activation reads an input of the graph instead."""
    integers = _integers(model)
    copy = shown(model, integers)
    graph = copy.graph
    for name, kind in integers.items():
        _rename(graph, name, OURS + name)
        graph.input.append(helper.make_tensor_value_info(OURS + name, kind, None))
    for one in [*quantizers(model), *dynamic_quantizers(model)]:
        value, before = one.node.input[0], BEFORE + one.node.output[0]
        read = OURS + value if value in integers else value
        graph.node.append(helper.make_node("Identity", [read], [before]))
        graph.output.append(onnx.ValueInfoProto(name=before))
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
    fed |= {OURS + name: ours[name] for name in _integers(model)}
    try:
        values = dict(zip(pieces.outputs, pieces.run(fed)))
    except Exception as error:
        raise Fault("shape", f"our integers do not fit: {str(error)[:200]}") from error
    for one in every:
        judge_integers(one, ours[one.output], values[one.output], values[BEFORE + one.output], near)
    for one in dynamic_quantizers(model):
        one.judge(ours, values[BEFORE + one.node.output[0]], near)
    return {name: a for name, a in values.items() if not name.startswith(BEFORE)}


def judged(
    model: ModelProto, rows: Arrays, run: Callable[[ModelProto], Arrays], near: float
) -> tuple[Arrays, Arrays]:
    """What `run` answers for the file with every integer shown, and what that means."""
    reference = in_qdq(model)
    ours = run(shown(model, _integers(reference)))
    return ours, meaning_of_pieces(reference, rows, ours, near)


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
