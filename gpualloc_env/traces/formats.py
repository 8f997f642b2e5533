"""Formats of request logs, recognised from their first line."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import polars

from gpualloc_env.listing import shortened
from gpualloc_env.simulation.state import AnyArray
from gpualloc_env.traces.lines import BLOCK, CSV, JSON_LINES, Block, Layout, block, blocks, refuse_repeated
from gpualloc_env.traces.log import MOST_TOKENS, UNITS_S, Log, TimeUnit, TraceError
from gpualloc_env.traces.reading import forked, in_new_process, opened
from gpualloc_env.traces.stamps import clock, spread

MOST_WORK = 10**9
# Some 30 million years in seconds, 30 thousand in milliseconds: what comes later is a mistake.
LATEST = 10**15
# More requests a second than this, and the times are not in the unit that they were taken for.
PLAUSIBLE_RPS = 1000.0
# Seconds of the year 5138, milliseconds of 1973.
TOO_LATE_S = 1e11
# A stamp that is wrong lies years away from the others.
LONGEST_PAUSE_S = 366 * 86400.0


class Column(NamedTuple):
    """A column of a log: its name, and how its texts are read."""

    name: str
    values: Callable[[polars.Series], polars.Series]  # null for a text that is not as expected
    expected: str
    required: bool = True


class Format(NamedTuple):
    """A kind of log. Its columns are keyed by what they tell.

    They are `time` and either `prompt` and `output`, in tokens, and perhaps `agent`, or `agent` and perhaps
    `work` or `prompt` alone: the milliseconds for which a request that has no tokens takes a GPU.
    """

    layout: Layout
    columns: dict[str, Column]
    unit_s: float = 1.0  # [s] of the values of `time`
    in_seconds: tuple[str, ...] = ()  # other columns of logs whose times are in seconds all the same

    @property
    def required(self) -> list[str]:
        """Names of the columns that a log of this format must have."""
        return [column.name for column in self.columns.values() if column.required]


def _dates(texts: polars.Series) -> polars.Series:
    # The logs of 2024 name their offset from UTC, always zero; those of 2023 do not.
    utc = texts.str.strip_suffix("+00:00")
    dates = utc.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    known = dates.dt.year().is_between(1970, 2261).fill_null(False)
    # Nanoseconds of other years do not fit into 64 bits.
    stamps = utc.set(~known, None).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    return stamps.cast(polars.Int64)


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


def _model_names(texts: polars.Series) -> polars.Series:
    # An agent's name has no slash, where that of a published model has one.
    return _names(texts.str.replace_all(r"[^A-Za-z0-9_.-]", "-"))


def _milliseconds(texts: polars.Series) -> polars.Series:
    seconds = _numbers(polars.Float64, MOST_TOKENS // 1000)(texts)
    return (1000.0 * seconds).round().cast(polars.Int64)


def _tokens(name: str) -> Column:
    return Column(name, _numbers(polars.Int64, MOST_TOKENS), f"a number of tokens, 0 to {MOST_TOKENS:,}")


def _seconds(texts: polars.Series) -> polars.Series:
    """Numbers, or the seconds since 1970 of ISO dates, whichever a block has more of."""
    numbers = _numbers(polars.Float64, LATEST)(texts)
    if not numbers.null_count():
        return numbers
    dates = _since_1970(texts.set(texts.cast(polars.Float64, strict=False).is_not_null(), None))
    # The others are null, so that what is refused is the line that does not belong to the log.
    return dates if dates.count() > numbers.count() else numbers


def _since_1970(texts: polars.Series) -> polars.Series:
    """Seconds since 1970 of ISO dates with a time, in UTC where they name no zone."""
    texts = texts.str.replace(r"^(\S+[T ]\d\d:\d\d)(Z|[+-]\d\d:?\d\d)?$", "${1}:00${2}")  # to the minute
    zoned = texts.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    spaced = texts.str.replace("T", " ", literal=True)
    local = spaced.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    seconds = zoned.fill_null(local.dt.replace_time_zone("UTC")).cast(polars.Int64) / 1e6
    return seconds.set(seconds < 0.0, None)


def _time(name: str) -> Column:
    date = "a date such as 2025-03-30T18:17:03.979Z"
    return Column(name, _seconds, f"a time in seconds, 0 to {LATEST:,}, or {date}, as on the other lines")


FORMATS = {
    "Azure": Format(
        CSV,
        {
            "time": Column("TIMESTAMP", _dates, "a time like 2023-11-16 18:17:03.97996, from 1970 to 2261"),
            "prompt": _tokens("ContextTokens"),
            "output": _tokens("GeneratedTokens"),
        },
        unit_s=1e-9,
    ),
    "BurstGPT": Format(
        CSV,
        {
            "time": _time("Timestamp"),
            "prompt": _tokens("Request tokens"),
            "output": _tokens("Response tokens"),
        },
    ),
    "Mooncake": Format(
        JSON_LINES,
        {
            "time": Column(
                "timestamp",
                _numbers(polars.Float64, LATEST),
                f"a time as a number of milliseconds, 0 to {LATEST:,}",
            ),
            "prompt": _tokens("input_length"),
            "output": _tokens("output_length"),
        },
        unit_s=1e-3,
        # The Qwen-Bailian logs have Mooncake's keys beside these.
        in_seconds=("chat_id", "parent_chat_id"),
    ),
    "plain": Format(
        CSV,
        {
            "time": _time("time_s"),
            "agent": Column("agent", _names, "the name of an agent"),
            "work": Column(
                "work",
                _numbers(polars.Float64, MOST_WORK),
                f"a multiple of the agent's mean request, 0 to {MOST_WORK:,}",
                required=False,
            ),
        },
    ),
    "plain with tokens": Format(
        CSV,
        {
            "time": _time("time_s"),
            "agent": Column("agent", _names, "the name of an agent", required=False),
            "prompt": _tokens("prompt_tokens"),
            "output": _tokens("output_tokens"),
        },
    ),
    "models": Format(
        CSV,
        {
            "time": _time("time_s"),
            "agent": Column("model", _model_names, "the name of a model"),
            "prompt": _tokens("prompt_tokens"),
            "output": _tokens("output_tokens"),
        },
    ),
    "image models": Format(
        CSV,
        {
            "time": Column("gmt_create", _dates, "a time like 2024-11-16 18:17:03, from 1970 to 2261"),
            "agent": Column("checkpoint_model_version_id", _model_names, "the name of a model"),
            "prompt": Column("exec_time_seconds", _milliseconds, "a time in seconds, 0 to 1,000,000"),
        },
        unit_s=1e-9,
    ),
}


_SHIPPED = frozenset(FORMATS)


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
        if known.layout == form.layout and set(known.required) == set(form.required):
            raise TraceError(
                f"format {name!r} requires the same columns as {other!r}; no log could be told from its own"
            )
    FORMATS[name] = form


def read_log(path: Path, time_unit: TimeUnit | None = None) -> Log:
    """Read a request log in one of `FORMATS`, plain or gzipped; its first line says which.

    Args:
        path: a file, a pipe, or `-` for standard input.
        time_unit: of its times where they are numbers; by default what the format and the times say.

    Raises:
        TraceError: the file is missing, empty, truncated, of another format, out of order, or
            has a bad field; the message names the line and the field.
    """
    if forked():
        own = {name: form for name, form in FORMATS.items() if name not in _SHIPPED}
        return in_new_process(path, lambda: _read_with(own, path, time_unit))
    with opened(path, "a request log") as file:
        return _read(path, file, time_unit)


def _read_with(formats: dict[str, Format], path: Path, time_unit: TimeUnit | None) -> Log:
    """Read a log in a process that does not know the formats that were registered in another one."""
    FORMATS.update(formats)
    return read_log(path, time_unit)


def _read(path: Path, file: IO[bytes], time_unit: TimeUnit | None) -> Log:
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
    dated = False
    latest, remedy = None, "sort the log by time"
    if {"session", "call"} <= set(header):
        remedy += "; one of sessions, each with times of its own, is played by scenario 'magentic'"
    for lines in rest:
        table = form.layout.texts(lines, header, names).with_columns(polars.all().str.strip_chars())
        values = {role: column.values(table[column.name]) for role, column in columns.items()}
        _check(lines, table, columns, values, latest, remedy)
        dated = dated or table[columns["time"].name].cast(polars.Float64, strict=False).null_count() > 0
        latest = values["time"][-1]
        for role, series in values.items():
            if role == "agent":
                codes = (agents.setdefault(name, len(agents)) for name in series)
                parts[role].append(np.fromiter(codes, np.int64, len(series)))
            else:
                parts[role].append(series.to_numpy())
    if not parts["time"]:
        raise TraceError(f"{path}: the log has a header but no requests; it has one on each line after that")
    columns_of = {role: np.concatenate(arrays) for role, arrays in parts.items()}
    unit_s, notes = _unit(form, header, columns_of["time"], None if dated else time_unit)
    unread = [name for name in header if name not in names]
    if unread:
        notes = (*notes, f"columns that are not read: {shortened(', '.join(unread), 200)}")
    return _log(path, form, columns_of, agents, unit_s, notes)


def _unit(
    form: Format, header: list[str], time: AnyArray, asked: TimeUnit | None
) -> tuple[float, tuple[str, ...]]:
    """The unit of a log's times [s], and what was decided about it.

    Times that the format has in milliseconds are seconds where they have fractions, where another
    column says so, or where they would mean more requests a second than any service gets. Times in
    seconds are milliseconds where they would lie thousands of years ahead.
    """
    if asked is not None and form.unit_s >= 1e-3:
        return UNITS_S[asked], (f"times are read as {asked}, as asked",)
    if form.unit_s == UNITS_S["s"] and time[0] >= TOO_LATE_S:
        return UNITS_S["ms"], (
            "times are read as milliseconds, because as seconds they would lie after the year 5000; "
            "--time-unit s overrules this",
        )
    if form.unit_s != UNITS_S["ms"]:
        return form.unit_s, ()
    reasons = [f"it has the key {name!r}" for name in form.in_seconds if name in header]
    if (time != np.floor(time)).any():
        reasons.append("they have fractions")
    span_s = float(time[-1] - time[0]) * form.unit_s
    if len(time) > PLAUSIBLE_RPS * span_s > 0:
        reasons.append(f"as milliseconds they would be {len(time) / span_s:,.0f} requests/s")
    if not reasons:
        return form.unit_s, ()
    return 1.0, (f"times are read as seconds, because {reasons[0]}; --time-unit ms overrules this",)


def _recognise(first: Block) -> tuple[Format, list[str]]:
    """The format of a log with this first line, and the names of the columns that it has."""
    layout = JSON_LINES if first.text.lstrip().startswith(b"{") else CSV
    header = layout.header(first)
    candidates = {name: form for name, form in FORMATS.items() if form.layout == layout}
    fitting = [form for form in candidates.values() if set(form.required) <= set(header)]
    if fitting:
        form = max(fitting, key=lambda form: len(form.required))
        refuse_repeated(first, header, (column.name for column in form.columns.values()))
        return form, header
    like = {name: form for name, form in candidates.items() if set(form.required) & set(header)}
    problem = "the format is not known; the formats of logs are"
    if like:
        nearest = max(like.values(), key=lambda form: len(set(form.required) & set(header)))
        missing = next(name for name in nearest.required if name not in header)
        noun = "column" if layout is CSV else "key"
        problem = f"no {noun} {missing!r}; the formats with such names are"
    known = "; ".join(f"{name}: {_described(form)}" for name, form in (like or FORMATS).items())
    shown = "".join(letter if letter.isprintable() else "�" for letter in shortened(", ".join(header), 200))
    raise first.error(0, f": {problem} {known}; this file has {shown}")


def _described(form: Format) -> str:
    names = [column.name + ("" if column.required else " (optional)") for column in form.columns.values()]
    return f"{form.layout.description} {', '.join(names)}"


def _check(
    lines: Block,
    table: polars.DataFrame,
    columns: dict[str, Column],
    values: dict[str, polars.Series],
    latest: float | None,
    remedy: str,
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
        faults.append((row, columns["time"].name, f"no earlier than the line before; {remedy}"))
    if faults:
        row, name, expected = min(faults, key=lambda fault: fault[0])
        text = shortened(table[name][row] or "")
        raise lines.error(row, f", field {name}: {text!r} should be {expected}")


def _log(
    path: Path,
    form: Format,
    values: dict[str, AnyArray],
    agents: dict[str, int],
    unit_s: float,
    notes: tuple[str, ...],
) -> Log:
    time = values["time"]
    if len(time) < 2 or time[0] == time[-1]:
        raise TraceError(f"{path}: {len(time)} requests at one moment; a log needs a span of time")
    time_s, quantum_s = (time - time[0]) * unit_s, 0.0
    longest = int(np.argmax(np.diff(time_s)))
    pause_s = time_s[longest + 1] - time_s[longest]
    if pause_s > LONGEST_PAUSE_S:
        line = longest + 2 + form.layout.has_header
        raise TraceError(
            f"{path}, line {line}, field {form.columns['time'].name}: {pause_s / 86400:,.0f} days after the "
            "line before, longer than a log pauses; delete what does not belong to it, or give the unit of "
            "its times"
        )
    if not np.diff(time).all():
        quantum_s, odd = clock(time_s)
        time_s = spread(time_s, quantum_s)
        if len(odd):
            lines = ", ".join(str(row + 1 + form.layout.has_header) for row in odd[:3])
            more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
            notes = (*notes, f"stamps are multiples of {quantum_s:g} s but for those of lines {lines}{more}")
    if "prompt" in values:
        tokens = (values["prompt"] + values.get("output", 0)).astype(np.float64)
        work = tokens / tokens.mean() if tokens.any() else np.ones(len(tokens))
    else:
        work = values.get("work", np.ones(len(time)))
        if not work.any():
            raise TraceError(f"{path}, field work: 0 in every line; no load can be made of it")
    return Log(
        path,
        time_s,
        work,
        prompt_tokens=values.get("prompt"),
        output_tokens=values.get("output"),
        agent=values.get("agent"),
        agent_names=tuple(agents),
        quantum_s=quantum_s,
        notes=notes,
        first_line=1 + form.layout.has_header,
    )
