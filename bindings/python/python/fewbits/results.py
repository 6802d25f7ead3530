"""What was planned and measured: plain data that prints as a table."""

import json
import os
from html import escape
from pathlib import Path
from typing import Any

from fewbits import _fewbits
from fewbits._fewbits import OnnxModel
from fewbits.table import count, html_table, milliseconds, text_table

# Rows of a table before the rest is only counted.
LISTED = 40


class Result:
    """A JSON object, its keys as attributes."""

    def __init__(self, text: str) -> None:
        self._fields: dict[str, Any] = json.loads(text)

    def to_dict(self) -> dict[str, Any]:
        """Everything that was measured, as the command line's ``--json`` prints it."""
        fields: dict[str, Any] = json.loads(json.dumps(self._fields))
        return fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            known = ", ".join(self._fields)
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        raise NotImplementedError

    def _words(self) -> list[str]:
        """Lines below the table."""
        return []

    def __repr__(self) -> str:
        return "\n".join([text_table(*self._table()), *self._words()])

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(line)}</p>" for line in self._words())
        return html_table(*self._table(), type(self).__name__) + words


class Comparison(Result):
    """Two models on the same rows. See :func:`fewbits.compare`.

    Attributes
    ----------
    metric : str
    rows : int
    a, b : dict
        ``metric``, ``file_bytes``, ``weight_bytes``, ``latency_ms`` and others of each model.
    drop : float
        How much worse ``b`` is; negative if better.
    drop_interval : dict or None
        Where the drop over all data lies, with 95 % confidence.
    agreement : float
        The fraction of rows on which both predict the same.
    max_abs_error : float
    verdict : str
    accepted : bool
        Whether the drop is at most ``max_drop``; True if none was given.
    """

    def __init__(self, text: str, max_drop: float | None = None) -> None:
        super().__init__(text)
        self.max_drop = max_drop

    @property
    def accepted(self) -> bool:
        # As the command line decides: what floating point moves is no drop.
        return self.max_drop is None or bool(self.drop <= self.max_drop + 1e-9)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        a, b = self.a, self.b
        rows = [
            [self.metric, f"{a['metric']:.4f}", f"{b['metric']:.4f}"],
            ["file bytes", count(a["file_bytes"]), count(b["file_bytes"])],
            ["weight bytes", count(a["weight_bytes"]), count(b["weight_bytes"])],
            [
                "one call (median)",
                milliseconds(a["latency_ms"]["median"]),
                milliseconds(b["latency_ms"]["median"]),
            ],
        ]
        return ["", "a", "b"], rows

    def _words(self) -> list[str]:
        agree = f"{self.rows} rows, the same prediction on {100 * self.agreement:.2f} %"
        return [agree, self.verdict, *self.notes]


class Sweep(Result):
    """A model at several widths. See :func:`fewbits.sweep`.

    Attributes
    ----------
    metric : str
    rows : int
    float : dict
        ``metric``, ``file_bytes``, ``weight_bytes`` and ``latency_ms`` of the model as it came.
    points : list of dict
        The same and more for every width, and its ``bits``.
    advised : dict or None
        ``bits``, ``file_bytes`` and ``metric`` of the width to take, if one is to be advised.
    verdict : str
    """

    def _table(self) -> tuple[list[str], list[list[str]]]:
        whole = self.float
        rows = [
            [
                "float",
                f"{whole['metric']:.4f}",
                "",
                count(whole["weight_bytes"]),
                count(whole["file_bytes"]),
                milliseconds(whole["latency_ms"]),
            ]
        ]
        rows += [
            [
                str(point["bits"]),
                f"{point['metric']:.4f}",
                f"{100 * point['agreement']:.2f} %",
                count(point["weight_bytes"]),
                count(point["file_bytes"]),
                milliseconds(point["latency_ms"]),
            ]
            for point in self.points
        ]
        head = ["bits", self.metric, "agreement", "weight bytes", "file bytes", "one call"]
        return head, rows

    def _words(self) -> list[str]:
        return [f"{self.rows} rows. {self.verdict}", *self.notes]

    def plot(self, ax: Any = None) -> Any:
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
        bits = [point["bits"] for point in self.points]
        metric = [point["metric"] for point in self.points]
        size = [point["file_bytes"] for point in self.points]
        (line,) = ax.plot(bits, metric, marker="o", label=self.metric)
        ax.axhline(self.float["metric"], linestyle="--", color=line.get_color(), label="float")
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


