"""Quantizers side by side: accuracy in onnxruntime, bytes, time and memory of whole processes.

    python quantizers.py [--cases DIR] [--only NAME] [--repeat N] [--binary FEWBITS]
                         [--nncf PYTHON]

Every quantizer of a case runs in turn, --repeat times, so that a busy machine slows all alike;
times are medians, also as parts of that of onnxruntime's min-max. Memory is the highest peak. The
accuracy is that of the saved file in onnxruntime. DIR holds the folders fashion, digits_cnn and
tiny_lm (by default FEWBITS_CASES, or the fixtures of the tests, which lack fashion). --nncf names
a Python that has NNCF.

Needs numpy, onnx and onnxruntime: `.venv/bin/python bench/quantizers.py`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from whole_process import ROOT, Samples, measure

FASHION = "0.286,0.353"
RANGES = ["auto", "minmax", "percentile=99.99", "mse", "entropy"]


@dataclass
class Case:
    """A model and its calibration data; the test data lie in the same folder."""

    name: str
    model: Path
    calibration: Path
    normalize: str | None = None
    recipes: tuple[str, ...] = ("static",)
    limits: tuple[int | None, ...] = (None,)


def cases(root: Path) -> list[Case]:
    found = []
    if (root / "fashion").is_dir():
        folder = root / "fashion"
        data = folder / "calib_images.npz"
        found.append(Case("fashion", folder / "model.onnx", data, FASHION, limits=(None, 64)))
        found.append(Case("fashion_bn", folder / "model_bn.onnx", data, FASHION))
    folder = root / "digits_cnn"
    for name in ("model", "model_bn"):
        found.append(Case(f"digits_{name}", folder / f"{name}.onnx", folder / "calib.npz"))
    folder = root / "tiny_lm"
    recipes = ("static", "dynamic")
    model, data = folder / "model.onnx", folder / "calib.npz"
    found.append(Case("tiny_lm", model, data, recipes=recipes))
    return found


def commands(case: Case, out: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The quantizers of a case: their names and command lines."""
    data = ["--calibrate", str(case.calibration)]
    data += ["--normalize", case.normalize] if case.normalize else []
    ours = [arguments.binary, "quantize", str(case.model), "-o", str(out)]
    theirs = [sys.executable, str(ROOT / "bench" / "quantize_with_onnxruntime.py"), str(case.model), str(out)]
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
        "minmax, MatMul only": ["--ops", "MatMul"],
    }.items():
        if ("MatMul" in method) == ("dynamic" in case.recipes) or method == "minmax":
            kind = method.split(",")[0]
            named[f"onnxruntime {method}"] = [*theirs, "--method", kind, *data, *more]
    if "dynamic" in case.recipes:
        named["fewbits dynamic"] = [*ours, "--recipe", "dynamic"]
        named["onnxruntime dynamic"] = [*theirs, "--method", "dynamic"]
    if arguments.nncf:
        script = str(ROOT / "bench" / "quantize_with_nncf.py")
        kind = ["--transformer"] if "dynamic" in case.recipes else []
        named["nncf"] = [arguments.nncf, script, str(case.model), str(out), *data, *kind]
    return named


def judge(model: Path, case: Case) -> float:
    """In a process of its own: on Linux ours would pass its peak memory on to those we measure."""
    script = str(ROOT / "bench" / "judge.py")
    done = subprocess.run(
        [sys.executable, script, str(model), str(case.model.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def show(name: str, samples: Samples, reference: float, value: float, size: int) -> None:
    seconds = samples.median()
    print(
        f"  {name:33} {value:8.4f} {size:10,} {seconds:8.2f} {seconds / reference:5.2f}"
        f" {samples.peak_mb():8.0f}",
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
        print(f"{case.name}: float {judge(case.model, case):.4f}, {case.model.stat().st_size:,} bytes")
        print(f"  {'':33} {'metric':>8} {'bytes':>10} {'median s':>8} {'ratio':>5} {'peak MB':>8}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.onnx"
            files: dict[str, bytes] = {}
            named = commands(case, out, arguments)
            measured = measure(named, out, arguments.repeat, files)
            reference = measured["onnxruntime minmax"].median()
            for name, samples in measured.items():
                out.write_bytes(files[name])
                show(name, samples, reference, judge(out, case), len(files[name]))


if __name__ == "__main__":
    main()
