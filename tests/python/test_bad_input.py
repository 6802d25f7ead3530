"""What is wrong is refused in one line that says so, and nothing is written."""

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import HOSTILE, NOTEBOOK, folder_bytes, open_session

MODEL = NOTEBOOK / "model.onnx"
ROWS = NOTEBOOK / "test.npz"
BAD_MODELS = sorted(path.name for path in HOSTILE.glob("bad_*.onnx"))
BAD_DATA = sorted(path.name for path in HOSTILE.glob("data_*"))
# `run` needs no labels and may well answer nothing with nothing.
NEEDS_LABELS = {"data_no_label.npz", "data_fewer_labels.npz"}
NO_ROWS = {"data_no_rows.npz", "data_header_only.csv"}
BAD_ROWS = [name for name in BAD_DATA if name not in NEEDS_LABELS | NO_ROWS]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with the bad files, and the weights that one of them points into."""
    return Path(shutil.copytree(HOSTILE, tmp_path / "hostile"))


def assert_nothing_changed(fewbits: Fewbits, folder: Path, *arguments: object, codes=()) -> None:
    """The command is refused and leaves the folder as it was."""
    before = folder_bytes(folder)
    fewbits(*arguments, cwd=folder).assert_refused(*codes)
    assert folder_bytes(folder) == before


@pytest.mark.parametrize("name", BAD_MODELS)
class TestBadModel:
    def test_quantize(self, fewbits: Fewbits, scratch: Path, name: str) -> None:
        assert_nothing_changed(fewbits, scratch, "quantize", name, "-o", "out.onnx")

    def test_inspect(self, fewbits: Fewbits, scratch: Path, name: str) -> None:
        assert_nothing_changed(fewbits, scratch, "inspect", name)

    def test_run(self, fewbits: Fewbits, scratch: Path, name: str) -> None:
        assert_nothing_changed(fewbits, scratch, "run", name, "--data", ROWS, "-o", "out.npz")

    def test_compare(self, fewbits: Fewbits, scratch: Path, name: str) -> None:
        assert_nothing_changed(fewbits, scratch, "compare", MODEL, name, "--data", ROWS)

    def test_bench(self, fewbits: Fewbits, scratch: Path, name: str) -> None:
        assert_nothing_changed(fewbits, scratch, "bench", MODEL, "--against", name)


@pytest.mark.parametrize("name", BAD_DATA)
def test_compare_with_bad_data(fewbits: Fewbits, scratch: Path, name: str) -> None:
    assert_nothing_changed(fewbits, scratch, "compare", MODEL, MODEL, "--data", name)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_run_on_bad_data(fewbits: Fewbits, scratch: Path, name: str) -> None:
    assert_nothing_changed(fewbits, scratch, "run", MODEL, "--data", name, "-o", "out.npz")


USAGE = {
    "no command": [],
    "unknown command": ["quantise"],
    "unknown option": ["quantize", MODEL, "-o", "out.onnx", "--bots", 8],
    "no model": ["quantize"],
    "bits 0": ["quantize", MODEL, "-o", "out.onnx", "--bits", 0],
    "bits 9": ["quantize", MODEL, "-o", "out.onnx", "--bits", 9],
    "bits -1": ["quantize", MODEL, "-o", "out.onnx", "--bits=-1"],
    "bits many": ["quantize", MODEL, "-o", "out.onnx", "--bits", "many"],
    "unknown scheme": ["quantize", MODEL, "-o", "out.onnx", "--scheme", "fixed"],
    "unknown recipe": ["quantize", MODEL, "-o", "out.onnx", "--recipe", "float"],
    "unknown granularity": ["quantize", MODEL, "-o", "out.onnx", "--granularity", "row"],
    "empty group": ["quantize", MODEL, "-o", "out.onnx", "--granularity", "group=0"],
    "unknown metric": ["compare", MODEL, MODEL, "--data", ROWS, "--metric", "speed"],
    "no data": ["compare", MODEL, MODEL],
    "no width": ["sweep", MODEL, "--data", ROWS, "--bits", "8..1"],
    "unknown width": ["sweep", MODEL, "--data", ROWS, "--bits", "4,9"],
    "width without an end": ["sweep", MODEL, "--data", ROWS, "--bits", "4.."],
    "sweep without data": ["sweep", MODEL],
    "static sweep without data": ["sweep", MODEL, "--data", ROWS, "--recipe", "static"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_wrong_usage(fewbits: Fewbits, tmp_path: Path, arguments: list[object]) -> None:
    if not arguments:
        # Without a command the help is shown, with the code of wrong usage.
        assert fewbits(cwd=tmp_path).code == 2
        return
    assert_nothing_changed(fewbits, tmp_path, *arguments, codes=(2,))


FAILING = {
    "model absent": ["quantize", "absent.onnx", "-o", "out.onnx"],
    "model is a folder": ["quantize", ".", "-o", "out.onnx"],
    "data absent": ["compare", MODEL, MODEL, "--data", "absent.npz"],
    "data of an unknown kind": ["compare", MODEL, MODEL, "--data", "rows.xlsx"],
    "label absent": ["compare", MODEL, MODEL, "--data", ROWS, "--label", "species"],
    "output of an unknown kind": ["run", MODEL, "--data", ROWS, "-o", "out.xlsx"],
    "plan absent": ["quantize", MODEL, "-o", "out.onnx", "--plan", "absent.json"],
    "plan is not JSON": ["quantize", MODEL, "-o", "out.onnx", "--plan", "rows.xlsx"],
    "output in a file": ["quantize", MODEL, "-o", "rows.xlsx/out.onnx"],
    "plan in a file": ["quantize", MODEL, "-o", "o.onnx", "--save-plan", "rows.xlsx/p.json"],
    "outputs in a file": ["run", MODEL, "--data", ROWS, "-o", "rows.xlsx/out.npz"],
    "sweep in a file": ["sweep", MODEL, "--data", ROWS, "-o", "rows.xlsx"],
    "page in a file": ["sweep", MODEL, "--data", ROWS, "--report", "rows.xlsx/page.html"],
    "sweep on absent data": ["sweep", MODEL, "--data", "absent.npz", "-o", "widths"],
    "sweep calibrated on absent data": [
        "sweep", MODEL, "--data", ROWS, "--calibrate", "absent.npz", "-o", "widths",
    ],
    "demo in a file": ["demo", "--out", "rows.xlsx"],
}


@pytest.mark.parametrize("arguments", FAILING.values(), ids=FAILING.keys())
def test_failing(fewbits: Fewbits, tmp_path: Path, arguments: list[object]) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"not rows")
    assert_nothing_changed(fewbits, tmp_path, *arguments)


@pytest.mark.parametrize("out", ["q.onnx", "sub/../q.onnx"])
def test_an_existing_output_is_kept(fewbits: Fewbits, tmp_path: Path, out: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "q.onnx").write_bytes(b"precious")
    assert_nothing_changed(fewbits, tmp_path, "quantize", MODEL, "-o", out)


def test_an_existing_output_of_run_is_kept(fewbits: Fewbits, tmp_path: Path) -> None:
    (tmp_path / "out.npz").write_bytes(b"precious")
    assert_nothing_changed(fewbits, tmp_path, "run", MODEL, "--data", ROWS, "-o", "out.npz")


@pytest.mark.parametrize("existing", ["widths/model-3.onnx", "page.html"])
def test_existing_outputs_of_sweep_are_kept(
    fewbits: Fewbits, tmp_path: Path, existing: str
) -> None:
    (tmp_path / "widths").mkdir()
    (tmp_path / existing).write_bytes(b"precious")
    command = ["sweep", MODEL, "--data", ROWS, "--bits", "2..4", "-o", "widths"]
    command += ["--report", "page.html"]
    assert_nothing_changed(fewbits, tmp_path, *command)
    fewbits(*command, "--force", cwd=tmp_path).assert_done()
    assert (tmp_path / existing).read_bytes() != b"precious"


def test_an_existing_plan_is_kept(fewbits: Fewbits, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"precious")
    command = ["quantize", MODEL, "-o", "q.onnx", "--save-plan", "plan.json"]
    assert_nothing_changed(fewbits, tmp_path, *command)


@pytest.mark.parametrize("out", ["model.onnx", "./model.onnx", "sub/../model.onnx", "link.onnx"])
def test_the_input_is_kept(fewbits: Fewbits, tmp_path: Path, out: str) -> None:
    (tmp_path / "sub").mkdir()
    shutil.copy(MODEL, tmp_path / "model.onnx")
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    assert_nothing_changed(fewbits, tmp_path, "quantize", "model.onnx", "-o", out)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_folder(fewbits: Fewbits, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    assert_nothing_changed(fewbits, tmp_path, "quantize", MODEL, "-o", "locked/out.onnx")


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("name", ["odd_zero.onnx", "odd_constant.onnx"])
def test_zero_and_constant_weights_are_exact(
    fewbits: Fewbits, tmp_path: Path, name: str, bits: int
) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", HOSTILE / name, "-o", out, "--bits", bits).assert_done()
    x = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    before, after = (open_session(path).run(None, {"X": x})[0] for path in (HOSTILE / name, out))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["odd_nan.onnx", "odd_infinity.onnx"])
def test_weights_that_are_no_numbers_are_never_quantized(
    fewbits: Fewbits, tmp_path: Path, name: str
) -> None:
    """Either the model is refused, or the tensor stays float and the report says why."""
    result = fewbits("quantize", HOSTILE / name, "-o", tmp_path / "q.onnx", "--json")
    if result.code == 0:
        kept = {entry["tensor"]: entry["why"] for entry in result.json()["kept_float"]}
        assert kept.get("weight"), result.report()
    else:
        result.assert_refused()
        assert folder_bytes(tmp_path) == {}


@pytest.mark.parametrize("arguments", [["inspect", MODEL], ["--help"], ["demo", "--json"]])
def test_a_reader_that_has_seen_enough_ends_it_in_silence(
    binary: Path, arguments: list[object]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(binary), *map(str, arguments)]
    with os.fdopen(writer) as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_behind_standard_output_is_told(binary: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with open("/dev/full", "w") as full:
        command = [str(binary), "inspect", str(MODEL)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write to standard output: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (["quantize", MODEL], "q.onnx"),
        (["quantize", MODEL, "-o", os.devnull, "--dry-run", "--save-plan"], "plan.json"),
        (["run", MODEL, "--data", ROWS], "out.npz"),
    ],
)
def test_what_a_killed_run_left_is_removed(
    fewbits: Fewbits, binary: Path, tmp_path: Path, command: list[object], out: str
) -> None:
    """The system kills a run that writes more than it may, in the middle of its output."""
    output = [] if "--save-plan" in command else ["-o"]
    killed = subprocess.run(
        [str(part) for part in (binary, *command, *output, tmp_path / out)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256)),
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGXFSZ, killed
    [left] = os.listdir(tmp_path)
    assert left.startswith(".tmp") and out in left
    # Of another output: it is not ours to remove.
    (tmp_path / ".tmp-other.onnx-abcdef").touch()
    fewbits(*command, *output, tmp_path / out).assert_done()
    assert sorted(os.listdir(tmp_path)) == sorted([out, ".tmp-other.onnx-abcdef"])


class TestOutputsThatWouldBeLost:
    """What one output, or what is read, would be replaced by another output."""

    def refused(self, fewbits: Fewbits, folder: Path, *options: object) -> None:
        shutil.copy(MODEL, folder / "m.onnx")
        shutil.copy(ROWS, folder / "c.npz")
        command = ["quantize", "m.onnx", "--calibrate", "c.npz", *options]
        assert_nothing_changed(fewbits, folder, *command)
        assert_nothing_changed(fewbits, folder, *command, "--force")

    @pytest.mark.parametrize("plan", ["q.onnx", "./q.onnx"])
    def test_the_plan_is_no_model(self, fewbits: Fewbits, tmp_path: Path, plan: str) -> None:
        self.refused(fewbits, tmp_path, "-o", "q.onnx", "--save-plan", plan)

    @pytest.mark.parametrize("option", ["-o", "--save-plan", "--resume"])
    def test_data_is_no_output(self, fewbits: Fewbits, tmp_path: Path, option: str) -> None:
        out = [] if option == "-o" else ["-o", "q.onnx"]
        self.refused(fewbits, tmp_path, *out, option, "c.npz")

    def test_a_device_is_no_file(self, fewbits: Fewbits, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        done = fewbits("quantize", MODEL, "-o", tmp_path / "pipe", "--force")
        done.assert_refused()
        assert "it is no file" in done.err
        assert (tmp_path / "pipe").is_fifo()


def test_a_drop_that_is_no_number(fewbits: Fewbits, tmp_path: Path) -> None:
    drop = ["--data", ROWS, "--max-drop", "nan"]
    fewbits("quantize", MODEL, "-o", tmp_path / "q.onnx", *drop).assert_refused(2)
    fewbits("compare", MODEL, MODEL, *drop).assert_refused(2)
