"""Whether files of 8 bits answer in a default onnxruntime session what they mean, and what that costs.

    python every_cpu.py FEWBITS CASES [CASE | CASE:RECIPE ...]

FEWBITS is the binary, CASES the folder of the cases. For every case and recipe it prints how far a default
session is from the meaning (decibels of the worst output), the metric of the float model, of the meaning with
`--reduce-range none` and `auto`, and of a default session with `auto`. It says most on a CPU with AVX2 and no VNNI.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from judge import FASHION_MEAN, FASHION_STD
from meaning import Meaning, default_session, sqnr_db
from pairs import assert_no_pair_saturates

RECIPES = ["weights", "dynamic", "static", "auto"]

# Rows of one call.
BATCH = 500


@dataclass
class Case:
    """A model, data to calibrate on, rows with labels, and how they are judged."""

    model: Path
    calibration: Path
    rows: np.ndarray
    labels: np.ndarray
    metric: Callable[[np.ndarray, np.ndarray], float]


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    classes = outputs if outputs.ndim == 1 else outputs.argmax(-1)
    return float(np.mean(classes == labels))


def perplexity(outputs: np.ndarray, labels: np.ndarray) -> float:
    logits = outputs.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(np.exp(-np.take_along_axis(log_p, labels[..., None], -1).mean()))


def r2(outputs: np.ndarray, labels: np.ndarray) -> float:
    residual = np.square(labels - outputs.reshape(labels.shape)).sum()
    return float(1 - residual / np.square(labels - labels.mean()).sum())


def images(folder: Path, scratch: Path) -> Case:
    def scaled(pixels: np.ndarray) -> np.ndarray:
        values = pixels[:, None].astype(np.float32) / 255
        return ((values - FASHION_MEAN) / FASHION_STD).astype(np.float32)

    calibration = scratch / "calib.npz"
    np.savez(calibration, input=scaled(np.load(folder / "calib_images.npz")["images"]))
    test = np.load(folder / "test_images.npz")
    return Case(
        folder / "model.onnx", calibration, scaled(test["images"]), test["labels"], accuracy
    )


def rows(
    folder: Path, model: str, calibration: str, metric: Callable[[np.ndarray, np.ndarray], float]
) -> Case:
    test = np.load(folder / "test.npz")
    name = next(name for name in ("input", "input_ids", "X") if name in test)
    kind = np.int64 if test[name].dtype.kind in "iu" else np.float32
    return Case(
        folder / model, folder / calibration, test[name].astype(kind), test["y"], metric
    )


def cases(folder: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    yield "fashion", lambda: images(folder / "fashion", scratch)
    yield "digits_cnn", lambda: rows(folder / "digits_cnn", "model.onnx", "calib.npz", accuracy)
    yield "digits_cnn_bn", lambda: rows(
        folder / "digits_cnn", "model_bn.onnx", "calib.npz", accuracy
    )
    yield "tiny_lm", lambda: rows(folder / "tiny_lm", "model.onnx", "calib.npz", perplexity)
    for name, model, metric in [
        ("notebook", "model", accuracy),
        ("digits", "mlp", accuracy),
        ("digits", "logreg", accuracy),
        ("breast_cancer", "raw_logreg", accuracy),
        ("breast_cancer", "scaler_logreg", accuracy),
        ("diabetes", "mlp", r2),
        ("diabetes", "ridge", r2),
        ("diabetes", "ridge_raw", r2),
        ("wine", "linearsvc", accuracy),
    ]:
        yield (
            f"{name}/{model}",
            lambda name=name, model=model, metric=metric: rows(
                folder / name, f"{model}.onnx", "train.npz", metric
            ),
        )


def answers(run: Callable[[np.ndarray], list[np.ndarray]], case: Case) -> list[np.ndarray]:
    parts = [run(case.rows[i : i + BATCH]) for i in range(0, len(case.rows), BATCH)]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def in_session(path: Path, case: Case) -> list[np.ndarray]:
    session = default_session(path)
    name = session.get_inputs()[0].name
    return answers(lambda x: session.run(None, {name: x}), case)


def judged(outputs: list[np.ndarray], case: Case) -> float:
    """Of the first output that the metric can be of."""
    return case.metric(outputs[0], case.labels)


def measure(fewbits: str, name: str, recipes: list[str], case: Case, scratch: Path) -> None:
    known = judged(in_session(case.model, case), case)
    for recipe in recipes:
        found = {}
        for which in ("none", "auto"):
            out = scratch / f"{which}.onnx"
            command = [fewbits, "quantize", case.model, "-o", out, "--recipe", recipe, "--force"]
            command += ["--reduce-range", which, "--calibrate", case.calibration]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            found[which] = answers(Meaning(out).run, case)
        given = in_session(scratch / "auto.onnx", case)
        same = min(
            sqnr_db(e, g) for e, g in zip(found["auto"], given, strict=True) if e.dtype.kind == "f"
        )
        unlimited = in_session(scratch / "none.onnx", case)
        worse = min(
            sqnr_db(e, g)
            for e, g in zip(found["none"], unlimited, strict=True)
            if e.dtype.kind == "f"
        )
        try:
            assert_no_pair_saturates(scratch / "auto.onnx")
            limits = "kept"
        except AssertionError as broken:
            limits = str(broken) or "no products of integers"
        print(
            f"{name:24} {recipe:8} {same:6.1f} dB (none {worse:5.1f})"
            f"  float {known:.4f}  none {judged(found['none'], case):.4f}"
            f"  auto {judged(found['auto'], case):.4f}  session {judged(given, case):.4f}"
            f"  (none {judged(unlimited, case):.4f})  pairs: {limits}",
            flush=True,
        )


def main() -> None:
    fewbits, folder, *asked = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        for name, case in cases(Path(folder), Path(scratch)):
            recipes = [r for r in RECIPES if not asked or {name, f"{name}:{r}"} & set(asked)]
            if recipes:
                measure(fewbits, name, recipes, case(), Path(scratch))


if __name__ == "__main__":
    main()
