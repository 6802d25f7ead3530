"""Quantizers side by side: accuracy in onnxruntime, bytes, time and memory of whole processes.

    python quantizers.py [--cases DIR] [--only NAME] [--repeat N] [--binary FEWBITS]
                         [--nncf PYTHON]

Every quantizer of a case runs in turn, --repeat times, so that a busy machine slows all alike;
times are medians, memory is the highest peak. The accuracy is that of the saved file in
onnxruntime. DIR holds the folders fashion, digits_cnn and tiny_lm (by default FEWBITS_CASES, or
the fixtures of the tests, which lack fashion). --nncf names a Python that has NNCF.

Needs numpy, onnx and onnxruntime: `.venv/bin/python bench/quantizers.py`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from whole_process import ROOT, Samples, measure

HERE = Path(__file__).resolve().parent
FASHION = "0.286,0.353"
RANGES = ["auto", "minmax", "percentile=99.99", "mse", "entropy"]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accuracy(path: Path, x: np.ndarray, y: np.ndarray) -> float:
    session = open_session(path)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)]
    return float(np.mean(np.concatenate(parts).argmax(1) == y))


def fashion_accuracy(folder: Path) -> Callable[[Path], float]:
    rows = np.load(folder / "test_images.npz")
    mean, std = map(float, FASHION.split(","))
    x = ((rows["images"][:, None].astype(np.float32) / 255 - mean) / std).astype(np.float32)
    return lambda path: accuracy(path, x, rows["labels"])


def digits_accuracy(folder: Path) -> Callable[[Path], float]:
    rows = np.load(folder / "test.npz")
    return lambda path: accuracy(path, rows["input"], rows["y"])


def perplexity(folder: Path) -> Callable[[Path], float]:
    rows = np.load(folder / "test.npz")

    def of(path: Path) -> float:
        logits = open_session(path).run(None, {"input_ids": rows["input_ids"]})[0]
        logits = logits.astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return float(np.exp(-np.take_along_axis(log_p, rows["y"][..., None], -1).mean()))

    return of


@dataclass
class Case:
    """A model, its calibration data, and how its files are judged."""

    name: str
    model: Path
    calibration: Path
    judge: Callable[[Path], float]
    normalize: str | None = None
    recipes: tuple[str, ...] = ("static",)
    limits: tuple[int | None, ...] = (None,)


def cases(root: Path) -> list[Case]:
    found = []
    if (root / "fashion").is_dir():
        folder = root / "fashion"
        data = folder / "calib_images.npz"
        judge = fashion_accuracy(folder)
        found.append(
            Case("fashion", folder / "model.onnx", data, judge, FASHION, limits=(None, 64))
        )
        found.append(Case("fashion_bn", folder / "model_bn.onnx", data, judge, FASHION))
    folder = root / "digits_cnn"
    for name in ("model", "model_bn"):
        judge = digits_accuracy(folder)
        found.append(Case(f"digits_{name}", folder / f"{name}.onnx", folder / "calib.npz", judge))
    folder = root / "tiny_lm"
    recipes = ("static", "dynamic")
    model, data = folder / "model.onnx", folder / "calib.npz"
    found.append(Case("tiny_lm", model, data, perplexity(folder), recipes=recipes))
    return found


def commands(case: Case, out: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The quantizers of a case: their names and command lines."""
    data = ["--calibrate", str(case.calibration)]
    data += ["--normalize", case.normalize] if case.normalize else []
    ours = [arguments.binary, "quantize", str(case.model), "-o", str(out)]
    theirs = [sys.executable, str(HERE / "quantize_with_onnxruntime.py"), str(case.model), str(out)]
    named: dict[str, list[str]] = {}
    for limit in case.limits:
        some = ["--limit", str(limit)] if limit else []
        rows = f" ({limit} rows)" if limit else ""
        for method in RANGES:
            recipe = ["--recipe", "static", "--range", method]
            named[f"fewbits {method}{rows}"] = [*ours, *recipe, *data, *some]
    for method, more in {
        "minmax": [],
        "minmax, signed": ["--signed"],
        "minmax, pre-process": ["--preprocess"],
        "percentile": [],
        "entropy": [],
        "entropy, 2048 bins": ["--bins", "2048"],
        "minmax, MatMul only": ["--ops", "MatMul"],
    }.items():
        if ("MatMul" in method) == ("dynamic" in case.recipes) or method == "minmax":
            kind = method.split(",")[0]
            named[f"onnxruntime {method}"] = [*theirs, "--method", kind, *data, *more]
    if "dynamic" in case.recipes:
        named["fewbits dynamic"] = [*ours, "--recipe", "dynamic"]
        named["onnxruntime dynamic"] = [*theirs, "--method", "dynamic"]
    if arguments.nncf:
        script = str(HERE / "quantize_with_nncf.py")
        model, normalize = [str(case.model), str(out)], data
        named["nncf"] = [arguments.nncf, script, *model, *normalize]
    return named


def show(name: str, samples: Samples, value: float, size: int) -> None:
    print(
        f"  {name:32} {value:9.4f} {size:10,} {samples.median():8.2f} {samples.peak_mb():8.0f}",
        flush=True,
    )


def main() -> None:
    fixtures = ROOT / "tests" / "fixtures"
    parser = argparse.ArgumentParser(description="Quantizers side by side.")
    parser.add_argument("--cases", type=Path, default=os.environ.get("FEWBITS_CASES", fixtures))
    parser.add_argument("--only", help="a case whose name starts with this")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--nncf", help="a Python that has NNCF")
    arguments = parser.parse_args()
    for case in cases(Path(arguments.cases)):
        if arguments.only and not case.name.startswith(arguments.only):
            continue
        judged = case.judge(case.model)
        print(f"{case.name}: float {judged:.4f}, {case.model.stat().st_size:,} bytes")
        print(f"  {'':32} {'metric':>9} {'bytes':>10} {'median s':>8} {'peak MB':>8}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.onnx"
            named = commands(case, out, arguments)
            files: dict[str, bytes] = {}
            for name, samples in measure(named, out, arguments.repeat, files).items():
                out.write_bytes(files[name])
                show(name, samples, case.judge(out), len(files[name]))


if __name__ == "__main__":
    main()
