"""numba's nopython compiler with an on-disk cache that follows whole packages: `compiled` and its kin."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from numba import njit, typeof  # pyright: ignore
from numba.core import event
from numba.extending import register_jitable

Function = TypeVar("Function", bound=Callable[..., object])

PATIENCE_S = 2.0
"""Seconds of compiling after which a message says what takes so long."""

_LOG = logging.getLogger(__name__)
# Without numba's runtime no reference to an array is counted, which would otherwise cost more than
# the arithmetic of a step. Nothing here is called from C.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, "_nrt": False}


def compiled(function: Function) -> Function:
    """Compile a function at its first call and keep the machine code beside its source.

    Numba drops a cached function when its own file changes, not when a function that it
    calls does. The kernels here call each other across modules, so the stamp of the cache
    covers every module of this package and of the function's own folder.

    A compiled function must not allocate. It runs without the interpreter's lock, so that
    threads can share a batch.
    """
    dispatcher = njit(cache=True, **_OPTIONS)(function)  # pyright: ignore
    dispatcher._cache._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename).parent)  # pyright: ignore
    return dispatcher  # pyright: ignore


def inlined(function: Function) -> Function:
    """Make a function part of every compiled function that calls it; Python cannot call it.

    What Python would need, a wrapper that unpacks the arguments and a cache of its own, takes a
    quarter of the time that compiling the simulator takes.
    """
    return njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)  # pyright: ignore


def shared(function: Function) -> Function:
    """Make a function part of every compiled function that calls it; Python calls it as it is written."""
    return register_jitable(**_OPTIONS)(function)  # pyright: ignore


def resolved(function: Function, *arguments: Any) -> Function:
    """The machine code of a compiled function for arguments of these types, and for no others.

    To call it is to skip the look at the type of each argument, which takes a microsecond for some
    twenty arrays. Arrays must be of the same type, number of axes and order in memory every time.
    """
    dispatcher: Any = function
    signature: tuple[Any, ...] = tuple(typeof(argument) for argument in arguments)  # pyright: ignore
    dispatcher.compile(signature)
    return dispatcher.get_overload(signature)


@lru_cache
def _stamp(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """What changes when a module of this package or of another folder does."""
    sources = sorted({*Path(__file__).parent.glob("*.py"), *folder.glob("*.py")})
    return tuple((str(path), path.stat().st_mtime, path.stat().st_size) for path in sources)


class _Notice(event.Listener):
    """Says once why nothing seems to happen while this package's functions are being compiled."""

    def __init__(self) -> None:
        self._nested = 0  # functions being compiled, each for the sake of the one before
        self._began = self._spent_s = 0.0
        self._said = False

    def on_start(self, event: Any) -> None:
        """Begin to compile a function: it is in no cache."""
        if not _is_ours(event):
            return
        now = perf_counter()
        if self._nested == 0:
            self._began = now
        self._nested += 1
        if not self._said and self._spent_s + now - self._began > PATIENCE_S:
            self._said = True
            _LOG.warning("compiling the simulator, once for this machine; this takes about ten seconds")

    def on_end(self, event: Any) -> None:
        """End to compile a function."""
        if not _is_ours(event):
            return
        self._nested -= 1
        if self._nested == 0:
            self._spent_s += perf_counter() - self._began


def _is_ours(compilation: Any) -> bool:
    module: str = compilation.data["dispatcher"].py_func.__module__
    return module.startswith(f"{__package__}.")


event.register("numba:compile", _Notice())  # pyright: ignore
