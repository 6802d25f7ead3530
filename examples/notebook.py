"""The notebook that fewbits began as: train, round the weights to few bits, save, load, compare.

Its quantize_model rounded weights to multiples of 1/256 but kept them as 64-bit floats, and saved a
pickle. Here they are packed integers in an ONNX file, which nothing in it can execute.

    pip install fewbits[sklearn]
    python examples/notebook.py
"""

# %% Train
import io
import pickle
import tempfile
from pathlib import Path

from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fewbits as fb

X, y = make_classification(n_samples=1000, n_features=20, random_state=42)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
model = LogisticRegression().fit(X_train, y_train)
print(f"accuracy before: {model.score(X_test, y_test):.3f}")

# %% Quantize, save, load
folder = Path(tempfile.mkdtemp())
fb.quantize(model, bits=8).save(folder / "model.onnx")
q = fb.load(folder / "model.onnx")
print(f"accuracy after:  {q.score(X_test, y_test):.3f}")

# %% Bytes of the files
float_onnx = fb.inspect(model).file_bytes
pickled = io.BytesIO()
pickle.dump(model, pickled)
sizes = {
    "fewbits, 8 bits": q.file_bytes,
    "ONNX, float": float_onnx,
    "pickle": len(pickled.getvalue()),
}
try:
    import skops.io

    sizes["skops"] = len(skops.io.dumps(model))
except ImportError:
    print("(skops is not installed: its file is not shown)")
for name, size in sizes.items():
    print(f"{name:16} {size:6,} bytes")

# %% The notebook's own rule, round(w * 256) / 256, as the integers that it implies
fixed = fb.quantize(model, bits=8, scheme="fixed-point")
print(f"accuracy of the fixed-point rule: {fixed.score(X_test, y_test):.3f}")

# %% Both models on the same rows
print(fb.compare(model, q, X_test, y_test))

# %% How many bits can be afforded?
sweep = fb.sweep(model, X_test, y_test, bits=range(1, 9))
print(sweep)
try:
    axes = sweep.plot()
except ImportError:
    print("(matplotlib is not installed: nothing is drawn)")
