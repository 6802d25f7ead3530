"""The commands shown in README.md and docs/*.md work.

The convention: in a block that opens with ```console, a line that starts with
`$ fewbits` is a command; `\\` at its end continues it. The commands of one page run
in order, in one scratch folder that holds the files of FILES. A command must exit
with 0, or with the code that a comment at its end names: `# exit 3`. Other lines
are output or commands for the reader, and are not run.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import HANGS_AFTER_SECONDS, ROOT
from models import FIXTURES

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

# What a page may name, and the fixture that stands for it.
FILES = {
    "model.onnx": "notebook/model.onnx",
    "test.csv": "notebook/test.csv",
    "train.csv": "notebook/train.csv",
    "test.npz": "notebook/test.npz",
    "data.npz": "notebook/test.npz",
    "mlp.onnx": "digits/mlp.onnx",
    "digits.npz": "digits/test.npz",
    "cnn.onnx": "digits_cnn/model.onnx",
    "cnn.npz": "digits_cnn/test.npz",
    "calib.npz": "digits_cnn/calib.npz",
    "lm.onnx": "tiny_lm/model.onnx",
    "lm.npz": "tiny_lm/calib.npz",
}

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"#\s*exit (\d+)\s*$")


def commands(text: str) -> list[tuple[str, int]]:
    """The commands of a page, each with the exit code that it must have."""
    found = []
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ fewbits"):
                code = EXIT.search(line)
                found.append((line.removeprefix("$ "), int(code[1]) if code else 0))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page: Path, binary: Path, tmp_path: Path) -> None:
    for name, fixture in FILES.items():
        shutil.copy(FIXTURES / fixture, tmp_path / name)
    environment = os.environ | {"PATH": f"{binary.parent}{os.pathsep}{os.environ['PATH']}"}
    for command, code in commands(page.read_text(encoding="utf-8")):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"


def test_readme_shows_commands() -> None:
    assert commands((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_convention() -> None:
    page = (
        "```console\n$ fewbits inspect \\\n    model.onnx\nname  bits\n$ cargo build\n"
        "$ fewbits compare a b # exit 3\n```\n```sh\nfewbits tune\n```\n"
    )
    assert commands(page) == [
        ("fewbits inspect      model.onnx", 0),
        ("fewbits compare a b # exit 3", 3),
    ]
