"""Logs of sessions: the calls of multi-agent tasks, one after the other."""

from pathlib import Path
from typing import IO

import numpy as np
import polars

from gpualloc_env.simulation.state import AnyArray
from gpualloc_env.traces.calls import SessionLog
from gpualloc_env.traces.lines import BLOCK, CSV, Block, block, blocks, refuse_repeated
from gpualloc_env.traces.log import MOST_TOKENS, TraceError
from gpualloc_env.traces.reading import forked, in_new_process, opened

LATEST_S = 1e12
COLUMNS = {
    "session": "the name of a session",
    "call": f"the number of the call in its session, 0 to {MOST_TOKENS:,}, greater than the one before",
    "time_s": f"a time in seconds, 0 to {LATEST_S:g}, no earlier than the call before it in its session",
    "agent": "the name of an agent",
    "prompt_tokens": f"a number of tokens, 0 to {MOST_TOKENS:,}",
    "output_tokens": f"a number of tokens, 1 to {MOST_TOKENS:,}",
}
"""The columns of a log of sessions, and what stands in them."""


def read_sessions(path: Path) -> SessionLog:
    """Read a log of sessions, a CSV file with the columns `COLUMNS`, plain or gzipped.

    The sessions may be interleaved; the calls of each stand in their order. The path is that of a file,
    a pipe, or `-` for standard input.

    Raises:
        TraceError: the file is missing or empty, lacks a column, or has a bad field; the message names
            the line and the field.
    """
    if forked():
        return in_new_process(path, lambda: read_sessions(path))
    with opened(path, "a log of sessions") as file:
        return _read(path, file)


def _read(path: Path, file: IO[bytes]) -> SessionLog:
    start = file.readline(BLOCK).removeprefix(b"\xef\xbb\xbf")
    if not start.strip():
        if any(line.strip() for line in file):
            raise TraceError(f"{path}, line 1 is blank; delete it, a log begins with its header")
        raise TraceError(f"{path}: the file is empty; a log of sessions has a header and one call per line")
    top = block(path, 1, [start])
    header = CSV.header(top)
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise top.error(
            0,
            f": no column {missing[0]!r}; a log of sessions has {', '.join(COLUMNS)}, this file has "
            f"{', '.join(header):.200}",
        )
    refuse_repeated(top, header, COLUMNS)
    tables = [_table(lines, header) for lines in blocks(path, file, 2)]
    if not tables:
        raise TraceError(f"{path}: no calls; a log of sessions has one on each line after its header")
    table = polars.concat(tables)
    places = {name: place for place, name in enumerate(table["session"].unique(maintain_order=True))}
    session = np.array([places[name] for name in table["session"]], dtype=np.int64)
    rows = np.argsort(session, kind="stable")
    sorted_table = table[rows.tolist()]
    log = _log(path, sorted_table, session[rows])
    _check_order(log, sorted_table)
    return log


def _table(lines: Block, header: list[str]) -> polars.DataFrame:
    """The calls of a block of lines, each with the number of its line."""
    texts = CSV.texts(lines, header, list(COLUMNS)).with_columns(polars.all().str.strip_chars())
    values: dict[str, polars.Series] = {}
    for name in COLUMNS:
        text = texts[name]
        if name in {"session", "agent"}:
            values[name] = text.set(text == "", None)
        elif name == "time_s":
            number = text.cast(polars.Float64, strict=False)
            values[name] = number.set(~number.is_between(0, LATEST_S), None)
        else:
            number = text.cast(polars.Int64, strict=False)
            values[name] = number.set(~number.is_between(int(name == "output_tokens"), MOST_TOKENS), None)
    bad = [
        (row, name)
        for name in COLUMNS
        if (row := values[name].is_null().arg_max()) is not None and values[name].null_count()
    ]
    if bad:
        row, name = min(bad)
        raise lines.error(row, f", field {name}: {texts[name][row] or ''!r} should be {COLUMNS[name]}")
    number = polars.Series("line", np.arange(lines.first, lines.first + len(lines.lines)))
    return polars.DataFrame(values).with_columns(number)


def _log(path: Path, table: polars.DataFrame, session: AnyArray) -> SessionLog:
    names = table["agent"].unique(maintain_order=True).to_list()
    return SessionLog(
        path,
        first=np.append(np.flatnonzero(np.diff(session, prepend=-1)), len(session)),
        time_s=table["time_s"].to_numpy(),
        agent=np.array([names.index(name) for name in table["agent"]], dtype=np.int64),
        prompt=table["prompt_tokens"].to_numpy(),
        output=table["output_tokens"].to_numpy(),
        line=table["line"].to_numpy(),
        agent_names=tuple(names),
    )


def _check_order(log: SessionLog, table: polars.DataFrame) -> None:
    """Raise an error for the first line whose call comes before the one that stands before it."""
    within = np.ones(len(log.line), dtype=np.bool_)
    within[log.first[:-1]] = False
    faults: list[tuple[int, str, int]] = []
    for name in ("call", "time_s"):
        values = table[name].to_numpy()
        step = np.diff(values, prepend=values[:1])
        back = within & ((step < 0) if name == "time_s" else (step <= 0))
        faults += [(int(log.line[row]), name, row) for row in np.flatnonzero(back).tolist()]
    if faults:
        line, name, row = min(faults)
        raise TraceError(
            f"{log.path}, line {line}, field {name}: '{table[name][row]}' should be {COLUMNS[name]}"
        )
