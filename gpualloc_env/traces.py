"""Request logs: reading them, spreading them over the agents, cutting them into episodes."""

import csv
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from gpualloc_env.agents import Model
from gpualloc_env.state import AnyArray, Array

Split = Literal["train", "eval", "all"]
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceError(ValueError):
    """A request log that cannot be used; the message names file, line, field and remedy."""


class Trace(Model):
    """Traffic replayed from a request log.

    Every request visits the first agent, the coordinator, and one specialist: the agents after
    the first, in their order, take equal parts of the requests from the shortest prompts to the
    longest. Time is stretched until the load is the one asked for; no request is dropped.
    """

    path: Path | None = None
    """The log; none is a scenario that waits for one."""
    load: Annotated[float, Field(gt=0, le=10)] = 0.8
    """ρ = Σ λ̄_i/T_i / G over the whole log."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The last part of the windows, kept for evaluation."""
    split: Split = "train"
    """Which windows are played: `train`, the later `eval` ones, or `all`."""


@dataclass(frozen=True, slots=True)
class Log:
    """The requests of one log in the order of their arrival."""

    path: Path
    time_s: Array  # (n,) [s] since the first request
    prompt_tokens: AnyArray  # (n,)
    output_tokens: AnyArray  # (n,)

    @property
    def work(self) -> Array:
        """Work of each request as a multiple of the mean request's, by its tokens, (n,)."""
        tokens = (self.prompt_tokens + self.output_tokens).astype(np.float64)
        return tokens / tokens.mean() if tokens.any() else np.ones(len(tokens))

    @property
    def span_s(self) -> float:
        """Time that the log covers [s]: n gaps of the mean length, the one after the last included."""
        gaps = len(self.time_s) - 1
        return float(self.time_s[-1]) * (gaps + 1) / gaps


@dataclass(frozen=True, slots=True)
class Windows:
    """A log cut into episodes."""

    arrivals: Array  # (W, T + 1, N) [requests]; the last row feeds only the final observation
    accounting: str  # where every request of the log went


def read_log(path: Path) -> Log:
    """Read an Azure LLM inference CSV: TIMESTAMP, ContextTokens, GeneratedTokens.

    Raises:
        TraceError: the file is missing, empty, truncated, of another format, out of order, or
            has a bad field; the message names the line and the field.
    """
    import polars

    if not path.is_file():
        raise TraceError(f"{path}: no such file; give the path of a request log")
    try:
        table = polars.read_csv(path, infer_schema=False)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise TraceError(_first_ragged_line(path) or f"{path}: cannot be read as CSV: {error}") from None
    missing = [column for column in AZURE_COLUMNS if column not in table.columns]
    if missing:
        raise TraceError(
            f"{path}, line 1: no column {missing[0]!r}; an Azure log has the columns "
            f"{', '.join(AZURE_COLUMNS)}, this file has {', '.join(table.columns)}"
        )
    stamp, *tokens = AZURE_COLUMNS
    # The logs of 2024 name their offset from UTC, always zero; those of 2023 do not.
    time = (
        table[stamp]
        .str.strip_suffix("+00:00")
        .str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    )
    _check(path, stamp, table[stamp], ~time.is_null().to_numpy(), "a time like 2023-11-16 18:17:03.97996")
    counts: list[AnyArray] = []
    for column in tokens:
        count = table[column].str.strip_chars().cast(polars.Int64, strict=False)
        good = (count.fill_null(-1) >= 0).to_numpy()
        _check(path, column, table[column], good, "a number of tokens, 0 or more")
        counts.append(count.to_numpy())
    nanoseconds = time.to_numpy().astype(np.int64)
    if len(nanoseconds) < 2 or nanoseconds[0] == nanoseconds[-1]:
        raise TraceError(f"{path}: {len(nanoseconds)} requests at one moment; a log needs a span of time")
    in_order = np.concatenate([[True], np.diff(nanoseconds) >= 0])
    _check(path, stamp, table[stamp], in_order, "no earlier than the line before; sort the log by time")
    return Log(path, (nanoseconds - nanoseconds[0]) * 1e-9, *counts)


