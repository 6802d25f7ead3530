"""fewbits makes a trained model smaller and faster with fewer bits, and measures what that cost.

>>> import fewbits as fb
>>> from sklearn.datasets import make_classification
>>> from sklearn.linear_model import LogisticRegression
>>> X, y = make_classification(n_samples=1000, n_features=20, random_state=42)
>>> model = LogisticRegression().fit(X[:800], y[:800])
>>> q = fb.quantize(model, bits=8)
>>> q.score(X[800:], y[800:]) - model.score(X[800:], y[800:])
0.0
>>> q.file_bytes < 600
True
"""

from typing import TYPE_CHECKING, Any

from fewbits._fewbits import VERSION as __version__
from fewbits.guarded import Guarded
from fewbits.measure import compare, inspect, sweep, tune
from fewbits.model import Model, load
from fewbits.planned import Plan
from fewbits.quantize import plan, quantize
from fewbits.results import Comparison, Inspection, Sweep
from fewbits.tuned import Tuned

if TYPE_CHECKING:
    from fewbits.estimator import Quantized as Quantized

__all__ = [
    "Comparison",
    "Guarded",
    "Inspection",
    "Model",
    "Plan",
    "Quantized",
    "Sweep",
    "Tuned",
    "__version__",
    "compare",
    "inspect",
    "load",
    "plan",
    "quantize",
    "sweep",
    "tune",
]


# A type checker must not take every name for one that is here.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # scikit-learn takes longer to import than fewbits does.
        if name == "Quantized":
            from fewbits.estimator import Quantized

            return Quantized
        raise AttributeError(f"module 'fewbits' has no attribute {name!r}")
