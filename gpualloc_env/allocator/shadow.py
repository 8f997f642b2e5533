"""`Shadow`: what an allocator would have done beside a live one, as JSON lines."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from pathlib import Path
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from gpualloc_env.allocator.file import in_order
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array

_LOG = logging.getLogger(__name__)


class _Decider(Protocol):
    @property
    def agents(self) -> Sequence[str]: ...

    @property
    def last(self) -> tuple[str, str] | None: ...

    def __call__(self, observation: AnyArray) -> Array: ...

    def decide(self, view: View | Mapping[str, Any]) -> Array: ...


class _Lines(WatchedFileHandler):
    """Appends lines to a file, which another program may move or delete meanwhile."""

    def __init__(self, path: Path, report: Callable[[BaseException | None], None]) -> None:
        super().__init__(path, encoding="utf-8")
        self._report = report

    def handleError(self, record: logging.LogRecord) -> None:
        """Count what goes wrong, such as a full disk, in place of printing it."""
        self._report(sys.exc_info()[1])


class Shadow:
    """Log an allocator's decisions beside those that were taken, one JSON object a line.

    `time` (UTC), `shares` (its own), `live`, `distance` = Σ |shares − live| (of a batch the mean
    over its rows), `latency_us` of its decision, and `fallback`, the reason where its network did
    not decide. A call returns nothing and raises nothing, nor does closing: what goes wrong is counted
    in `errors`, logged as a warning the first time, and, where the file can still be written, stands in a
    line of its own as `error`. Threads can share it, and the file can be rotated.
    """

    def __init__(self, allocator: _Decider, path: str | Path) -> None:
        """Open the log, to which lines are appended.

        Raises:
            OSError: it cannot be written. Only a call is on the live path.
        """
        self.errors = 0
        self._allocator = allocator
        self._lock = Lock()
        self._lines: _Lines | None = _Lines(Path(path), self._count)

    def __call__(
        self, state: View | Mapping[str, Any] | AnyArray, live: AnyArray | Mapping[str, float]
    ) -> None:
        """Log one decision.

        Args:
            state: what the live allocator saw: a view, a mapping of its fields, or an observation.
            live: the fractions of the platform that it gave, (N,) or (B, N), or a mapping by the agents'
                names.
        """
        try:
            self._write(self._line(state, live))
        except Exception as error:
            self._report(error)

    def _line(
        self, state: View | Mapping[str, Any] | AnyArray, live: AnyArray | Mapping[str, float]
    ) -> dict[str, Any]:
        raw = isinstance(state, View | Mapping)
        start = perf_counter()
        shares = self._allocator.decide(state) if raw else self._allocator(state)
        latency = perf_counter() - start
        taken = np.asarray(in_order("live", live, self._allocator.agents), dtype=np.float64)
        if taken.shape != shares.shape:
            raise ValueError(f"the live shares have shape {taken.shape}, its own {shares.shape}")
        if not np.isfinite(taken).all():
            raise ValueError("the live shares are not finite")
        fallback = self._allocator.last
        return {
            "shares": shares.tolist(),
            "live": taken.tolist(),
            "distance": float(np.abs(shares - taken).sum(axis=-1).mean()),
            "latency_us": round(1e6 * latency, 1),
            "fallback": None if fallback is None else dict(zip(("reason", "by"), fallback, strict=True)),
        }

    def _write(self, line: dict[str, Any]) -> None:
        if self._lines is None:
            raise ValueError("the log is closed")
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        text = json.dumps({"time": now, **line}, allow_nan=False)
        self._lines.handle(logging.LogRecord("shadow", logging.INFO, "", 0, text, None, None))

    def _report(self, error: Exception) -> None:
        self._count(error)
        try:
            self._write({"error": f"{type(error).__name__}: {error}"})
        except Exception:
            # The log itself is gone, and the live path must not notice.
            return

    def _count(self, error: BaseException | None) -> None:
        with self._lock:
            self.errors += 1
            first = self.errors == 1
        if first:
            _LOG.warning("shadow: %s; the next errors are only counted, in Shadow.errors", error)

    def close(self) -> None:
        """Close the log; calls after this are counted as errors."""
        lines, self._lines = self._lines, None
        try:
            if lines is not None:
                lines.close()
        except Exception as error:
            self._count(error)

    def __enter__(self) -> "Shadow":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
