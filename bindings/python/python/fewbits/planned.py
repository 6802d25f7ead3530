"""What becomes of every weight and activation of a model."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fewbits import _fewbits
from fewbits.record import Json, Record, Tagged, named_in_json
from fewbits.table import LISTED, Tabled, decibels
from fewbits.words import Method, ReduceRange, Rounding, Scales, Target

WeightRange = Literal["min_max", "mse"]


@dataclass(frozen=True, kw_only=True)
class Granularity(Tagged):
    """Which elements of a tensor share a scale.

    Attributes
    ----------
    kind : {"tensor", "channel", "group"}
    axis : int or None
        That of channels, or along which groups lie.
    size : int or None
        Elements of a group.
    """

    kind: Literal["tensor", "channel", "group"]
    axis: int | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scheme(Tagged):
    """How floats are represented by integers, or by small floats. As ``str`` in words.

    Attributes
    ----------
    kind : {"affine", "symmetric", "fixed-point", "float", "mx", "nvfp4"}
    bits : int or None
        The width of integers, 1 to 8: affine and symmetric ones.
    granularity : Granularity or None
        What shares a scale: affine, symmetric and float.
    fraction_bits : int or None
        The digits after the binary point of fixed-point numbers, 1 to 15.
    format : {"e4m3", "e5m2", "e2m1"} or None
        The small float: float and mx.
    axis : int or None
        Along which the blocks of mx and nvfp4 lie.
    """

    kind: Literal["affine", "symmetric", "fixed-point", "float", "mx", "nvfp4"]
    bits: int | None = None
    granularity: Granularity | None = None
    fraction_bits: int | None = None
    format: Literal["e4m3", "e5m2", "e2m1"] | None = None
    axis: int | None = None

    def __str__(self) -> str:
        if self.kind == "nvfp4":
            return "nvfp4"
        if self.kind == "mx":
            return "mxfp4" if self.format == "e2m1" else f"mxfp8-{self.format}"
        per = "tensor" if self.granularity is None else self.granularity.kind
        if self.kind == "float":
            return f"fp{4 if self.format == 'e2m1' else 8}-{self.format}, per {per}"
        bits = self.fraction_bits if self.bits is None else self.bits
        return f"{self.kind} {bits}-bit, per {per}"


@dataclass(frozen=True, kw_only=True)
class PlannedTensor(Record):
    """The decision for one tensor. Either ``scheme`` or ``float`` is there.

    Attributes
    ----------
    tensor : str
        Its name in the prepared model.
    shape : list of int
    read_by : list of str
        The operators that read it.
    range : tuple of two floats, or None
        The smallest and the largest value, where it becomes integers.
    sqnr_db : float or None
        Signal to quantization noise in decibels, before any adjustment.
    range_method : {"min_max", "mse"}
        How the ranges of its integers are found.
    rounding : {"nearest", "gptq", "hqq", "adaround"}
    scale_type : {"f32", "f16", "u8"}
        How its scales are stored.
    reduce_range : {"auto", "all", "none"}
        Which integers of 8 bits are left out.
    scheme : Scheme or None
        What it becomes.
    float : str or None
        Why it stays float.
    """

    tensor: str
    shape: list[int]
    read_by: list[str]
    range: tuple[float, float] | None = None
    sqnr_db: float | None = None
    range_method: WeightRange = "min_max"
    rounding: Rounding = "nearest"
    scale_type: Scales = "f32"
    reduce_range: ReduceRange = "auto"
    scheme: Scheme | None = None
    float: str | None = None


@dataclass(frozen=True, kw_only=True)
class StaticScale(Record):
    """Integers with a scale that is fixed beforehand.

    Attributes
    ----------
    scheme : Scheme
    low, high : float
        The smallest and the largest value that are not cut off.
    sqnr_db : float or None
        Signal to quantization noise on the calibration data, in decibels.
    """

    scheme: Scheme
    low: float
    high: float
    sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedActivation(Record):
    """The decision for one activation: a fixed scale, one at every call, or float.

    Attributes
    ----------
    value : str
        Its name in the prepared model.
    readers : {"all", "products"}
        Who reads its integers.
    static : StaticScale or None
        The scale that is fixed beforehand.
    float : str or None
        Why it stays float.
    """

    value: str
    readers: Literal["all", "products"]
    static: StaticScale | None = None
    float: str | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether it becomes integers with a scale measured at every call."""
        return self.static is None and self.float is None

    def _fill(self, value: Json) -> None:
        # The JSON has a key without a value for it.
        if isinstance(value, dict):
            value = {key: item for key, item in value.items() if key != "dynamic"}
        super()._fill(value)

    def _told(self) -> Iterator[tuple[str, object]]:
        yield from super()._told()
        if self.is_dynamic:
            yield "dynamic", None


@dataclass(frozen=True, kw_only=True)
class Edit(Tagged):
    """What an adjustment does with its values, one for each index on an axis.

    Attributes
    ----------
    kind : {"multiply", "add", "multiply_for_products"}
    tensor : str or None
        The constant that is multiplied or added to.
    axis : int or None
        The axis of it along which the values lie.
    value : str or None
        The activation that is multiplied for the products that read it, along its last axis.
    """

    kind: Literal["multiply", "add", "multiply_for_products"]
    tensor: str | None = None
    axis: int | None = None
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class Adjustment(Record):
    """An edit of a constant or an activation before anything is quantized.

    Attributes
    ----------
    method : {"equalization", "smoothquant", "awq", "bias-correction"}
    edit : Edit
    values : list of float
    """

    method: Method
    edit: Edit
    values: list[float]


