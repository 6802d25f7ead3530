"""Measure `fewbits quantize` as whole processes: wall time and peak memory.

    python whole_process.py [--binary FEWBITS] [--transformer MODEL] [--repeat N]
                            [--against 'COMMAND {model} {out}']

Takes the notebook's model and, when --transformer names the file that
make_models.py wrote, that one too. With --against another command runs
between ours, so that a busy machine slows both alike; compare the ratios.
Needs nothing but Python; works on Linux and macOS. On Linux a process inherits the
peak of the one that started it, so no peak reads below this script's own, some 16 MB.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "tests" / "fixtures" / "notebook" / "model.onnx"


@dataclass
class Samples:
    """What the runs of one command took."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    def median(self) -> float:
        return statistics.median(self.seconds)

    def peak_mb(self) -> float:
        return max(self.peak_bytes) / 1e6


def run_once(command: list[str], samples: Samples) -> None:
    """Run a command to its end and add its wall time and peak resident memory."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        samples.seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            message = errors.read().decode(errors="replace")
            sys.exit(f"{shlex.join(command)}: exit {process.returncode}\n{message}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    samples.peak_bytes.append(usage.ru_maxrss * unit)


def measure(
    commands: dict[str, list[str]],
    out: Path,
    repeat: int,
    files: dict[str, bytes] | None = None,
) -> dict[str, Samples]:
    """Run the commands in turn; the first round only warms the caches.

    What each one wrote is put into files.
    """
    samples = {name: Samples() for name in commands}
    for round_number in range(repeat + 1):
        for name, command in commands.items():
            out.unlink(missing_ok=True)
            run_once(command, samples[name] if round_number > 0 else Samples())
            if files is not None:
                files[name] = out.read_bytes()
    return samples


def commands_for(model: Path, out: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    ours = [arguments.binary, "quantize", str(model), "-o", str(out)]
    commands = {"fewbits": ours + shlex.split(arguments.options)}
    if arguments.against:
        places = {"model": str(model), "out": str(out)}
        words = shlex.split(arguments.against)
        commands["against"] = [word.format(**places) for word in words]
    return commands


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure fewbits quantize as a whole process.")
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "fewbits"))
    parser.add_argument("--transformer", type=Path, help="what make_models.py wrote")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--options", default="--bits 8", help="more options of quantize")
    parser.add_argument("--against", help="another command, with {model} and {out}")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    models = [NOTEBOOK] + ([arguments.transformer] if arguments.transformer else [])
    print(f"{'model':24} {'command':8} {'median s':>9} {'peak MB':>8} {'peak/file':>9}")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.onnx"
            commands = commands_for(model, out, arguments)
            for name, samples in measure(commands, out, arguments.repeat).items():
                peak_mb = samples.peak_mb()
                ratio = peak_mb * 1e6 / model.stat().st_size
                print(
                    f"{model.name:24} {name:8} {samples.median():9.3f} {peak_mb:8.1f} {ratio:9.2f}"
                )


if __name__ == "__main__":
    main()
