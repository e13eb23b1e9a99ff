"""TSV and CSV files with a header → rows."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TextIO

from mtbert_jax.config.schema import nearest
from mtbert_jax.data.raw_rows import Fault, Row
from mtbert_jax.errors import InputError
from mtbert_jax.limits import LONGEST_FIELD

IsRow = Callable[[dict[str, str]], bool]
"""Whether fields by column are a row that can be used."""
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}


class Table(NamedTuple):
    """An open table.

    Attributes:
        line: Line of the header.
        columns: The header's names; empty where the file has no line but blank ones.
        rows: Iterates over the rows; the argument tells whether a line would be a row by itself.
    """

    name: str
    line: int
    columns: list[str]
    delimiter: str
    rows: Callable[[IsRow], Iterator[Row]]


def delimiter_of(name: str, header: str) -> str:
    r"""What separates fields: the file's name says it, and otherwise its header.

    Files that are named ``.csv`` and have tabs in the header, and no comma, are tab-separated: the course's are.

    >>> delimiter_of("a.tsv", "id,text"), delimiter_of("a.csv", "id\ttext"), delimiter_of("a.CSV", "id,a\tb")
    ('\t', '\t', ',')
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".tsv", ".tab"):
        return "\t"
    return "\t" if "\t" in header and not (suffix == ".csv" and "," in header) else ","


def open_table(file: TextIO, name: str, quotes: bool) -> Table:
    """Reads the header of a file that keeps its line ends; without `quotes` every quote is text."""
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = delimiter_of(name, next((line for line in file if line.strip()), ""))
    file.seek(0)
    taken: list[str] = []  # the lines of the present row

    def lines() -> Iterator[str]:
        for line in file:
            taken.append(line)
            yield line

    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(lines(), delimiter=delimiter, quoting=quoting, strict=True)

    def next_fields() -> tuple[int, list[str] | None]:
        """The next row, and the line that it begins in; None at the end."""
        taken.clear()
        line = reader.line_num + 1
        try:
            return line, next(reader, None)
        except csv.Error as error:
            hint = "; if quotes are plain text in this file, set quotes = false" if quotes else ""
            raise InputError(f"{name}:{line}: cannot be read as a table: {error}{hint}") from None

    start, columns = next_fields()
    while columns is not None and not "".join(taken).strip():
        start, columns = next_fields()
    if len(taken) > 1:
        raise InputError(
            f"{name}:{start}: cannot be read as a table: a quote opens in the header and closes in line "
            f"{start + len(taken) - 1}; if quotes are plain text in this file, set quotes = false"
        )
    header = columns or []

    def rows(is_row: IsRow) -> Iterator[Row]:
        while True:
            line, fields = next_fields()
            if fields is None:
                return
            if not fields or (len(fields) == 1 < len(header) and not "".join(taken).strip()):
                continue
            if len(taken) > 1 and _swallows(taken, fields, header, delimiter, is_row):
                raise InputError(
                    f"{name}:{line}: cannot be read as a table: a quote opens here and closes in line "
                    f"{line + len(taken) - 1}, with whole rows between; if quotes are plain text in this file, set "
                    "quotes = false; if all that is one field, give the file as JSON Lines"
                )
            yield Row(line, _by_column(header, fields, taken, delimiter), len(taken))

    return Table(name, start, header, delimiter, rows)


def check_columns(
    table: Table, required: Sequence[str], optional: str = "", advice: str = "", headless: str = ""
) -> None:
    """Refuses a header that lacks a required column, or has a column twice.

    `advice` is about the last required; `headless` says what a file without a header may be.
    """
    columns, where = table.columns, f"{table.name}:{table.line}"
    for column in required:
        if column not in columns:
            listed = f" (columns: {', '.join(name for name in columns if name)})"
            way = f"; {advice}" if advice and column == required[-1] else ""
            hint = _other_separator(table, column) or nearest(column, filter(None, columns))
            if not hint and columns[0].lower().startswith("sep="):  # which tells Excel where to split
                hint = f"; delete line {table.line}, which is meant for Excel"
            like_data = headless or any(" " in name or name.isdecimal() for name in columns)
            if not hint and not {*required} & {*columns} and like_data:
                hint = f"; its first line must name the columns{headless}"
            raise InputError(f"{where}: no column {column!r}{hint}{listed}{way}")
    for column in (*required, optional):
        if columns.count(column) > 1 and column:
            raise InputError(f"{where}: column {column!r} stands twice in the header; give each a name of its own")


def _other_separator(table: Table, column: str) -> str:
    """A hint where the header would have the column if it were split elsewhere."""
    header = table.delimiter.join(table.columns)
    for separator, word in _SEPARATORS.items():
        if separator != table.delimiter and column in [name.strip().strip('"') for name in header.split(separator)]:
            way = {"\t": "name the file .tsv", ",": "name the file .csv"}.get(separator, "write it with tabs or commas")
            return f"; the header was split at {_SEPARATORS[table.delimiter]}, and seems to have {word}: {way}"
    return ""


def _by_column(header: list[str], fields: list[str], taken: list[str], delimiter: str) -> dict[str, str] | Fault:
    if len(fields) == len(header):
        return dict(zip(header, fields, strict=True))
    text = f"has {len(fields)} columns where the header has {len(header)}"
    if '"' in taken[0] and all(len(row) == len(header) for row in _without_quotes(taken, delimiter)):
        text += " (it has as many if quotes are text: quotes = false)"
    return Fault("has another number of columns than the header", text)


def _swallows(lines: list[str], fields: list[str], header: list[str], delimiter: str, is_row: IsRow) -> bool:
    """Whether a row of several lines holds whole rows, since a stray quote opens in one and another closes later.

    A text that was quoted on purpose holds the delimiter rarely, if that is the tab; then one line that is a whole row
    by itself is enough. Commas are frequent in texts, and CSV is made for them: there at least half of the lines, and
    two of them, must be rows by themselves, with no comma before a blank as in prose, and none between two fields that
    are quoted. Of two columns, one comma a line proves little: it must not stand in a number such as 1,000, and the
    label must be one, too.
    """
    several = [field for field in fields if "\n" in field or "\r" in field]
    if len(header) == 1:
        return delimiter == "\t"
    if not any(delimiter in field for field in several):
        return False
    plain = _without_quotes(lines, delimiter)
    whole = [place for place, row in enumerate(plain) if len(row) == len(header)]
    if delimiter == "\t":
        return any(place > 0 for place in whole)
    rows = [plain[place] for place in whole if not any(field[:1].isspace() for field in plain[place][1:])]
    if len(header) == 2:
        rows = [
            row
            for row in rows
            if not _THOUSANDS.search(delimiter.join(row)) and is_row(dict(zip(header, row, strict=True)))
        ]
    return len(rows) > 1 and 2 * len(rows) >= len(lines) and not any('","' in line for line in lines)


def _without_quotes(lines: list[str], delimiter: str) -> list[list[str]]:
    """The lines' fields if every quote is text."""
    return list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
