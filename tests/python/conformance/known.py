"""What fewbits is known to make of the sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from conformance.judge import NOT_FED, REFUSED, RIGHT, WRONG, Verdict
from conformance.sets import Set

FOLDER = Path(__file__).parent
REFUSALS, WRONGS, UNFED, PROVEN = (
    FOLDER / f"{name}.txt" for name in ("refused", "wrong", "not_fed", "proven")
)

HEADS = {
    REFUSALS: "Sets that are refused in one clear line, by operator.",
    UNFED: "Sets whose inputs .npz cannot carry (sequences, optionals, types that numpy lacks), by operator.",
    PROVEN: "Operators in sets that are answered rightly: what an executor may be trusted with.",
    WRONGS: "Sets that are answered wrongly, and why. One that is mended leaves the list.",
}


def by_operator(path: Path) -> dict[str, str]:
    """The sets of a list, and the operator of each."""
    found, operator = {}, ""
    for line in lines(path):
        if line.startswith(" "):
            found[line.strip()] = operator
        else:
            operator = line.split()[0]
    return found


def wrong() -> dict[str, str]:
    """The sets that are known to be wrong, and why."""
    split = (line.partition(":") for line in lines(WRONGS))
    return {name.strip(): why.strip() for name, _, why in split}


def lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def proven(sets: Iterable[Set], verdicts: Mapping[str, Verdict]) -> list[str]:
    """The operators of ONNX in sets that are right, those of subgraphs included."""
    found: set[str] = set()
    graphs = [one.model.graph for one in sets if verdicts[one.name].outcome == RIGHT]
    while graphs:
        for node in graphs.pop().node:
            if node.domain in ("", "ai.onnx"):
                found.add(node.op_type)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return sorted(found)


def complaints(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Where the verdicts are not those known; one line each."""
    listed = {REFUSED: by_operator(REFUSALS), WRONG: wrong(), NOT_FED: by_operator(UNFED)}
    found = []
    for name, verdict in verdicts.items():
        before = next((outcome for outcome, names in listed.items() if name in names), "right")
        if before != verdict.outcome:
            found.append(f"{name}: {verdict.outcome}, was {before}: {verdict.why}")
    for outcome, names in listed.items():
        gone = (name for name in names if name not in verdicts)
        found += [f"{name}: listed as {outcome}, but there is no such set" for name in gone]
    return found


def write(sets: Iterable[Set], verdicts: Mapping[str, Verdict]) -> None:
    """Keeps the verdicts; what is known of wrong sets stays as it is said."""
    sets, said = list(sets), wrong()
    for path, outcome in ((REFUSALS, REFUSED), (UNFED, NOT_FED)):
        names: dict[str, list[str]] = {}
        for one in sets:
            if verdicts[one.name].outcome == outcome:
                names.setdefault(one.operator, []).append(one.name)
        text = f"# {HEADS[path]}\n"
        for operator in sorted(names):
            text += f"{operator} {len(names[operator])}\n"
            text += "".join(f"    {name}\n" for name in sorted(names[operator]))
        path.write_text(text, encoding="utf-8")
    text = f"# {HEADS[WRONGS]}\n"
    for name in sorted(n for n, verdict in verdicts.items() if verdict.outcome == WRONG):
        text += f"{name}: {said.get(name) or verdicts[name].why}\n"
    WRONGS.write_text(text, encoding="utf-8")
    text = "".join(f"{operator}\n" for operator in proven(sets, verdicts))
    PROVEN.write_text(f"# {HEADS[PROVEN]}\n{text}", encoding="utf-8")


def summary(verdicts: Mapping[str, Verdict]) -> str:
    counts: dict[str, int] = {}
    for verdict in verdicts.values():
        counts[verdict.outcome] = counts.get(verdict.outcome, 0) + 1
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return f"{len(verdicts)} sets: {counted}"