@dataclass(frozen=True, kw_only=True)
class Tried(Record):
    """Something that was measured on a sample of the calibration data to choose a plan.

    Attributes
    ----------
    methods : list of str
        Those in use.
    rounding, weight_range, widths, range
        How weights were rounded, how their ranges were found, whether tables and last products were kept
        wide, and how the ranges of activations were found; each None where it was not to be chosen.
    sqnr_db : float or None
        Signal to quantization noise of the outputs in decibels; None where nothing differs.
    kept : bool
        Whether the plan, or what was tried after it, goes on from it.
    """

    methods: list[Method]
    rounding: Rounding | None = None
    weight_range: WeightRange | None = None
    widths: Literal["kept_wide", "as_asked"] | None = None
    range: Literal["min_max", "mse", "entropy"] | dict[str, float] | None = None
    sqnr_db: float | None
    kept: bool


@dataclass(frozen=True, kw_only=True)
class ReducedRange(Record):
    """Channels of a weight that use fewer integers than they could.

    Attributes
    ----------
    tensor : str
    channels : list of int
        Which of its scales; the only one, 0, where it has one scale.
    why : str
    """

    tensor: str
    channels: list[int]
    why: str


@dataclass(frozen=True, kw_only=True, repr=False, init=False)
class Plan(Tabled):
    """What becomes of every weight and activation, and why: data to read, edit and keep.

    To edit one, change what :meth:`to_dict` gives and make a plan of its JSON.

    Parameters
    ----------
    text : str
        The JSON that :meth:`to_json` gives.

    Attributes
    ----------
    fewbits_plan : int
        The version of the format.
    target : str
        The runtime that the file is for.
    integer_weights : {"kept", "requantized"}
        What becomes of weights that are integers already.
    adjustments : list of Adjustment
        Edits before anything is quantized.
    tried : list of Tried
        What was measured to choose this plan.
    reduced : list of ReducedRange
        The weights that use fewer integers than they could: to be read, it is found anew.
    tensors : list of PlannedTensor
        A decision each, in the order in which the model reads them.
    activations : list of PlannedActivation
        A decision each.

    Raises
    ------
    ValueError
        If the text is not a plan.
    """

    fewbits_plan: int
    target: Target = "onnx"
    integer_weights: Literal["kept", "requantized"] = "kept"
    adjustments: list[Adjustment] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    reduced: list[ReducedRange] = field(
        default_factory=list, metadata=named_in_json("reduced_range")
    )
    tensors: list[PlannedTensor]
    activations: list[PlannedActivation] = field(default_factory=list)

    def __init__(self, text: str) -> None:
        self._fill(json.loads(_fewbits.check_plan(text)))

    @staticmethod
    def read(source: "Plan | str | os.PathLike[str]") -> "Plan":
        """Reads a plan file, or checks a plan that was edited.

        Parameters
        ----------
        source : path-like or Plan

        Returns
        -------
        Plan

        Raises
        ------
        OSError
            If it cannot be read; FileNotFoundError if there is no such file.
        ValueError
            If it is not a plan.
        TypeError
            If it is neither a plan nor a path.
        """
        if isinstance(source, Plan):
            return Plan(source.to_json())
        if isinstance(source, (str, os.PathLike)):
            return Plan(Path(source).read_text(encoding="utf-8"))
        raise TypeError(f"a Plan or a path is needed, not {type(source).__name__}")

    def to_json(self) -> str:
        """The plan as the command line's ``--plan`` reads it."""
        return json.dumps(self.to_dict(), indent=2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`to_json` to a file, in the place of one that is there.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @property
    def kept_float(self) -> dict[str, str]:
        """Why each weight that stays float does, by its name."""
        return {t.tensor: t.float for t in self.tensors if t.float is not None}

    @property
    def reduced_range(self) -> dict[str, list[int]]:
        """The channels of each weight that use fewer integers than they could, by its name."""
        return {reduced.tensor: reduced.channels for reduced in self.reduced}

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [t.tensor, "×".join(map(str, t.shape)), _becomes(t.float, t.scheme), decibels(t.sqnr_db)]
            for t in self.tensors[:LISTED]
        ]
        rows += [
            [
                f"{a.value} (activation)",
                "",
                _becomes(a.float, None)
                if a.static is None
                else f"{a.static.scheme}, a fixed scale",
                decibels(None if a.static is None else a.static.sqnr_db),
            ]
            for a in self.activations[:LISTED]
        ]
        return ["tensor", "shape", "becomes", "SQNR dB"], rows

    def _words(self) -> list[str]:
        kept = len(self.kept_float)
        return [f"{len(self.tensors) - kept} tensors quantized, {kept} kept float"]


def _becomes(why_float: str | None, scheme: Scheme | None) -> str:
    if why_float is not None:
        return f"float: {why_float}"
    return "8-bit, scaled at every call" if scheme is None else str(scheme)
