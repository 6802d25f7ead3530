"""What was measured of models: typed data that prints as a table."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fewbits.measured import DropInterval, Environment, Latency, WorstOutput
from fewbits.record import NOT_IN_JSON, Record
from fewbits.table import LISTED, Tabled, count, milliseconds
from fewbits.words import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Side(Record):
    """What was measured of one of two models.

    Attributes
    ----------
    path : str
        Its file; empty for a model in memory.
    metric : float
    file_bytes, weight_bytes : int
        Of the file, and of the constants in it.
    latency_ms : Latency
        The time of a call with one row, in milliseconds.
    energy_j : float or None
        Joules of one call with one row, where the machine tells.
    peak_rss_bytes : int or None
        The largest resident memory; None where it was not measured.
    """

    path: str
    metric: float
    file_bytes: int
    weight_bytes: int
    latency_ms: Latency
    energy_j: float | None
    peak_rss_bytes: int | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Tabled):
    """Two models on the same rows. See :func:`fewbits.compare`.

    Attributes
    ----------
    metric : str
    rows : int
    a, b : Side
        What was measured of each model.
    drop : float
        How much worse ``b`` is, in the metric's unit; negative if better.
    drop_interval : DropInterval or None
        Where the drop over all data lies, with 95 % confidence; None where the rows are too few to tell.
    agreement : float
        The fraction of rows on which both predict the same.
    max_abs_error : float
        The largest difference between two float outputs.
    sqnr_db : float or None
        Signal to quantization noise of the float outputs in decibels; None if they are equal.
    worst_output : WorstOutput or None
        The float output of ``b`` that is farthest from that of ``a``; None if all are equal.
    verdict : str
    notes : list of str
    energy_note : str
        What the energy is, or why there is none.
    max_drop : float or None
        The drop that was allowed.
    """

    metric: Metric
    rows: int
    a: Side
    b: Side
    drop: float
    drop_interval: DropInterval | None
    agreement: float
    max_abs_error: float
    sqnr_db: float | None
    worst_output: WorstOutput | None
    verdict: str
    notes: list[str]
    energy_note: str
    max_drop: float | None = field(default=None, metadata=NOT_IN_JSON)

    @property
    def accepted(self) -> bool:
        """Whether the drop is at most ``max_drop``; True if none was given."""
        # As the command line decides: what floating point moves is no drop.
        return self.max_drop is None or self.drop <= self.max_drop + 1e-9

    def _table(self) -> tuple[list[str], list[list[str]]]:
        a, b = self.a, self.b
        rows = [
            [self.metric, f"{a.metric:.4f}", f"{b.metric:.4f}"],
            ["file bytes", count(a.file_bytes), count(b.file_bytes)],
            ["weight bytes", count(a.weight_bytes), count(b.weight_bytes)],
            [
                "one call (median)",
                milliseconds(a.latency_ms.median),
                milliseconds(b.latency_ms.median),
            ],
        ]
        return ["", "a", "b"], rows

    def _words(self) -> list[str]:
        agree = f"{self.rows} rows, the same prediction on {100 * self.agreement:.2f} %"
        return [agree, self.verdict, *self.notes]


@dataclass(frozen=True, kw_only=True)
class FloatPoint(Record):
    """The model as it came.

    Attributes
    ----------
    metric : float
    file_bytes, weight_bytes : int
        Of the file, and of the constants in it.
    latency_ms : float
        The median time of a call with one row, in milliseconds.
    """

    metric: float
    file_bytes: int
    weight_bytes: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Point(Record):
    """The model at one width.

    Attributes
    ----------
    bits : int
        The width of weights; for fixed point the digits after the point.
    metric : float
    drop : float
        How much worse that is than the float model's, in the metric's unit; negative if better.
    agreement : float
        The fraction of rows on which it predicts what the float model predicts.
    file_bytes, weight_bytes : int
        Of the file, and of the constants in it.
    latency_ms : float
        The median time of a call with one row, in milliseconds.
    max_abs_error : float
        The largest difference between a float output and the float model's.
    sqnr_db : float or None
        Signal to quantization noise of the float outputs in decibels; None if they are equal.
    worst_output : WorstOutput or None
        The float output that is farthest from the float model's; None if all are equal.
    quantized : int
        Weights that became integers.
    path : str or None
        The file, where it is kept.
    """

    bits: int
    metric: float
    drop: float
    agreement: float
    file_bytes: int
    weight_bytes: int
    latency_ms: float
    max_abs_error: float
    sqnr_db: float | None
    worst_output: WorstOutput | None
    quantized: int
    path: str | None


@dataclass(frozen=True, kw_only=True)
class Advised(Record):
    """The width to take.

    Attributes
    ----------
    bits : int
        The width of weights; for fixed point the digits after the point.
    file_bytes : int
    metric : float
    """

    bits: int
    file_bytes: int
    metric: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Sweep(Tabled):
    """A model at several widths. See :func:`fewbits.sweep`.

    Attributes
    ----------
    metric : str
    rows : int
    float : FloatPoint
        The model as it came.
    points : list of Point
        One for every width, in the order asked for.
    advised : Advised or None
        The width to take, if one is to be advised.
    verdict : str
    notes : list of str
    environment : Environment
        Where it was measured.
    """

    metric: Metric
    rows: int
    float: FloatPoint
    points: list[Point]
    advised: Advised | None
    verdict: str
    notes: list[str]
    environment: Environment

    def _table(self) -> tuple[list[str], list[list[str]]]:
        whole = self.float
        rows = [
            [
                "float",
                f"{whole.metric:.4f}",
                "",
                count(whole.weight_bytes),
                count(whole.file_bytes),
                milliseconds(whole.latency_ms),
            ]
        ]
        rows += [
            [
                str(point.bits),
                f"{point.metric:.4f}",
                f"{100 * point.agreement:.2f} %",
                count(point.weight_bytes),
                count(point.file_bytes),
                milliseconds(point.latency_ms),
            ]
            for point in self.points
        ]
        head = ["bits", self.metric, "agreement", "weight bytes", "file bytes", "one call"]
        return head, rows

    def _words(self) -> list[str]:
        return [f"{self.rows} rows. {self.verdict}", *self.notes]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the metric, and the bytes of the file, over the width.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if not given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("plot() draws with matplotlib: pip install matplotlib") from error
        if ax is None:
            _, ax = plt.subplots()
        bits = [point.bits for point in self.points]
        metric = [point.metric for point in self.points]
        size = [point.file_bytes for point in self.points]
        (line,) = ax.plot(bits, metric, marker="o", label=self.metric)
        ax.axhline(self.float.metric, linestyle="--", color=line.get_color(), label="float")
        ax.set_xlabel("bits")
        ax.set_ylabel(self.metric)
        ax.set_xticks(bits)
        beside = ax.twinx()
        bars = beside.bar(bits, size, width=0.4, alpha=0.25, color="gray", label="file bytes")
        beside.set_ylabel("file bytes")
        ax.set_zorder(beside.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.legend(handles=[*ax.get_lines(), bars], loc="lower right")
        return ax


@dataclass(frozen=True, kw_only=True)
class Value(Record):
    """An input or output.

    Attributes
    ----------
    name : str
    type : str or None
        Its element type, if declared.
    shape : str
        Free dimensions as ``?``.
    """

    name: str
    type: str | None
    shape: str


@dataclass(frozen=True, kw_only=True)
class Stored(Record):
    """Constants of one type in one place of the file.

    Attributes
    ----------
    place : {"initializers", "nodes", "subgraphs", "functions"}
    type : str or None
        The type of their elements, if it is one of ONNX's.
    tensors : int
        How many there are.
    bytes : int
        What they take.
    """

    place: Literal["initializers", "nodes", "subgraphs", "functions"]
    type: str | None
    tensors: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Tensor(Record):
    """A weight, or another constant.

    Attributes
    ----------
    tensor : str
        Its name.
    shape : list of int
    bits : int
        Of an element.
    scheme : str
        How it is represented.
    bytes : int
        What it takes, scales and zero points included.
    min, max : float
        The smallest and the largest value; NaN if it holds one.
    role : {"weight", "bias", "constant"}
    """

    tensor: str
    shape: list[int]
    bits: int
    scheme: str
    bytes: int
    min: float
    max: float
    role: Literal["weight", "bias", "constant"]


@dataclass(frozen=True, kw_only=True)
class Activation(Record):
    """An activation that is quantized with a scale of the file's.

    Attributes
    ----------
    value : str
        The float value that becomes integers.
    type : str
        The element type of the integers.
    scale : float
        The step between two integers.
    zero_point : int
        The integer that stands for 0.
    min, max : float
        The smallest and the largest value that are not cut off.
    """

    value: str
    type: str
    scale: float
    zero_point: int
    min: float
    max: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Inspection(Tabled):
    """What a model holds. See :func:`fewbits.inspect`.

    Attributes
    ----------
    path : str or None
        The file; None for a model in memory.
    file_bytes, weight_bytes : int
        Of the file, and of all constants in it.
    stored : list of Stored
        Where the latter lie.
    opset : int
        The version of the default operator set.
    producer : str
        The tool that wrote the file.
    inputs, outputs : list of Value
    operators : dict of str to int
        How often each operator occurs in the file.
    lowered, not_lowered : list of str
        Classical operators whose weights are seen; those that standard ones cannot express, and why.
    notes : list of str
    tensors : list of Tensor
        The weights.
    activations : list of Activation
        Those with a scale of the file's.
    metadata : dict of str to str
        The file's entries.
    """

    path: str | None
    file_bytes: int
    weight_bytes: int
    stored: list[Stored]
    opset: int
    producer: str
    inputs: list[Value]
    outputs: list[Value]
    operators: dict[str, int]
    lowered: list[str]
    not_lowered: list[str]
    notes: list[str]
    tensors: list[Tensor]
    activations: list[Activation]
    metadata: dict[str, str]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                tensor.tensor,
                tensor.scheme,
                "×".join(map(str, tensor.shape)),
                str(tensor.bits),
                count(tensor.bytes),
                f"{tensor.min:.4f}",
                f"{tensor.max:.4f}",
            ]
            for tensor in self.tensors[:LISTED]
        ]
        return ["tensor", "scheme", "shape", "bits", "bytes", "min", "max"], rows

    def _words(self) -> list[str]:
        operators = ", ".join(f"{n} {op}" for op, n in self.operators.items())
        size = f"{count(self.file_bytes)} bytes, {count(self.weight_bytes)} of them weights"
        left = len(self.tensors) - LISTED
        more = [f"… and {left} more in .tensors"] if left > 0 else []
        return [*more, f"{size}; opset {self.opset}; operators: {operators}", *self.notes]
