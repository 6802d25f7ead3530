"""What a search came to, with the model that it found."""

import json
from typing import Any

from fewbits._fewbits import OnnxModel
from fewbits.about import About
from fewbits.model import Model
from fewbits.results import LISTED, Plan, Result
from fewbits.table import count


class Tuned(Result):
    """What a search came to. See :func:`fewbits.tune`.

    Attributes
    ----------
    model : Model or None
        The best model; None if no smaller one stays within the drop.
    metric : str
    max_drop : float
    float, best : dict
        What was measured of both; ``best`` may be None.
    points : list of dict
        Every model that was measured.
    verdict : str
    """

    def __init__(self, text: str, best: OnnxModel | None, about: About) -> None:
        super().__init__(text)
        self._onnx = best
        self._about = about

    @property
    def model(self) -> Model | None:
        if self._onnx is None or self.best is None:
            return None
        onnx = self._about.write(self._onnx)
        return Model(onnx, self._about, Plan(json.dumps(self.best["plan"])))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        whole = self.float
        rows = [["float", f"{whole['metric']:.4f}", "", "", count(whole["file_bytes"])]]
        rows += [
            [
                f"{point['bits']:.2f}",
                f"{point['metric']:.4f}",
                f"{point['drop']:.4f}",
                f"{100 * point['agreement']:.2f} %",
                count(point["weight_bytes"]),
                count(point["file_bytes"]),
            ]
            for point in self.points[:LISTED]
        ]
        return ["mean bits", self.metric, "drop", "agreement", "file bytes"], rows

    def _words(self) -> list[str]:
        left = len(self.points) - LISTED
        more = [f"… and {left} more in .points"] if left > 0 else []
        return [*more, self.verdict, *self.notes]
