"""The metric of a model file in onnxruntime, on the test data of a case.

    python judge.py MODEL FOLDER

Prints the accuracy (fashion, digits_cnn) or the perplexity (tiny_lm); FOLDER is that of the case.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

FASHION_MEAN, FASHION_STD = 0.286, 0.353


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Otherwise weight-only products round activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accuracy(path: Path, x: np.ndarray, y: np.ndarray) -> float:
    session = open_session(path)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)]
    return float(np.mean(np.concatenate(parts).argmax(1) == y))


def perplexity(path: Path, ids: np.ndarray, y: np.ndarray) -> float:
    logits = open_session(path).run(None, {"input_ids": ids})[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(np.exp(-np.take_along_axis(log_p, y[..., None], -1).mean()))


def main() -> None:
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    images = folder / "test_images.npz"
    if images.is_file():
        rows = np.load(images)
        x = rows["images"][:, None].astype(np.float32) / 255
        x = ((x - FASHION_MEAN) / FASHION_STD).astype(np.float32)
        print(accuracy(model, x, rows["labels"]))
        return
    rows = np.load(folder / "test.npz")
    if "input_ids" in rows:
        print(perplexity(model, rows["input_ids"], rows["y"]))
    else:
        print(accuracy(model, rows["input"], rows["y"]))


if __name__ == "__main__":
    main()
