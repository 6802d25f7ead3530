"""What a search came to, with the model that it found."""

from dataclasses import dataclass, field
from typing import Literal

from fewbits.measured import WorstOutput
from fewbits.model import Model
from fewbits.planned import Plan, Scheme, WeightRange
from fewbits.record import NOT_IN_JSON, Record
from fewbits.table import LISTED, Tabled, count
from fewbits.words import Metric, Objective, Rounding, Scales


@dataclass(frozen=True, kw_only=True)
class FloatSide(Record):
    """What was measured of the float model.

    Attributes
    ----------
    metric : float
    file_bytes, weight_bytes : int
        Of the file, and of the constants in it.
    latency_ms : float or None
        The median time of a call with one row, in milliseconds, where it was measured.
    """

    metric: float
    file_bytes: int
    weight_bytes: int
    latency_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Checked(Record):
    """What was measured of one model of a search.

    Attributes
    ----------
    bits : float
        The mean width of its weights' integers.
    metric : float
    drop : float
        How much worse that is than the float model's, in the metric's unit; negative if better.
    drop_interval : tuple of two floats, or None
        The ends of the drop's confidence interval, where the metric has one.
    expected_regret : float or None
        What accuracy would drop if the float model's probabilities were right.
    agreement : float
        The fraction of rows on which it predicts what the float model predicts.
    worst_output : WorstOutput or None
        The float output that is farthest from the float model's; None if all are equal.
    file_bytes, weight_bytes : int
        Of the file, and of the constants in it.
    latency_ms : float
        The median time of a call with one row, in milliseconds.
    """

    bits: float
    metric: float
    drop: float
    drop_interval: tuple[float, float] | None
    expected_regret: float | None
    agreement: float
    worst_output: WorstOutput | None
    file_bytes: int
    weight_bytes: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Best(Checked):
    """The model that was found: what was measured of it, and its plan.

    Attributes
    ----------
    plan : Plan
        How it was made.
    """

    plan: Plan


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """What one thing that a weight may become costs.

    Attributes
    ----------
    scheme : Scheme
    range_method : {"min_max", "mse"}
    rounding : {"nearest", "gptq", "hqq", "adaround"}
    scale_type : {"f32", "f16", "u8"}
        How it becomes integers.
    file_bytes_saved : int
    divergence : float
        How far the outputs move: for class scores the relative entropy in nats a row, otherwise the power
        of the difference over that of the outputs.
    output_error : float or None
        The power of the difference of the float outputs over their power.
    drop : float or None
        How much worse the metric is, where the sample has labels for it.
    """

    scheme: Scheme
    range_method: WeightRange = "min_max"
    rounding: Rounding = "nearest"
    scale_type: Scales = "f32"
    file_bytes_saved: int
    divergence: float
    output_error: float | None
    drop: float | None


@dataclass(frozen=True, kw_only=True)
class Sensitivity(Record):
    """What a weight costs alone.

    Attributes
    ----------
    tensor : str
    costs : list of Cost
        One for each thing that it may become.
    """

    tensor: str
    costs: list[Cost]


@dataclass(frozen=True, kw_only=True)
class Slower(Record):
    """What measured slower on integers, and so stays float.

    Attributes
    ----------
    what : {"operator", "model"}
    operator : str or None
        The operator's node, or its first output.
    integers_us, float_us : float
        The time that it takes on integers and in floats, in microseconds.
    """

    what: Literal["operator", "model"]
    operator: str | None = None
    integers_us: float
    float_us: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuned(Tabled):
    """What a search came to. See :func:`fewbits.tune`.

    Attributes
    ----------
    model : Model or None
        The best model; None if no smaller one stays within the drop.
    metric : str
    objective : {"size", "latency"}
        What was made as small as it can be.
    rows : int
        Those that the drop was measured on.
    max_drop : float
        The drop that was allowed.
    float : FloatSide
    best : Best or None
        What was measured of ``model``.
    points : list of Checked
        Every model that was measured, by falling size.
    sensitivity : list of Sensitivity
        What every weight costs alone, where their widths were chosen.
    slower : list of Slower
        What stays float since it measured slower in integers, where time is the objective.
    complete : bool
        Whether nothing was left to try.
    notes : list of str
    verdict : str
    """

    metric: Metric
    objective: Objective
    rows: int
    max_drop: float
    float: FloatSide
    best: Best | None
    points: list[Checked]
    sensitivity: list[Sensitivity]
    slower: list[Slower]
    complete: bool
    notes: list[str]
    verdict: str
    model: Model | None = field(default=None, compare=False, metadata=NOT_IN_JSON)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        whole = self.float
        rows = [["float", f"{whole.metric:.4f}", "", "", "", count(whole.file_bytes)]]
        rows += [
            [
                f"{point.bits:.2f}",
                f"{point.metric:.4f}",
                f"{point.drop:.4f}",
                f"{100 * point.agreement:.2f} %",
                count(point.weight_bytes),
                count(point.file_bytes),
            ]
            for point in self.points[:LISTED]
        ]
        head = ["mean bits", self.metric, "drop", "agreement", "weight bytes", "file bytes"]
        return head, rows

    def _words(self) -> list[str]:
        left = len(self.points) - LISTED
        more = [f"… and {left} more in .points"] if left > 0 else []
        return [*more, self.verdict, *self.notes]
