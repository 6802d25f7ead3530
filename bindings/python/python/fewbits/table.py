"""Small tables, as text and as HTML."""

from collections.abc import Sequence
from html import escape

from fewbits.record import Record

# Rows of a table before the rest is only counted.
LISTED = 40


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first stands on the left, numbers on the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(_line(row, widths) for row in [head, ["-" * w for w in widths], *rows])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join(cells).rstrip()


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A plain table, which notebooks style themselves."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def count(number: float | int | None) -> str:
    return "–" if number is None else f"{number:,}"


def decibels(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}"


def milliseconds(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number * 1000:.1f} µs" if number < 1 else f"{number:.2f} ms"


class Tabled(Record):
    """A record that prints as a table."""

    def _table(self) -> tuple[list[str], list[list[str]]]:
        raise NotImplementedError

    def _words(self) -> list[str]:
        """Lines below the table."""
        return []

    def __repr__(self) -> str:
        return "\n".join([text_table(*self._table()), *self._words()])

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(line)}</p>" for line in self._words())
        return html_table(*self._table(), type(self).__name__) + words
