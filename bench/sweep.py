"""`fewbits sweep` of eight widths against ONE float evaluation in onnxruntime.

    python sweep.py [--cases DIR] [--threads 1,2] [--repeat N] [--binary FEWBITS]

Both take turns, on the 10,000 test images of fashion. Ours is the whole process: reading the data,
calibrating, quantizing, saving and opening eight files, running the float model and all of them, and
timing single calls. Theirs is the session's runs alone, in a process of its own, on images that are
ready; of several batch sizes the fastest counts. A ratio is the median of the rounds' ratios, of wall
time and of processor time: on a machine that others keep busy the second is the steadier one.

DIR holds the folder fashion (by default FEWBITS_CASES). Needs numpy and onnxruntime.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from judge import FASHION_MEAN, FASHION_STD
from whole_process import ROOT

BATCHES = (64, 256)


def onnxruntime_seconds(folder: Path, threads: int) -> tuple[float, float]:
    """Wall and processor time of the float model over all images, in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    images = np.load(folder / "test_images.npz")["images"]
    x = ((images / 255 - FASHION_MEAN) / FASHION_STD).astype(np.float32)[:, None]
    session.run(None, {name: x[:64]})
    times = []
    for batch in BATCHES:
        wall, processor = time.perf_counter(), time.process_time()
        for start in range(0, len(x), batch):
            session.run(None, {name: x[start : start + batch]})
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(times)


def sweep_seconds(binary: str, folder: Path, threads: int) -> tuple[float, float]:
    """Wall and processor time of the whole command."""
    command = [binary, "sweep", folder / "model.onnx", "--data", folder / "test_images.npz"]
    command += ["--calibrate", folder / "calib_images.npz", "--bits", "1..8", "--json"]
    command += ["--normalize", f"{FASHION_MEAN},{FASHION_STD}", "--threads", str(threads)]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return wall, user + system


def main() -> None:
    parser = argparse.ArgumentParser(description="Eight widths against one float evaluation.")
    parser.add_argument("--cases", type=Path, default=os.environ.get("FEWBITS_CASES"))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cases is None:
        parser.error("no cases; give --cases DIR or set FEWBITS_CASES")
    folder = Path(arguments.cases) / "fashion"
    if arguments.child:
        print(json.dumps(onnxruntime_seconds(folder, arguments.child)))
        return
    print(f"{'':10} {'ort float s':>18} {'sweep s':>18} {'ratio':>18}")
    print(f"{'threads':10} {'wall':>9}{'cpu':>9} {'wall':>9}{'cpu':>9} {'wall':>9}{'cpu':>9}")
    for threads in (int(n) for n in arguments.threads.split(",")):
        rounds = []
        for _ in range(arguments.repeat):
            child = [sys.executable, __file__, "--cases", str(arguments.cases)]
            done = subprocess.run(
                [*child, "--child", str(threads)], check=True, capture_output=True, text=True
            )
            theirs = json.loads(done.stdout)
            ours = sweep_seconds(arguments.binary, folder, threads)
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            rounds.append((*theirs, *ours, *ratios))
        figures = [statistics.median(column) for column in zip(*rounds, strict=True)]
        shown = [f"{x:9.2f}" for x in figures]
        pairs = [shown[i] + shown[i + 1] for i in (0, 2, 4)]
        print(f"{threads:<10} {' '.join(pairs)}", flush=True)


if __name__ == "__main__":
    main()
