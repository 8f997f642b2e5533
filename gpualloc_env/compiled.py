"""numba's nopython compiler with an on-disk cache that follows whole packages: `compiled` and its kin.

All that is private to numba stands in this file: three options of its compiler, its lock, and the stamp,
the reader and the writer of its cache.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from numba import config, njit, typeof  # pyright: ignore
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock
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

    Numba drops a cached function when its own file changes, not when a function that it calls
    does. The kernels here call each other across modules, so the stamp of the cache covers every
    module of this package and of the function's own. Where no folder can be written, or a disk is
    full, functions are compiled for this process alone, with one warning.

    A compiled function must not allocate. It runs without the interpreter's lock, so that
    threads can share a batch.
    """
    dispatcher: Any = njit(**_OPTIONS)(function)  # pyright: ignore
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # numba found no folder that it can write
        _warn_uncached("no folder for it can be written")
        return dispatcher
    cache = dispatcher._cache
    cache._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename))
    cache._cache_file._load_index = _readable(cache._cache_file._load_index)
    cache.save_overload = _forgiving(cache.save_overload)
    return dispatcher


def inlined(function: Function) -> Function:
    """Make a function part of every compiled function that calls it; Python cannot call it.

    What Python would need, a wrapper that unpacks the arguments and a cache of its own, takes a
    quarter of the time that compiling the simulator takes.
    """
    return njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)  # pyright: ignore


def called(function: Function) -> Function:
    """As `inlined`, for what is long or called from many places: the compiler may make one function of it."""
    return njit(no_cpython_wrapper=True, **_OPTIONS)(function)  # pyright: ignore


def shared(function: Function) -> Function:
    """Make a function part of every compiled function that calls it; Python calls it as it is written."""
    return register_jitable(**_OPTIONS)(function)  # pyright: ignore


def resolved(function: Function, *arguments: Any) -> Function:
    """The machine code of a compiled function for arguments of these types, and for no others.

    To call it is to skip the look at the type of each argument, which takes longer than a step of
    one environment. Arrays must be of the same type, number of axes and order in memory every time.
    """
    dispatcher: Any = function
    signature: tuple[Any, ...] = tuple(typeof(argument) for argument in arguments)  # pyright: ignore
    dispatcher.compile(signature)
    return dispatcher.get_overload(signature)


def compiling() -> bool:
    """Whether this thread is in the compiler: an exception that a signal raises there may be lost."""
    return bool(global_compiler_lock.is_locked())


def _readable(load: Callable[[], dict[Any, str]]) -> Callable[[], dict[Any, str]]:
    """Read what a cache holds: nothing where that cannot be read, as with a class that is no more."""

    def load_index() -> dict[Any, str]:
        try:
            return load()
        except Exception:  # whatever an unpickler raises
            return {}

    return load_index


def _forgiving(save: Callable[..., None]) -> Callable[..., None]:
    """Write to the cache, or go on without it."""

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError as error:
            _warn_uncached(error.strerror or str(error))

    return save_overload


def _warn_uncached(reason: str) -> None:
    _warn_once(
        f"compiled code is not kept ({reason}), so every new process compiles it again; "
        "set NUMBA_CACHE_DIR to a folder that can be written"
    )


@lru_cache
def _warn_once(message: str) -> None:
    _LOG.warning("%s", message)


def _stamp(file: Path) -> tuple[tuple[str, float, int], ...]:
    """What changes when a module of this package, or of the one that holds a file, does."""
    folder = file.parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return _contents(Path(__file__).parent) + _contents(folder)


@lru_cache
def _contents(folder: Path) -> tuple[tuple[str, float, int], ...]:
    sources = sorted(folder.rglob("*.py"))
    return tuple((str(path), path.stat().st_mtime, path.stat().st_size) for path in sources)


class _Notice(event.Listener):
    """Says why nothing seems to happen while a module of this package is being compiled, once in a process.

    A process that another one has started, as those of a pool, leaves it to the first of them: what was said
    stands beside the machine code.
    """

    def __init__(self) -> None:
        self._nested = 0  # functions being compiled, each for the sake of the one before
        self._began, self._module = 0.0, ""
        self._spent_s: dict[str, float] = defaultdict(float)
        self._said = False

    def on_start(self, event: Any) -> None:
        """Begin to compile a function: it is in no cache."""
        module = _module(event)
        if module is None:
            return
        if self._nested == 0:
            self._began, self._module = perf_counter(), module
        self._nested += 1
        so_far = self._spent_s[self._module] + perf_counter() - self._began
        if so_far > PATIENCE_S and not self._said:
            self._spent_s[self._module] = -float("inf")  # said, by this process or another one
            if _first_time(self._module) or parent_process() is None:
                self._said = True
                part = "allocators" if self._module.startswith("allocator.") else "simulator"
                _LOG.warning("compiling the %s, once for this machine; this takes some seconds", part)

    def on_end(self, event: Any) -> None:
        """End to compile a function."""
        if _module(event) is None:
            return
        self._nested -= 1
        if self._nested == 0:
            self._spent_s[self._module] += perf_counter() - self._began


def _first_time(module: str) -> bool:
    """Whether no process has said yet that it compiles a module of these sources; from now on one has."""
    anchor: Any = njit(_module)  # pyright: ignore
    try:
        anchor.enable_caching()  # tells where the machine code of this package is kept
        said = Path(anchor._cache.cache_path) / f"compiling-{module}"
        sources = repr(_contents(Path(__file__).parent))
        if said.is_file() and said.read_text(encoding="utf-8") == sources:
            return False
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text(sources, encoding="utf-8")
    except (RuntimeError, OSError):  # nothing can be kept
        pass
    return True


def _module(compilation: Any) -> str | None:
    """The module of this package that a function being compiled belongs to; none where it is another's."""
    module: str = compilation.data["dispatcher"].py_func.__module__
    own = module.removeprefix(f"{__package__}.")
    return own if own != module else None


if getattr(config, "DISABLE_JIT", 0):
    # Records have no fields without the compiler.
    setattr(config, "DISABLE_JIT", 0)  # noqa: B010  numba's stub does not know its settings
    _warn_once("NUMBA_DISABLE_JIT is ignored: the simulator's kernels run compiled only")
event.register("numba:compile", _Notice())  # pyright: ignore
