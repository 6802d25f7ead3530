"""Weights of 4, 3 and 2 bits by each way of rounding, beside onnxruntime's own, on saved files.

    python low_bits.py [--cases DIR] [--binary FEWBITS] [--encoder]

The language model's perplexity and the accuracy of the others in onnxruntime on test data; seconds
and peak memory are those of the whole process. onnxruntime's plain rounding comes with it; its HQQ
needs torch and its GPTQ neural-compressor: what is not installed is said to be missing. --encoder
instead times an encoder of 6 layers (10.6 million weights in them, random) on 128 rows of 128
tokens.

DIR holds the folders fashion, digits and tiny_lm (by default FEWBITS_CASES). Needs numpy, onnx and
onnxruntime.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from judge import FASHION_MEAN, FASHION_STD
from whole_process import ROOT, Samples, run_once

BENCH = Path(__file__).parent
ROUNDINGS = ("nearest", "hqq", "gptq", "adaround")
#: bits, group and scheme of each row of the language model.
LANGUAGE = ((4, 32), (3, 32), (2, 16))


def row(name: str, value: float, path: Path, cost: str) -> None:
    print(f"  {name:<34}{value:>9.4f}{path.stat().st_size:>11,}{cost:>18}", flush=True)


def ours(binary: str, model: Path, out: Path, *options: str) -> str:
    """Quantizes, and tells what that took."""
    command = [binary, "quantize", str(model), "-o", str(out), "--force", *options]
    return cost_of(command)


def judged(model: Path, folder: Path) -> float:
    """The metric, in a process of its own: ours inherits the peak of this one."""
    command = [sys.executable, str(BENCH / "judge.py"), str(model), str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cost_of(command: list[str]) -> str:
    samples = Samples()
    run_once(command, samples)
    return f"{samples.median():.2f} s {samples.peak_mb():.0f} MB"


def language_model(binary: str, folder: Path, out: Path) -> None:
    model = folder / "model.onnx"
    print(f"tiny_lm, perplexity {judged(model, folder):.4f}, {model.stat().st_size:,} bytes")
    for bits, group in LANGUAGE:
        for rounding in ROUNDINGS:
            how = ["--bits", str(bits), "--granularity", f"group={group}", "--scheme", "affine"]
            how += ["--rounding", rounding]
            if rounding in ("gptq", "adaround"):
                how += ["--calibrate", str(folder / "calib.npz")]
            cost = ours(binary, model, out, *how)
            row(f"{bits} bits, group {group}, {rounding}", judged(out, folder), out, cost)
    for method in ("default", "hqq", "gptq"):
        command = [sys.executable, str(BENCH / "quantize_with_onnxruntime.py"), str(model), str(out)]
        command += ["--weights", method, "--calibrate", str(folder / "calib.npz")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        name = f"onnxruntime 4 bits, group 32, {method}"
        if done.returncode:
            print(f"  {name:<34} missing: {done.stderr.strip().splitlines()[-1]}")
            continue
        cost = cost_of(command)
        row(name, judged(out, folder), out, cost)


def images(binary: str, folder: Path, out: Path) -> None:
    model = folder / "model.onnx"
    print(f"fashion, accuracy {judged(model, folder):.4f}, {model.stat().st_size:,} bytes")
    for bits in (4, 3):
        for rounding in ROUNDINGS:
            how = ["--recipe", "static", "--bits", str(bits), "--rounding", rounding]
            how += ["--calibrate", str(folder / "calib_images.npz")]
            how += ["--normalize", f"{FASHION_MEAN},{FASHION_STD}"]
            cost = ours(binary, model, out, *how)
            row(f"{bits} bits, activations 8, {rounding}", judged(out, folder), out, cost)


def digits(binary: str, folder: Path, out: Path) -> None:
    model = folder / "mlp.onnx"
    print("digits/mlp, 3 bits a channel")
    for rounding in ROUNDINGS:
        how = ["--bits", "3", "--rounding", rounding, "--calibrate", str(folder / "train.npz")]
        cost = ours(binary, model, out, *how)
        done = subprocess.run(
            [binary, "compare", str(model), str(out), "--data", str(folder / "test.npz")],
            check=True, capture_output=True, text=True,
        )
        print(f"  {rounding:<12}{cost:>18}  {done.stdout.strip().splitlines()[-1]}", flush=True)


def encoder(binary: str, out: Path) -> None:
    model, rows = out.with_name("encoder.onnx"), out.with_name("rows.npz")
    subprocess.run(
        [sys.executable, str(BENCH / "make_models.py"), "transformer", str(model)], check=True
    )
    ids = np.random.default_rng(0).integers(0, 30522, (128, 128))
    np.savez(rows, input_ids=ids, attention_mask=np.ones_like(ids))
    print("encoder of 6 layers, 4 bits in groups of 32")
    for rounding in ("nearest", "hqq", "gptq"):
        how = ["--bits", "4", "--granularity", "group=32", "--rounding", rounding]
        how += ["--calibrate", str(rows)] if rounding == "gptq" else []
        print(f"  {rounding:<12}{ours(binary, model, out, *how):>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Weights of few bits, each way of rounding.")
    parser.add_argument("--cases", type=Path, default=os.environ.get("FEWBITS_CASES"))
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--encoder", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        if arguments.encoder:
            encoder(arguments.binary, out)
            return
        if arguments.cases is None:
            parser.error("no cases; give --cases DIR or set FEWBITS_CASES")
        cases = Path(arguments.cases)
        language_model(arguments.binary, cases / "tiny_lm", out)
        images(arguments.binary, cases / "fashion", out)
        digits(arguments.binary, cases / "digits", out)


if __name__ == "__main__":
    main()