class Inspection(Result):
    """What a model holds. See :func:`fewbits.inspect`.

    Attributes
    ----------
    file_bytes, weight_bytes, opset : int
    inputs, outputs, tensors, activations : list of dict
    operators : dict of str to int
    """

    @staticmethod
    def of(onnx: OnnxModel) -> "Inspection":
        return Inspection(onnx.inspect())

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                tensor["tensor"],
                str(tensor["scheme"]),
                "×".join(map(str, tensor["shape"])),
                str(tensor["bits"]),
                count(tensor["bytes"]),
                f"{tensor['min']:.4f}",
                f"{tensor['max']:.4f}",
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


class Plan(Result):
    """What becomes of every weight and activation, and why: data to read, edit and keep.

    Attributes
    ----------
    tensors, activations : list of dict
        A decision each; a key ``float`` holds the reason why something stays float.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)

    @staticmethod
    def read(source: "Plan | str | os.PathLike[str]") -> "Plan":
        """Reads a plan file, or checks a plan that was edited.

        Parameters
        ----------
        source : path-like or Plan

        Raises
        ------
        ValueError
            If it is not a plan.
        """
        if isinstance(source, Plan):
            text = json.dumps(source._fields)
        elif isinstance(source, (str, os.PathLike)):
            text = Path(source).read_text(encoding="utf-8")
        else:
            raise TypeError(f"a Plan or a path is needed, not {type(source).__name__}")
        return Plan(_fewbits.check_plan(text))

    def to_json(self) -> str:
        """The plan as the command line's ``--plan`` reads it."""
        return json.dumps(self._fields, indent=2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @property
    def kept_float(self) -> dict[str, str]:
        """Why each weight that stays float does."""
        return {t["tensor"]: t["float"] for t in self._fields["tensors"] if "float" in t}

    @property
    def reduced_range(self) -> dict[str, list[int]]:
        """The channels of each weight that use fewer integers than they could."""
        return {r["tensor"]: r["channels"] for r in self._fields.get("reduced_range", [])}

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for tensor in self._fields["tensors"][:LISTED]:
            shape = "×".join(map(str, tensor["shape"]))
            noise = tensor.get("sqnr_db")
            rows.append(
                [tensor["tensor"], shape, _becomes(tensor), "" if noise is None else f"{noise:.1f}"]
            )
        for activation in self._fields.get("activations", [])[:LISTED]:
            noise = activation.get("static", {}).get("sqnr_db")
            rows.append(
                [
                    f"{activation['value']} (activation)",
                    "",
                    _becomes(activation),
                    "" if noise is None else f"{noise:.1f}",
                ]
            )
        return ["tensor", "shape", "becomes", "SQNR dB"], rows

    def _words(self) -> list[str]:
        tensors = self._fields["tensors"]
        kept = len(self.kept_float)
        return [f"{len(tensors) - kept} tensors quantized, {kept} kept float"]


def _becomes(decision: dict[str, Any]) -> str:
    if "float" in decision:
        return f"float: {decision['float']}"
    if "static" in decision:
        return f"{_spelled(decision['static']['scheme'])}, a fixed scale"
    return _spelled(decision["scheme"]) if "scheme" in decision else "8-bit, scaled at every call"


def _spelled(scheme: dict[str, dict[str, Any]]) -> str:
    """`{"symmetric": {"bits": 8, "granularity": {"channel": {"axis": 1}}}}` in words."""
    ((kind, how),) = scheme.items()
    numbers = f"{kind} {how.get('bits', how.get('fraction_bits'))}-bit"
    if kind == "nvfp4":
        return "nvfp4"
    if kind == "mx":
        return {"e2m1": "mxfp4"}.get(how["format"], f"mxfp8-{how['format']}")
    if kind == "float":
        numbers = f"fp{4 if how['format'] == 'e2m1' else 8}-{how['format']}"
    sharing = how.get("granularity", "tensor")
    per = sharing if isinstance(sharing, str) else next(iter(sharing))
    return f"{numbers}, per {per}"
