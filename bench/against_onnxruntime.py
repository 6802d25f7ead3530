"""How fast models are here and in onnxruntime: one call, float and int8.

    python against_onnxruntime.py [--cases DIR] [--only NAME] [--threads 1|2] [--batch 1,32]
                                  [--repeat N] [--seconds S] [--quantile 0.5|0.1]
                                  [--binary FEWBITS] [--all]

Every model is quantized by fewbits (static, and dynamic where it has products) and by onnxruntime's
own quantizers, in the forms of THEIRS. Then, in each of --repeat rounds, onnxruntime runs the float
model and all int8 files in short turns, and `fewbits bench` times the same rows. A figure is the
median of the rounds' medians; a ratio is the median of the rounds' ratios, so that a busy machine
harms it less. After the first round only int8 files stay that are near the fastest in onnxruntime.
Of several files the fastest counts, and is named. On a machine that others keep busy --quantile 0.1
takes what a tenth of the calls reach in the place of the median of a round.

Turns, not single calls: the threads of a session go on spinning for a while after a call, and would
take the cores from the next session; and the weights of one model push those of the others out of
the caches.

    ort f32    onnxruntime on the float model
    ort int8   onnxruntime on its own int8 file
    ort ours   onnxruntime on the int8 file of fewbits
    f32        fewbits on the float model
    int8       fewbits on its own int8 file
    x f32      how many times as fast the last is as onnxruntime on the float model
    x int8     how many times as fast it is as onnxruntime on its own int8 file

At last the time to a first answer: of a whole process for fewbits, of a session for onnxruntime, and of
the Python package of fewbits where it is installed.

DIR holds the folders fashion, digits and notebook (by default FEWBITS_CASES, or the fixtures of the
tests, which lack fashion); the other models are made. Needs numpy, onnx and onnxruntime:
`.venv/bin/python bench/against_onnxruntime.py`.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

try:
    import fewbits
except ImportError:
    fewbits = None

from judge import FASHION_MEAN, FASHION_STD
from make_models import MODELS, POSITIONS, VOCABULARY
from quantize_with_onnxruntime import quantize
from whole_process import ROOT

Arrays = dict[str, np.ndarray]

# onnxruntime's quantizers: the options of quantize_with_onnxruntime.py.
THEIRS = {
    "qdq u8s8": ["--per-tensor"],
    "qdq u8s8 channel": [],
    "qdq s8s8": ["--per-tensor", "--signed"],
    "qop u8s8": ["--per-tensor", "--qoperator"],
    "dynamic": ["--per-tensor", "--method", "dynamic"],
    "dynamic channel": ["--method", "dynamic"],
}
OURS = ("static", "dynamic")

SEQUENCE = 128
# After the first round, int8 files slower than the fastest by this factor are dropped.
HOPELESS = 1.3
# How `fewbits bench` calls them.
QUANTILES = {0.5: "median_ms", 0.1: "p10_ms"}
LEAST_TURNS = 3
TURN_SECONDS = 0.05
# By then the threads of the session before sleep.
SETTLE_SECONDS = 0.01
# A file on which products or convolutions are computed on integers holds one of these.
INTEGER_OPERATORS = {
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm",
    "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul",
}  # fmt: skip


@dataclass
class Case:
    """A model, its rows, and the int8 files made of it, by name."""

    name: str
    model: Path
    rows: Arrays
    theirs: dict[str, Path] = field(default_factory=dict)
    ours: dict[str, Path] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.model.parent / f"{self.name}.npz"


def made_rows(name: str) -> Arrays:
    random = np.random.default_rng(7)
    if name == "transformer":
        assert SEQUENCE <= POSITIONS
        ids = random.integers(0, VOCABULARY, (32, SEQUENCE))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    shape = {"resnet": (32, 64, 56, 56), "mlp": (64, 784)}[name]
    return {"input": random.normal(0, 1, shape).astype(np.float32)}


def find_cases(root: Path, folder: Path, only: str | None) -> list[Case]:
    """The cases whose names start with `only`; models and rows are put into `folder`."""
    found = []

    def add(name: str, model: onnx.ModelProto, rows: Arrays) -> None:
        case = Case(name, folder / f"{name}.onnx", rows)
        onnx.save(model, case.model)
        np.savez(case.data, **rows)
        found.append(case)

    def wanted(name: str) -> bool:
        return not only or name.startswith(only)

    for name in ("resnet", "transformer", "mlp"):
        if wanted(name):
            add(name, MODELS[name](), made_rows(name))
    if wanted("fashion") and (root / "fashion").is_dir():
        images = np.load(root / "fashion" / "calib_images.npz")["images"][:, None] / 255
        rows = ((images - FASHION_MEAN) / FASHION_STD).astype(np.float32)
        add("fashion", onnx.load(root / "fashion" / "model.onnx"), {"input": rows})
    for name, model, data in (
        ("digits", "digits/mlp.onnx", "digits/test.npz"),
        ("notebook", "notebook/model.onnx", "notebook/test.npz"),
    ):
        if wanted(name):
            add(name, onnx.load(root / model), {"X": np.load(root / data)["X"].astype(np.float32)})
    return found


def computes_on_integers(path: Path) -> bool:
    graph = onnx.load(path, load_external_data=False).graph
    return any(node.op_type in INTEGER_OPERATORS for node in graph.node)


def make_files(case: Case, binary: str) -> None:
    """Quantizes; what a quantizer refuses or leaves float is left out, and told."""
    skipped = []
    for name, options in THEIRS.items():
        out = case.model.with_suffix(f".{name.replace(' ', '-')}.onnx")
        words = [str(case.model), str(out), "--calibrate", str(case.data), "--limit", "32"]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                quantize([*words, *options])
            if not computes_on_integers(out):
                raise ValueError("nothing was quantized")
            open_session(out, 1)
            case.theirs[name] = out
        except Exception as error:  # Whatever their quantizer or session raises.
            skipped.append(f"{name} ({str(error).strip().splitlines()[0][:80]})")
    for name in OURS:
        out = case.model.with_suffix(f".ours-{name}.onnx")
        # What the dynamic recipe does without data is what people get who have none.
        data = ["--calibrate", str(case.data)]
        command = [binary, "quantize", str(case.model), "-o", str(out), "--recipe", name, *data]
        subprocess.run(command, check=True, capture_output=True)
        if computes_on_integers(out):
            case.ours[name] = out
        else:
            skipped.append(f"ours {name} (nothing was quantized)")
    if skipped:
        print(f"# {case.name}: left out: {', '.join(skipped)}", flush=True)


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def time_sessions(
    sessions: dict[str, onnxruntime.InferenceSession],
    feeds: Arrays,
    seconds: float,
    quantile: float,
) -> dict[str, float]:
    """That quantile of the times of calls of each, in milliseconds; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.run(None, feeds)
    begun = time.perf_counter()
    turns = 0
    while turns < LEAST_TURNS or time.perf_counter() - begun < seconds * len(sessions):
        for name, session in sessions.items():
            time.sleep(SETTLE_SECONDS)
            turn_begun = end = time.perf_counter()
            while end - turn_begun < TURN_SECONDS:
                start = time.perf_counter()
                session.run(None, feeds)
                end = time.perf_counter()
                times[name].append((end - start) * 1e3)
        turns += 1
    return {name: float(np.quantile(of_one, quantile)) for name, of_one in times.items()}


