"""The package and the interpreter: imports, types, threads, Ctrl-C, documentation."""

import doctest
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HANGS_AFTER_SECONDS, ROOT
from models import FIXTURES

import fewbits as fb

PACKAGE = Path(fb.__file__).parent
MAX_WHEEL_BYTES = 15_000_000


def test_import_needs_nothing_but_numpy() -> None:
    code = (
        "import sys, fewbits\n"
        "heavy = {'sklearn', 'scipy', 'onnx', 'skl2onnx', 'pandas', 'torch', 'tqdm', 'matplotlib'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_wheel_is_small_and_typed() -> None:
    assert (PACKAGE / "py.typed").is_file() and (PACKAGE / "_fewbits.pyi").is_file()
    wheels = list((ROOT / "target" / "wheels").glob("*.whl"))
    assert all(wheel.stat().st_size < MAX_WHEEL_BYTES for wheel in wheels)


def test_mypy_strict() -> None:
    sources = ROOT / "bindings" / "python"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", sources / "pyproject.toml"]
    command += ["--cache-dir", os.devnull, sources / "python" / "fewbits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS)
    assert done.returncode == 0, done.stdout


def test_the_stub_tells_what_the_native_module_has() -> None:
    command = [sys.executable, "-m", "mypy.stubtest", "fewbits._fewbits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(fb.__path__)] + [""])
def test_examples_in_the_documentation(name: str) -> None:
    module = importlib.import_module(f"fewbits.{name}" if name else "fewbits")
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_every_public_name_is_documented() -> None:
    for name in fb.__all__:
        if not name.startswith("__"):
            assert getattr(fb, name).__doc__, name


def test_the_interpreter_goes_on_while_rust_works() -> None:
    """Another thread counts while a sweep runs."""
    model = FIXTURES / "digits" / "mlp.onnx"
    rows = np.load(FIXTURES / "digits" / "test.npz")
    X, y = (rows[name] for name in ("X", "y"))
    done = threading.Event()
    counted = 0

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = counted
        fb.sweep(model, X, y, bits=[2, 4])
        during = counted - before
    finally:
        done.set()
        counter.join()
    assert during > 10


def test_many_threads_share_a_model() -> None:
    model = fb.load(FIXTURES / "digits" / "mlp.onnx")
    X = np.load(FIXTURES / "digits" / "test.npz")["X"].astype(np.float32)
    expected = model.predict(X)
    wrong = []

    def ask() -> None:
        for _ in range(20):
            if not (model.predict(X) == expected).all():
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_ends_long_work(tmp_path: Path) -> None:
    """A sweep over so many rows would take far longer than the test may."""
    code = f"""
import numpy as np, fewbits as fb
rows = np.load({str(FIXTURES / "digits" / "test.npz")!r})
X, y = np.tile(rows["X"], (2000, 1)), np.tile(rows["y"], 2000)
print("begin", flush=True)
try:
    fb.sweep({str(FIXTURES / "digits" / "mlp.onnx")!r}, X, y)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begin"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=HANGS_AFTER_SECONDS)
    finally:
        process.kill()
    assert out.strip() == "interrupted"
    assert process.returncode == 0


def test_a_contiguous_array_is_not_copied_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native module reads numpy's memory: nothing of the package's Python sees the rows."""
    from fewbits import frames

    model = fb.load(FIXTURES / "notebook" / "model.onnx")

    def refuse(*_: object) -> None:
        raise AssertionError("the rows went through Python")

    monkeypatch.setattr(frames, "numbers", refuse)
    for kind in (np.float32, np.float64):
        assert model.predict(np.zeros((3, 20), kind)).shape == (3,)
        assert model.predict_proba(np.zeros((3, 20), kind)).shape == (3, 2)


def test_a_bar_is_shown_when_work_runs_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewbits import progress

    drawn = []

    class Bar:
        def __init__(self, total: int, desc: str, leave: bool) -> None:
            self.n = 0
            drawn.append(f"{desc} of {total}")

        def update(self, steps: int) -> None:
            self.n += steps
            drawn.append(self.n)

        def close(self) -> None:
            drawn.append("closed")

    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    with progress.Watch() as watch:
        watch.show("calibrating", 1, 4)
    assert drawn == []
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0)
    with progress.Watch() as watch:
        watch.show("calibrating", 1, 4)
        watch.show("calibrating", 3, 4)
        watch.show("measuring", 0, 2)
    assert drawn == ["calibrating of 4", 1, 3, "closed", "measuring of 2", 0, "closed"]
