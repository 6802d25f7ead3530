"""What long work shows: a bar of tqdm where it is installed, and warnings."""

import sys
import time
import warnings
from typing import Any

# Work that ends before this is not worth a bar.
PATIENCE_SECONDS = 1.0


class Watch:
    """Is told how far work is; closes its bar at the end of a `with` block."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int, total: int) -> None:
        """Draws a bar, once the work has run for a while."""
        if time.monotonic() - self._begun < PATIENCE_SECONDS or total == 0:
            return
        if self._bar is not None and self._what != what:
            self._bar.close()
            self._bar = None
        if self._bar is None:
            bar = _bar_class()
            if bar is None:
                return
            self._what = what
            self._bar = bar(total=total, desc=what, leave=False)
        self._bar.update(done - self._bar.n)

    def warn(self, message: str) -> None:
        """Passes on what the work went on without."""
        warnings.warn(message, stacklevel=4)


def _bar_class() -> Any:
    # Where nobody watches, as in a log, a bar is noise; a notebook shows one.
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