def _check(path: Path, column: str, texts: "object", good: AnyArray, expected: str) -> None:
    bad = np.flatnonzero(~good)
    if bad.size:
        text = texts[int(bad[0])] or ""  # pyright: ignore
        raise TraceError(f"{path}, line {bad[0] + 2}, field {column}: {text!r} should be {expected}")


def _first_ragged_line(path: Path) -> str | None:
    """Name the first line with too many or too few fields, which the fast reader does not."""
    line = 0
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        read = gzip.open if packed else open
        with read(path, "rt", newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.reader(file)
            header = next(rows, None)
            if header is None:
                return f"{path}: the file is empty; a log has a header and one request per line"
            for row in rows:
                line = rows.line_num
                if any("\ufffd" in field for field in row):
                    return f"{path}, line {line}: bytes that are not UTF-8 text"
                if row and len(row) != len(header):
                    return f"{path}, line {line}: {len(row)} fields where the header has {len(header)}"
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"{path}: the gzip file is truncated or damaged ({error}); fetch it again"
    except csv.Error as error:
        return f"{path}, line {line + 1}: cannot be read as CSV text: {error}"
    return None


def cut(
    log: Log,
    trace: Trace,
    steps: int,
    dt: float,
    agents: int,
    gpu_seconds: Callable[[Array], float],
) -> Windows:
    """Cut a log into windows of `steps` × `dt` seconds after stretching it to the asked load.

    Args:
        log: the requests.
        trace: load and split.
        steps: steps of a window.
        dt: length of a step [s].
        agents: number of agents N.
        gpu_seconds: GPU time that work of (N,) requests, sent from outside, takes in all, as a
            multiple of the platform's capacity per second: Σ_i λ_i/T_i / G, routed visits included.

    Raises:
        TraceError: the log is too short for the windows that the split needs.
    """
    work = log.work
    specialist = np.zeros(len(work), dtype=np.int64)
    if agents > 1:
        rank = np.argsort(np.argsort(log.prompt_tokens, kind="stable"), kind="stable")
        specialist = 1 + rank * (agents - 1) // len(work)
    visits: Array = np.bincount(specialist, weights=work, minlength=agents).astype(np.float64)
    if agents > 1:
        visits[0] = work.sum()
    span = gpu_seconds(visits) / trace.load
    position = (log.time_s * (span / log.span_s) / dt).astype(np.int64)

    windows = int(span / (steps * dt))
    training = windows - int(np.ceil(windows * trace.eval_fraction))
    first, last = {"train": (0, training), "eval": (training, windows), "all": (0, windows)}[trace.split]
    if last == first:
        raise TraceError(
            f"{log.path}: at load {trace.load:g} the log lasts {span:.1f} s, {windows} windows of "
            f"{steps * dt:g} s, none of them for split {trace.split!r}; ask for fewer steps"
        )
    rows = windows * steps
    inside = position < rows
    counts = np.zeros((rows + 1, agents))
    np.add.at(counts, (position[inside], specialist[inside]), work[inside])
    if agents > 1:
        np.add.at(counts[:, 0], position[inside], work[inside])
    arrivals = np.stack([counts[w * steps : (w + 1) * steps + 1] for w in range(first, last)])
    # What follows the last window belongs to the other split.
    arrivals[-1, -1] = 0.0
    boundary = training * steps
    accounting = (
        f"{len(work)} requests over {log.span_s:.0f} s, stretched to {span:.1f} s for load {trace.load:g}: "
        f"{np.sum(position < boundary)} in {training} training windows, "
        f"{np.sum(inside & (position >= boundary))} in {windows - training} evaluation windows, "
        f"{np.sum(~inside)} in the remainder of {span - rows * dt:.1f} s"
    )
    return Windows(arrivals, accounting)
