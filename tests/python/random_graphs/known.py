"""Seeds that fail for a reason that is known."""

from pathlib import Path

LIST = Path(__file__).with_name("known_faults.txt")


def known_faults() -> dict[int, str]:
    """The cause by seed. A line is a cause, a colon, and seeds; `#` starts a comment."""
    found: dict[int, str] = {}
    for line in LIST.read_text().splitlines():
        cause, colon, seeds = line.partition("#")[0].rpartition(":")
        if colon:
            found.update(dict.fromkeys(map(int, seeds.split()), cause.strip()))
    return found
