"""Formats of request logs, recognised from their first line."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import polars

from gpualloc_env.simulation.state import AnyArray, Array
from gpualloc_env.traces.lines import BLOCK, CSV, JSON_LINES, Block, Layout, block, blocks
from gpualloc_env.traces.log import Log, TraceError

# No model reads or writes this many tokens, and sums of them stay exact.
MOST_TOKENS = MOST_WORK = 10**9
# Some 30 million years in seconds, 30 thousand in milliseconds: what comes later is a mistake.
LATEST = 10**15
# Coarse stamps miss the multiples of their quantum by some milliseconds.
JITTER_MS = 10


class Column(NamedTuple):
    """A column of a log: its name, and how its texts are read."""

    name: str
    values: Callable[[polars.Series], polars.Series]  # null for a text that is not as expected
    expected: str
    required: bool = True


class Format(NamedTuple):
    """A kind of log. Its columns are keyed by what they tell.

    They are `time` and either `prompt` and `output`, in tokens, or `agent` and perhaps `work`.
    """

    layout: Layout
    columns: dict[str, Column]
    unit_s: float = 1.0  # [s] of the values of `time`
    quantised: bool = False  # whether requests share a stamp because stamps are coarse

    @property
    def required(self) -> list[str]:
        """Names of the columns that a log of this format must have."""
        return [column.name for column in self.columns.values() if column.required]


def _dates(texts: polars.Series) -> polars.Series:
    # The logs of 2024 name their offset from UTC, always zero; those of 2023 do not.
    utc = texts.str.strip_suffix("+00:00")
    return utc.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False).cast(polars.Int64)


def _numbers(
    kind: type[polars.Int64] | type[polars.Float64], most: int
) -> Callable[[polars.Series], polars.Series]:
    def values(texts: polars.Series) -> polars.Series:
        numbers = texts.cast(kind, strict=False)
        # Not a number is above every other one in the order of the comparison.
        return numbers.set(~numbers.is_between(0, most), None)

    return values


def _names(texts: polars.Series) -> polars.Series:
    return texts.set(texts == "", None)


def _tokens(name: str) -> Column:
    return Column(name, _numbers(polars.Int64, MOST_TOKENS), f"a number of tokens, 0 to {MOST_TOKENS:,}")


def _time(name: str, unit: str) -> Column:
    return Column(name, _numbers(polars.Float64, LATEST), f"a time in {unit}, 0 to {LATEST:,}")


FORMATS = {
    "Azure": Format(
        CSV,
        {
            "time": Column("TIMESTAMP", _dates, "a time like 2023-11-16 18:17:03.97996"),
            "prompt": _tokens("ContextTokens"),
            "output": _tokens("GeneratedTokens"),
        },
        unit_s=1e-9,
    ),
    "BurstGPT": Format(
        CSV,
        {
            "time": _time("Timestamp", "seconds"),
            "prompt": _tokens("Request tokens"),
            "output": _tokens("Response tokens"),
        },
    ),
    "Mooncake": Format(
        JSON_LINES,
        {
            "time": _time("timestamp", "milliseconds"),
            "prompt": _tokens("input_length"),
            "output": _tokens("output_length"),
        },
        unit_s=1e-3,
        quantised=True,
    ),
    "plain": Format(
        CSV,
        {
            "time": _time("time_s", "seconds"),
            "agent": Column("agent", _names, "the name of an agent"),
            "work": Column(
                "work",
                _numbers(polars.Float64, MOST_WORK),
                f"a multiple of the agent's mean request, 0 to {MOST_WORK:,}",
                required=False,
            ),
        },
    ),
}


def register(name: str, form: Format) -> None:
    """Add a format to `FORMATS`, so that every scenario and command reads logs of it.

    Of the formats whose required columns a log has, the one that requires most is taken.

    Args:
        name: of the format, for messages.
        form: its layout, `CSV` or `JSON_LINES`, and the columns that tell the time and either the
            agent or the tokens of a request.

    Raises:
        TraceError: the name is taken, a column is lacking, or another format has the same ones.
    """
    if name in FORMATS:
        raise TraceError(f"format {name!r} is registered already; give it another name")
    roles = set(form.columns)
    if "time" not in roles or not ({"agent"} <= roles or {"prompt", "output"} <= roles):
        raise TraceError(
            f"format {name!r} has columns for {', '.join(form.columns)}; it needs time, and agent or both "
            "prompt and output"
        )
    for other, known in FORMATS.items():
        if known.layout is form.layout and set(known.required) == set(form.required):
            raise TraceError(
                f"format {name!r} requires the same columns as {other!r}; no log could be told from its own"
            )
    FORMATS[name] = form


def read_log(path: Path) -> Log:
    """Read a request log in one of `FORMATS`, plain or gzipped; its first line says which.

    Raises:
        TraceError: the file is missing, empty, truncated, of another format, out of order, or
            has a bad field; the message names the line and the field.
    """
    if not path.is_file():
        raise TraceError(f"{path}: no such file; give the path of a request log")
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            # The buffer makes the lines of a gzip file as cheap as those of a plain one.
            return _read(path, io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"{path}: the gzip file is truncated or damaged ({error}); fetch it again"
    except OSError as error:
        problem = f"{path}: cannot be read: {error}"
    raise TraceError(problem)


def _read(path: Path, file: IO[bytes]) -> Log:
    start = file.readline(BLOCK).removeprefix(b"\xef\xbb\xbf")
    if not start.strip():
        if any(line.strip() for line in file):
            raise TraceError(f"{path}, line 1 is blank; delete it, a log begins with its first line")
        raise TraceError(f"{path}: the file is empty; a log has a header and one request per line")
    form, header = _recognise(block(path, 1, [start]))
    columns = {role: column for role, column in form.columns.items() if column.name in header}
    names = [column.name for column in columns.values()]
    rest = blocks(path, file, 2) if form.layout.has_header else blocks(path, file, 1, [start])
    parts: dict[str, list[AnyArray]] = {role: [] for role in columns}
    agents: dict[str, int] = {}
    latest = None
    for lines in rest:
        table = form.layout.texts(lines, header, names).with_columns(polars.all().str.strip_chars())
        values = {role: column.values(table[column.name]) for role, column in columns.items()}
        _check(lines, table, columns, values, latest)
        latest = values["time"][-1]
        for role, series in values.items():
            if role == "agent":
                codes = (agents.setdefault(name, len(agents)) for name in series)
                parts[role].append(np.fromiter(codes, np.int64, len(series)))
            else:
                parts[role].append(series.to_numpy())
    if not parts["time"]:
        raise TraceError(f"{path}: 0 requests at one moment; a log has one on each line after its header")
    return _log(path, form, {role: np.concatenate(arrays) for role, arrays in parts.items()}, agents)


def _recognise(first: Block) -> tuple[Format, list[str]]:
    """The format of a log with this first line, and the names of the columns that it has."""
    layout = JSON_LINES if first.text.lstrip().startswith(b"{") else CSV
    header = layout.header(first)
    candidates = [form for form in FORMATS.values() if form.layout is layout]
    fitting = [form for form in candidates if set(form.required) <= set(header)]
    if fitting:
        form = max(fitting, key=lambda form: len(form.required))
        for column in form.columns.values():
            if header.count(column.name) > 1:
                raise first.error(0, f": column {column.name!r} stands there twice; rename one of them")
        return form, header
    nearest = max(candidates, key=lambda form: len(set(form.required) & set(header)))
    missing = [name for name in nearest.required if name not in header]
    noun = "column" if layout is CSV else "key"
    problem = "the format is not known" if missing == nearest.required else f"no {noun} {missing[0]!r}"
    known = "; ".join(f"{name}: {_described(form)}" for name, form in FORMATS.items())
    shown = "".join(letter if letter.isprintable() else "�" for letter in _short(", ".join(header), 200))
    raise first.error(0, f": {problem}; the formats of logs are {known}; this file has {shown}")


def _described(form: Format) -> str:
    names = [column.name + ("" if column.required else " (optional)") for column in form.columns.values()]
    return f"{form.layout.description} {', '.join(names)}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _check(
    lines: Block,
    table: polars.DataFrame,
    columns: dict[str, Column],
    values: dict[str, polars.Series],
    latest: float | None,
) -> None:
    """Raise an error for the first line of a block with a bad value, or a time before the one before it."""
    faults: list[tuple[int, str, str]] = []
    for role, column in columns.items():
        if values[role].null_count():
            row = values[role].is_null().arg_max()
            assert row is not None
            faults.append((row, column.name, column.expected))
    time = values["time"]
    earlier = (time < time.shift(1, fill_value=latest)).fill_null(False)
    if earlier.any():
        row = earlier.arg_max()
        assert row is not None
        faults.append((row, columns["time"].name, "no earlier than the line before; sort the log by time"))
    if faults:
        row, name, expected = min(faults, key=lambda fault: fault[0])
        text = _short(table[name][row] or "", 80)
        raise lines.error(row, f", field {name}: {text!r} should be {expected}")


def _log(path: Path, form: Format, values: dict[str, AnyArray], agents: dict[str, int]) -> Log:
    time = values["time"]
    if len(time) < 2 or time[0] == time[-1]:
        raise TraceError(f"{path}: {len(time)} requests at one moment; a log needs a span of time")
    elapsed = time - time[0]
    time_s = (spread(elapsed) if form.quantised else elapsed) * form.unit_s
    quantum_s = quantum(elapsed) * form.unit_s if form.quantised else 0.0
    if "agent" in values:
        work = values.get("work", np.ones(len(time)))
        if not work.any():
            raise TraceError(f"{path}, field work: 0 in every line; no load can be made of it")
        return Log(path, time_s, work, agent=values["agent"], agent_names=tuple(agents))
    tokens = (values["prompt"] + values["output"]).astype(np.float64)
    work = tokens / tokens.mean() if tokens.any() else np.ones(len(tokens))
    return Log(path, time_s, work, prompt_tokens=values["prompt"], quantum_s=quantum_s)


def quantum(stamp: Array) -> float:
    """Greatest common divisor of the stamps' differences [ms], each to the nearest of `JITTER_MS`."""
    return float(JITTER_MS * np.gcd.reduce(np.rint(np.diff(stamp) / JITTER_MS).astype(np.int64)))


def spread(stamp: Array) -> Array:
    """Spread the requests of each stamp [ms] evenly over the quantum of the stamps, (n,).

    No request moves beyond the next stamp.
    """
    first = np.flatnonzero(np.diff(stamp, prepend=-1.0))
    requests = np.diff(first, append=len(stamp))
    gaps = np.diff(stamp[first])
    room = np.minimum(np.append(gaps, quantum(stamp)), quantum(stamp))
    rank = np.arange(len(stamp)) - np.repeat(first, requests)
    return stamp + rank / np.repeat(requests, requests) * np.repeat(room, requests)
