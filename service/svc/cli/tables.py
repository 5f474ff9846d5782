"""Lays out tables: a narrow terminal gets fewer columns, and no cell but a note is broken.

People copy cells from a terminal, above all ids, so these have to be whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

#: The text between two columns.
GAP = "  "
#: Character cells that a column of notes gets at least, if its longest note needs so many.
NOTE_CELLS = 24


def lay_out(
    rows: Sequence[Sequence[str]], width: int | None = None, *, spare: Sequence[str] = (), note: str = ""
) -> list[str]:
    """Return the lines of a table of *rows*, of which the first has the titles.

    If that does not fit into *width* cells, the columns of the titles *spare* are left out, one after the
    other; the last column, if its title is *note*, is broken into several lines. If it does not fit even so,
    the lines are longer: a terminal breaks them, and copied cells are whole.
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    kept = list(range(len(widths)))
    noted = bool(note) and rows[0][-1] == note
    least = [*widths[:-1], min(widths[-1], NOTE_CELLS) if noted else widths[-1]]
    for title in spare:
        if width is None or _sum([least[place] for place in kept]) <= width:
            break
        kept = [place for place in kept if rows[0][place] != title]
    if width is not None and noted and kept[-1] == len(widths) - 1:
        room = width - _sum([widths[place] for place in kept[:-1]]) - len(GAP)
        widths[-1] = max(least[-1], min(widths[-1], room))
    return [line for row in rows for line in _lines([(row[place], widths[place]) for place in kept])]


def cells(text: str) -> int:
    """Return the character cells that a terminal needs for *text*."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def broken(text: str, width: int) -> Iterator[str]:
    """Yield *text* in lines of at most *width* cells, broken between words if they are not too long."""
    line = ""
    for word in text.split(" "):
        together = f"{line} {word}" if line else word
        if cells(together) <= width:
            line = together
            continue
        if line:
            yield line
        line = ""
        for character in word:
            if line and cells(line) + _cells_of(character) > width:
                yield line
                line = ""
            line += character
    yield line


def _lines(row: Sequence[tuple[str, int]]) -> Iterator[str]:
    *firsts, (text, width) = row
    head = "".join(cell + " " * (size - cells(cell)) + GAP for cell, size in firsts)
    for number, part in enumerate(broken(text, width)):
        yield ((" " * cells(head) if number else head) + part).rstrip()


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
