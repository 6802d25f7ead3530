"""Prints what fewbits makes of the sets, and where that is not what is known."""

import os
import sys
from pathlib import Path

from conformance.judge import REFUSED, WRONG, judge_all
from conformance.known import complaints, summary, write
from conformance.sets import all_sets


def main() -> int:
    chosen = [one for one in all_sets() if not NAMES or one.name in NAMES]
    verdicts = judge_all(Path(os.environ["FEWBITS_BIN"]), chosen)
    if NAMES:
        for name, verdict in verdicts.items():
            print(f"{name}: {verdict.outcome} {verdict.why}")
        return 0
    if "--write" in sys.argv:
        write(chosen, verdicts)
    if "--why" in sys.argv:
        for name, verdict in verdicts.items():
            if verdict.outcome in (REFUSED, WRONG):
                print(f"{verdict.outcome} {name}: {verdict.why}")
    found = complaints(verdicts)
    print("\n".join([*found, summary(verdicts)]))
    return 1 if found else 0


NAMES = {word for word in sys.argv[1:] if not word.startswith("--")}
sys.exit(main())
