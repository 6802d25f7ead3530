"""Does fewbits compute what the files of published packages mean?

    python against_meaning.py NAME... [--binary FEWBITS] [--folder DIR] [--only FILE] [--rows N] [--calibrate N]

NAME is a package of package_models.py, or `all`. What a file means is said by tests/python/meaning.py. The
float model and the files of `weights` must be answered to 60 dB of every float output, and whole numbers
exactly. Ties cascade in a file with quantized activations, so nothing is asked of it end to end: each integer
must equal what the file means, given our own integers before it, but for one step within 0.01 of a tie (see
tests/python/random_graphs/pieces.py). Exit 1 if anything is wrong.
Needs numpy, onnx, onnxruntime, pillow and scikit-learn.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from meaning import Meaning, sqnr_db
from package_models import PACKAGES, Arrays, Net, chosen
from random_graphs.pieces import NEAR_A_TIE, judged, quantizers
from random_graphs.tool import Fault, Refused, Tool
from whole_process import ROOT

# What an answer in floats must be alike.
LEAST_DB = 60.0
# Values as near as this are alike: onnxruntime's Sigmoid is 0 where the true one falls below 1e-8.
NEAR = 1e-6
# A command that takes longer is told as one that hangs.
GIVE_UP_SECONDS = 1200


def alike_db(expected: np.ndarray, given: np.ndarray) -> float:
    """Decibels between two answers."""
    near = np.abs(given - expected) < NEAR
    return sqnr_db(expected, np.where(near, expected, given))


@dataclass
class Files:
    """The files of one net, with rows to feed them."""

    tool: Tool
    model: Path
    rows: Arrays
    data: Path
    calibration: Path

    def make(self, recipe: str) -> Path:
        out = self.model.parent / f"{recipe}.onnx"
        words = ["--calibrate", self.calibration] if recipe == "static" else []
        self.tool.call("quantize", self.model, "-o", out, "--recipe", recipe, "--force", *words)
        return out

    def floats(self, path: Path) -> str:
        """Decibels of our answer to what a file means, of the output that is worst."""
        means = Meaning(path)
        ours = self.tool.run(path, self.data)
        fed = {name: self.rows[name] for name in means.inputs}
        worst = float("inf")
        for name, expected in zip(means.outputs, means.run(fed), strict=True):
            if ours[name].shape != expected.shape or ours[name].dtype != expected.dtype:
                given = f"{ours[name].dtype}{list(ours[name].shape)}"
                raise Fault("shape", f"{name}: {given}, not {expected.dtype}{list(expected.shape)}")
            if expected.dtype.kind == "f":
                worst = min(worst, alike_db(expected, ours[name]))
            elif not np.array_equal(expected, ours[name]):
                raise Fault("wrong", f"{name}: {np.mean(expected != ours[name]):.2%} of integers")
        if worst < LEAST_DB:
            raise Fault("wrong", f"{worst:.1f} dB")
        return f"{worst:.1f} dB"

    def integers(self, path: Path) -> str:
        """How many integers are what the file means."""
        model = onnx.load(path)
        if not quantizers(model):
            return self.floats(path)

        def run(shown: onnx.ModelProto) -> Arrays:
            open_path = path.with_name("shown.onnx")
            onnx.save(shown, open_path)
            return self.tool.run(open_path, self.data)

        ours, expected = judged(model, self.rows, run, NEAR_A_TIE)
        count = sum(ours[one.output].size for one in quantizers(model))
        floats = [
            alike_db(expected[value.name], ours[value.name])
            for value in model.graph.output
            if expected[value.name].dtype.kind == "f"
        ]
        if min(floats, default=np.inf) < LEAST_DB:
            raise Fault("wrong", f"{min(floats):.1f} dB behind the integers")
        return f"{count} integers, {min(floats, default=np.inf):.1f} dB behind them"


def judge(model: Path, net: Net, arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What is to be said of each file."""
    random = np.random.default_rng(11)
    session_inputs = Meaning(model).inputs

    def rows(name: str, count: int) -> tuple[Arrays, Path]:
        made = net.rows(random, 1 if net.batch == 1 else count)
        made = {name: array for name, array in made.items() if name in session_inputs}
        np.savez(folder / name, **made)
        return made, folder / name

    calibration = rows("calibration.npz", arguments.calibrate)[1]
    fed, data = rows("rows.npz", arguments.rows)
    copy = folder / "float.onnx"
    onnx.save(onnx.load(model), copy)
    files = Files(Tool(Path(arguments.binary), folder, GIVE_UP_SECONDS), copy, fed, data, calibration)
    said = {}
    for recipe in ("float", "weights", "static"):
        try:
            path = copy if recipe == "float" else files.make(recipe)
            said[recipe] = files.integers(path) if recipe == "static" else files.floats(path)
        except Refused as refused:
            said[recipe] = f"refused: {refused}"
        except Fault as fault:
            said[recipe] = f"WRONG {fault}"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare fewbits with what files mean.")
    parser.add_argument("names", nargs="+", choices=["all", *(package.name for package in PACKAGES)])
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "real_models")
    parser.add_argument("--only", help="models whose file name starts with this")
    parser.add_argument("--calibrate", type=int, default=8, help="rows to calibrate on")
    parser.add_argument("--rows", type=int, default=2, help="rows to compare")
    arguments = parser.parse_args()
    wrong = False
    for package, net, model in chosen(arguments.names, arguments.folder, arguments.only):
        with tempfile.TemporaryDirectory() as folder:
            said = judge(model, net, arguments, Path(folder))
        for recipe, text in said.items():
            print(f"{package.name} {net.file} {recipe}: {text[:200]}", flush=True)
            wrong |= text.startswith("WRONG")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
