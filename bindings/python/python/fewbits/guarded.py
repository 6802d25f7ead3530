"""What `quantize` measured of the model that it gives."""

from dataclasses import dataclass

from fewbits.record import Record
from fewbits.words import Metric


@dataclass(frozen=True, kw_only=True)
class MetricDrop(Record):
    """The metric of the model that is written.

    Attributes
    ----------
    metric : str
    before, after : float
        Of the float model and of the quantized one.
    drop : float
        How much worse the latter is, in the metric's unit; negative if better.
    """

    metric: Metric
    before: float
    after: float
    drop: float


@dataclass(frozen=True, kw_only=True)
class LeftFloat(Record):
    """Something that stays float because it costs too much.

    Attributes
    ----------
    tensors : list of str
        The weight, or the activations with one scale.
    layer : str or None
        The first node that reads it.
    output : str or None
        The output that it costs most.
    sqnr_db : float or None
        The signal to quantization noise of that output if nothing else is quantized, in decibels.
    """

    tensors: list[str]
    layer: str | None
    output: str | None
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class Guarded(Record):
    """What ``min_sqnr`` and ``max_drop`` of :func:`fewbits.quantize` measured and did.

    Attributes
    ----------
    output_sqnr_db : dict of str to float or None, or None
        The signal to quantization noise of every float output by name, in decibels: None where it equals
        the float model's. None at all where that was not measured.
    drop : MetricDrop or None
        How the metric fared, where a drop is limited.
    rows : int
        Rows on which ``output_sqnr_db`` was measured.
    evaluations : int
        How many models were measured.
    left_float : list of LeftFloat
        What stays float, that which costs most first.
    notes, warnings : list of str
        What was done; what does not hold, or could not be measured.
    """

    output_sqnr_db: dict[str, float | None] | None
    drop: MetricDrop | None
    rows: int
    evaluations: int
    left_float: list[LeftFloat]
    notes: list[str]
    warnings: list[str]
