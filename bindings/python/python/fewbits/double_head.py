"""Scaling in 64 bits, for columns whose digits 32 bits do not hold.

scikit-learn computes in float64, an ONNX file of its converter in float32. Where a column lies far from
zero for its spread, as time stamps do, the cast alone loses what the model looks at. A pipeline that
begins with a scaler then becomes a file that takes float64, scales, and casts what is left.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# A column this many times farther from zero than it is wide loses more than 2^-14 of its spread in the
# cast: what 8-bit integers round away is 2^-8.
FAR = 512.0


@dataclass(frozen=True)
class Scaling:
    """``(x - offset) / scale``, a number a column each."""

    offset: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @property
    def is_needed(self) -> bool:
        """Whether the cast to 32 bits before it would lose digits that count."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return bool(np.nanmax(np.abs(self.offset / self.scale), initial=0.0) > FAR)


def scaling_of(scaler: Any) -> Scaling | None:
    """What a fitted scaler does to every column, if it only shifts and scales."""
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    columns = getattr(scaler, "n_features_in_", None)
    if columns is None:
        return None
    zeros, ones = np.zeros(columns), np.ones(columns)
    kind = type(scaler)
    if kind is StandardScaler:
        return Scaling(
            scaler.mean_ if scaler.with_mean else zeros, scaler.scale_ if scaler.with_std else ones
        )
    if kind is MinMaxScaler and not scaler.clip:
        # It computes x * scale_ + min_.
        return Scaling(-scaler.min_ / scaler.scale_, 1 / scaler.scale_)
    if kind is MaxAbsScaler:
        return Scaling(zeros, scaler.scale_)
    if kind is RobustScaler:
        return Scaling(
            scaler.center_ if scaler.with_centering else zeros,
            scaler.scale_ if scaler.with_scaling else ones,
        )
    return None


def scaled_before(onnx: Any, scaling: Scaling) -> Any:
    """A model of one float32 input as one of float64 that is scaled and cast first."""
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.graph
    (given,) = graph.input
    inside = f"{given.name}_scaled"
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == given.name:
                node.input[place] = inside
    constants = {"offset_of_input": scaling.offset, "scale_of_input": scaling.scale}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values, dtype=np.float64), name)
        for name, values in constants.items()
    )
    head = [
        helper.make_node("Sub", [given.name, "offset_of_input"], [f"{given.name}_shifted"]),
        helper.make_node(
            "Div", [f"{given.name}_shifted", "scale_of_input"], [f"{given.name}_divided"]
        ),
        helper.make_node("Cast", [f"{given.name}_divided"], [inside], to=TensorProto.FLOAT),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*head, *rest])
    given.type.tensor_type.elem_type = TensorProto.DOUBLE
    return onnx
