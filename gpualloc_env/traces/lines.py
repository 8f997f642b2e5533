"""The lines of a request log as tables of texts, CSV or JSON, with errors that name the line."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars

from gpualloc_env.traces.log import TraceError

# Text is in memory for one block of lines at a time [bytes].
BLOCK = 2**24


class Block(NamedTuple):
    """Consecutive lines of a log."""

    path: Path
    first: int  # number of the first line
    lines: Sequence[bytes]
    text: bytes  # all the lines

    def error(self, row: int, problem: str) -> TraceError:
        """What to raise because of the line in a row."""
        return TraceError(f"{self.path}, line {self.first + row}{problem}")


class Layout(NamedTuple):
    """How a line tells the values of its columns."""

    description: str
    header: Callable[[Block], list[str]]  # names of the columns, from the first line
    texts: Callable[[Block, list[str], list[str]], polars.DataFrame]  # wanted columns of a block's lines
    has_header: bool  # whether the first line is not a request


def blocks(path: Path, file: IO[bytes], first: int, start: Sequence[bytes] = ()) -> Iterator[Block]:
    """Read lines, `BLOCK` bytes at a time, without the blank ones at the end of the file.

    Args:
        path: for errors.
        file: where to read on.
        first: number of the first line.
        start: lines before those of the file.
    """
    waiting = list(start)
    while more := file.readlines(BLOCK):
        lines = waiting + more
        end = len(lines)
        while end and not lines[end - 1].strip():
            end -= 1
        if end:
            yield block(path, first, lines[:end])
        first, waiting = first + end, lines[end:]
    if any(line.strip() for line in waiting):
        yield block(path, first, waiting)


def block(path: Path, first: int, lines: Sequence[bytes]) -> Block:
    """Make a block of lines that must be UTF-8 text."""
    made = Block(path, first, lines, b"".join(lines))
    try:
        made.text.decode()
    except UnicodeDecodeError as error:
        row = made.text.count(b"\n", 0, error.start)
        raise made.error(row, ": bytes that are not UTF-8 text; a log is text, plain or gzipped") from None
    return made


def refuse_repeated(block: Block, header: list[str], wanted: Iterable[str]) -> None:
    """Refuse a header in which a column that is read stands twice."""
    for name in wanted:
        if header.count(name) > 1:
            raise block.error(0, f": column {name!r} stands there twice; rename one of them")


def _csv_row(block: Block, row: int) -> list[str]:
    try:
        fields = [*csv.reader([block.lines[row].decode().rstrip("\r\n")], strict=True)]
    except csv.Error as error:
        raise block.error(row, f": cannot be read as CSV text: {error}") from None
    if not any(fields):
        raise block.error(row, " is blank; delete it")
    return [field.strip() for field in fields[0]]


def _csv_header(block: Block) -> list[str]:
    return _csv_row(block, 0)


def _csv_texts(block: Block, header: list[str], wanted: list[str]) -> polars.DataFrame:
    width = len(header)
    place = {str(header.index(name)): name for name in wanted}
    # The fast reader accepts lines that are too short, but not one too long to make up for them.
    if b'"' not in block.text and block.text.count(b",") == (width - 1) * len(block.lines):
        schema = {str(column): polars.String for column in range(width)}
        with suppress(polars.exceptions.PolarsError):
            table = polars.read_csv(block.text, has_header=False, schema=schema)
            if table.height == len(block.lines):
                return table.select(place.keys()).rename(place)
    rows: list[list[str]] = []
    for row in range(len(block.lines)):
        fields = _csv_row(block, row)
        if len(fields) != width:
            raise block.error(row, f": {len(fields)} fields where the header has {width}")
        rows.append([fields[int(column)] for column in place])
    return polars.DataFrame(rows, dict.fromkeys(wanted, polars.String), orient="row")


def _json_object(block: Block, row: int) -> dict[str, Any]:
    if not block.lines[row].strip():
        raise block.error(row, " is blank; delete it")
    try:
        value = json.loads(block.lines[row])
    except (ValueError, RecursionError) as error:
        raise block.error(row, f": not valid JSON ({error}); a line holds one JSON object") from None
    if not isinstance(value, dict):
        raise block.error(row, ": not a JSON object; a line holds one, such as {...}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _json_header(block: Block) -> list[str]:
    return list(_json_object(block, 0))


def _json_texts(block: Block, header: list[str], wanted: list[str]) -> polars.DataFrame:
    schema = dict.fromkeys(wanted, polars.String)
    # The fast reader skips blank lines, does not tell null from missing, and names no line. Its
    # early releases raise a plain RuntimeError.
    with suppress(polars.exceptions.PolarsError, RuntimeError):
        table = polars.read_ndjson(block.text, schema=schema)
        if table.height == len(block.lines) and not any(table.null_count().row(0)):
            return table
    rows: list[list[str]] = []
    for row in range(len(block.lines)):
        value = _json_object(block, row)
        for name in wanted:
            if name not in value:
                raise block.error(row, f", field {name}: missing; this object has {', '.join(value)}")
        rows.append([v if isinstance(v := value[name], str) else json.dumps(v) for name in wanted])
    return polars.DataFrame(rows, schema, orient="row")


CSV = Layout("CSV with the columns", _csv_header, _csv_texts, has_header=True)
JSON_LINES = Layout("on each line a JSON object with the keys", _json_header, _json_texts, has_header=False)
