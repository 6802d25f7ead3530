"""The `fewbits` fixture: run the real binary and look at what it did."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

MARKS = {
    "weakest": "runs on an emulated CPU as well: cargo xtask test --weakest",
    "long": "too long for every change: cargo xtask long",
}

# Only stops a command that hangs; no test measures time.
HANGS_AFTER_SECONDS = 300


@dataclass
class Outcome:
    """What one command did."""

    command: list[str]
    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        value = json.loads(self.out)
        assert isinstance(value, dict), self.report()
        return value

    def report(self) -> str:
        return f"{' '.join(self.command)}\nexit {self.code}\n{self.out}\n{self.err}"

    def assert_done(self) -> "Outcome":
        assert self.code == 0, self.report()
        return self

    def assert_refused(self, *codes: int) -> None:
        """One line that starts with `error:`, a failing exit code, and no panic."""
        assert "panicked" not in self.err, self.report()
        assert self.code in (codes or (1, 2)), self.report()
        lines = self.err.splitlines()
        assert len(lines) == 1, self.report()
        assert lines[0].startswith("error:"), self.report()
        assert len(lines[0]) > len("error: "), self.report()


Fewbits = Callable[..., Outcome]


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")



@pytest.fixture(scope="session")
def binary() -> Path:
    """The binary named by FEWBITS_BIN, else the release build."""
    path = Path(os.environ.get("FEWBITS_BIN", ROOT / "target" / "release" / "fewbits"))
    if not path.is_file():
        pytest.exit(f"{path} is missing: run the tests with `cargo xtask python`", returncode=2)
    return path.resolve()


@pytest.fixture(scope="session")
def fewbits(binary: Path) -> Fewbits:
    """`fewbits("quantize", model, "-o", out)` runs that command line."""

    def run(*arguments: object, cwd: Path | None = None) -> Outcome:
        command = [str(binary), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
        )
        return Outcome(command, done.returncode, done.stdout, done.stderr)

    return run
