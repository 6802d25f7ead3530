"""Fails a build when the quantized model is worse than allowed: run it after training.

    python examples/gate_in_ci.py [MAX_DROP]

Exit code 3: the drop is larger than MAX_DROP (0.01 if not given), as of `fewbits compare --max-drop`.
"""

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fewbits as fb


def main(max_drop: float) -> int:
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = LogisticRegression(max_iter=5000).fit(X_train, y_train)
    q = fb.quantize(model, bits=8, calibration=X_train)
    comparison = fb.compare(model, q, X_test, y_test, max_drop=max_drop)
    print(comparison)
    return 0 if comparison.accepted else 3


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.01))