class Timer:
    """Times one case with one batch, round by round."""

    def __init__(self, case: Case, batch: int, arguments: argparse.Namespace) -> None:
        self.case = case
        self.batch = batch
        self.arguments = arguments
        self.feeds = {
            name: np.resize(rows, (batch, *rows.shape[1:])) for name, rows in case.rows.items()
        }
        files = {"ort f32": case.model}
        files |= {f"ort int8 {name}": path for name, path in case.theirs.items()}
        files |= {f"ort ours {name}": path for name, path in case.ours.items()}
        self.sessions = {
            name: open_session(path, arguments.threads) for name, path in files.items()
        }
        self.rounds: list[dict[str, float]] = []

    def bench(self, path: Path) -> float:
        words = [self.arguments.binary, "bench", str(path), "--data", str(self.case.data), "--json"]
        words += ["--batch", str(self.batch), "--threads", str(self.arguments.threads)]
        words += ["--seconds", str(self.arguments.seconds)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["a"][QUANTILES[self.arguments.quantile]]

    def round(self) -> None:
        seconds, quantile = self.arguments.seconds, self.arguments.quantile
        times = time_sessions(self.sessions, self.feeds, seconds, quantile)
        if not self.rounds:
            self.drop_hopeless(times)
        times["f32"] = self.bench(self.case.model)
        for name, path in self.case.ours.items():
            times[f"int8 {name}"] = self.bench(path)
        self.rounds.append(times)

    def drop_hopeless(self, times: dict[str, float]) -> None:
        for kind in ("ort int8", "ort ours"):
            names = [name for name in times if name.startswith(kind)]
            fastest = min((times[name] for name in names), default=0)
            for name in names:
                if times[name] > HOPELESS * fastest:
                    del self.sessions[name]

    def median(self, name: str) -> float:
        return statistics.median(times[name] for times in self.rounds if name in times)

    def fastest(self, kind: str) -> str | None:
        """The full name of the fastest file of a kind that was timed in every round."""
        names = [name for name in self.rounds[-1] if name.startswith(f"{kind} ")]
        return min(names, key=self.median, default=None)

    def ratio(self, name: str, reference: str | None) -> str:
        if reference is None:
            return "-"
        ratio = statistics.median(times[reference] / times[name] for times in self.rounds)
        return f"{ratio:.2f}"


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def row(timer: Timer) -> list[str]:
    def cell(name: str | None, kind: str) -> str:
        if name is None:
            return "-"
        file = name.removeprefix(kind).strip()
        return f"{milliseconds(timer.median(name))} {f'({file})' if file else ''}".strip()

    their_best = timer.fastest("ort int8")
    our_best = timer.fastest("int8")
    cells = [
        timer.case.name,
        cell("ort f32", "ort f32"),
        cell(their_best, "ort int8"),
        cell(timer.fastest("ort ours"), "ort ours"),
        cell("f32", "f32"),
        cell(our_best, "int8"),
    ]
    if our_best is None:
        return [*cells, "-", "-"]
    return [*cells, timer.ratio(our_best, "ort f32"), timer.ratio(our_best, their_best)]


HEADER = ["model", "ort f32", "ort int8", "ort ours", "f32", "int8", "x f32", "x int8"]
WIDTHS = [12, 9, 26, 18, 9, 18, 6, 6]


def show(cells: list[str]) -> None:
    print(" ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS)).rstrip(), flush=True)


def first_answer(case: Case, arguments: argparse.Namespace) -> None:
    """From nothing to the answer for one row."""
    one = {name: rows[:1] for name, rows in case.rows.items()}
    data = case.model.parent / "one.npz"
    np.savez(data, **one)
    out = case.model.parent / "answer.npz"
    print("\nfirst answer, ms: fewbits as a whole process; onnxruntime, and fewbits where its package is")
    print("installed, from opening the file in a warm process")
    for name, path in {"f32": case.model, **{f"int8 {n}": p for n, p in case.ours.items()}}.items():
        ours, theirs, package = [], [], []
        command = [arguments.binary, "run", str(path), "--data", str(data), "-o", str(out), "--force"]
        command += ["--threads", str(arguments.threads)]
        for _ in range(4 * arguments.repeat):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            open_session(path, arguments.threads).run(None, one)
            theirs.append(time.perf_counter() - start)
            if fewbits is not None:
                start = time.perf_counter()
                fewbits.load(path).run(one)
                package.append(time.perf_counter() - start)
        of_each = {"fewbits": ours, "onnxruntime": theirs, "fewbits package": package}
        medians = {who: 1e3 * statistics.median(times) for who, times in of_each.items() if times}
        print(f"{case.name} {name:14}", *(f" {who} {ms:7.2f}" for who, ms in medians.items()))


def main() -> None:
    fixtures = ROOT / "tests" / "fixtures"
    parser = argparse.ArgumentParser(description="How fast models are, here and in onnxruntime.")
    parser.add_argument("--cases", type=Path, default=os.environ.get("FEWBITS_CASES", fixtures))
    parser.add_argument("--only", help="a case whose name starts with this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=lambda t: [int(n) for n in t.split(",")], default=[1, 32])
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each file and round, about")
    parser.add_argument("--quantile", type=float, choices=QUANTILES, default=0.5)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--all", action="store_true", help="print every file's time, too")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        cases = find_cases(Path(arguments.cases), Path(folder), arguments.only)
        if not cases:
            sys.exit(f"no case of {arguments.cases} starts with {arguments.only}")
        for case in cases:
            make_files(case, arguments.binary)
        for batch in arguments.batch:
            print(f"\n{batch} rows a call, {arguments.threads} threads; milliseconds")
            show(HEADER)
            for case in cases:
                timer = Timer(case, batch, arguments)
                for _ in range(arguments.repeat):
                    timer.round()
                show(row(timer))
                if arguments.all:
                    for name in timer.rounds[0]:
                        print(f"    {name:28} {milliseconds(timer.median(name))}")
            if os.getloadavg()[0] > arguments.threads + 0.5:
                print(f"# the machine is busy with other work: its load is {os.getloadavg()[0]:.1f}")
        for case in cases:
            if case.name == "fashion":
                first_answer(case, arguments)


if __name__ == "__main__":
    main()
