"""The fixtures' models, and what ONNX Runtime says about a model file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from meaning import default_session, exact_session

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NOTEBOOK = FIXTURES / "notebook"
HOSTILE = FIXTURES / "hostile"

# Everything an ONNX Runtime without extensions knows.
STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


@dataclass(frozen=True)
class Case:
    """A model of the fixtures with its test rows."""

    name: str
    folder: str
    data: str = "test.npz"

    @property
    def model(self) -> Path:
        return FIXTURES / self.folder / f"{self.name}.onnx"

    @property
    def rows(self) -> Path:
        return FIXTURES / self.folder / self.data

    def __str__(self) -> str:
        return f"{self.folder}-{self.name}"


# The linear models and MLPs: all of their weights can be quantized.
DENSE = [
    Case("model", "notebook"),
    Case("logreg", "digits"),
    Case("mlp", "digits"),
    Case("raw_logreg", "breast_cancer"),
    Case("scaler_logreg", "breast_cancer"),
    Case("ridge_raw", "diabetes"),
    Case("ridge", "diabetes"),
    Case("mlp", "diabetes"),
    Case("linearsvc", "wine"),
]


def load_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows as float32, and the labels."""
    arrays = np.load(path)
    return arrays["X"].astype(np.float32), arrays["y"]


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session of what the file means; a default one opens it as well."""
    default_session(model)
    return exact_session(model)


def run_onnxruntime(model: Path | bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of a model with one input, by name: what the file means."""
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, values))


def score(outputs: dict[str, np.ndarray], y: np.ndarray) -> float:
    """Accuracy for whole-number labels, R² otherwise; the first output is the prediction."""
    predicted = np.asarray(next(iter(outputs.values()))).reshape(len(y))
    if np.issubdtype(y.dtype, np.integer):
        return float(np.mean(predicted == y))
    residual = np.sum((y - predicted) ** 2)
    return float(1 - residual / np.sum((y - y.mean()) ** 2))


def onnxruntime_score(model: Path | bytes, rows: Path) -> float:
    x, y = load_rows(rows)
    return score(run_onnxruntime(model, x), y)


def assert_standard(path: Path) -> None:
    """The file passes ONNX's checker and holds only standard operators."""
    onnx.checker.check_model(str(path))
    model = onnx.load(path)
    domains = {node.domain for node in model.graph.node}
    domains |= {opset.domain for opset in model.opset_import}
    assert domains <= STANDARD_DOMAINS, domains


def assert_same_outputs(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = 1e-4
) -> None:
    """Labels are equal; values differ by at most the tolerance, absolute or relative."""
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        actual = np.asarray(ours[name])
        assert actual.shape == expected.shape, name
        if np.issubdtype(expected.dtype, np.floating):
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=name)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, to show that nothing changed."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
