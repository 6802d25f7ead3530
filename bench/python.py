"""The Python package against scikit-learn on the notebook's model: predict, call by call in turn.

Prints, as medians over interleaved calls: `predict` on 200 rows and on one row, what a one-row call
takes above the Rust call in it, and how long `import fewbits` takes in a fresh interpreter.
Run with the wheel installed: .venv/bin/python bench/python.py
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fewbits as fb

ROUNDS = 2000


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median time of each call in microseconds."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(50):
            call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = time.perf_counter_ns()
            call()
            times[name].append(time.perf_counter_ns() - begun)
    return {name: statistics.median(taken) / 1000 for name, taken in times.items()}


def nothing() -> None:
    """What the clock itself takes."""


def imports() -> float:
    """Milliseconds that `import fewbits` adds to numpy's import: the median of fresh interpreters."""
    code = (
        "import numpy, time; begun = time.perf_counter(); import fewbits, sys; "
        "print(time.perf_counter() - begun); assert 'sklearn' not in sys.modules"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(9)]
    return statistics.median(taken) * 1000


def whole_imports() -> float:
    """Milliseconds of `import fewbits`, numpy's import included."""
    code = "import time; b = time.perf_counter(); import fewbits; print(time.perf_counter() - b)"
    taken = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(9)]
    return statistics.median(taken) * 1000


def main() -> None:
    X, y = make_classification(n_samples=1000, n_features=20, random_state=42)
    X_train, X_test, y_train, _ = train_test_split(X, y, test_size=0.2, random_state=42)
    model = LogisticRegression().fit(X_train, y_train)
    q = fb.quantize(model, bits=8)
    rows, row = np.ascontiguousarray(X_test), np.ascontiguousarray(X_test[:1])
    times = interleaved(
        {
            "fewbits, 200 rows": lambda: q.predict(rows),
            "scikit-learn, 200 rows": lambda: model.predict(rows),
            "fewbits, 1 row": lambda: q.predict(row),
            "scikit-learn, 1 row": lambda: model.predict(row),
            "nothing": nothing,
        }
    )
    clock = times.pop("nothing")
    for name, taken in times.items():
        print(f"{name:24} {taken - clock:8.2f} µs")
    for count in ("200 rows", "1 row"):
        ratio = (times[f"scikit-learn, {count}"] - clock) / (times[f"fewbits, {count}"] - clock)
        print(f"{count}: {ratio:.1f} times as fast as scikit-learn")
    rust = fb.compare(q, q, X_test, metric="agreement").a.latency_ms.median * 1000
    above = times["fewbits, 1 row"] - clock - rust
    print(f"the Rust call in a one-row call takes {rust:.2f} µs; the rest {above:.2f} µs")
    print(f"import fewbits: {whole_imports():.0f} ms, {imports():.0f} ms of them without numpy's")


if __name__ == "__main__":
    main()
