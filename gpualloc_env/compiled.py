"""`compiled`: numba's nopython compiler with an on-disk cache that follows the whole package."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


_PACKAGE = sorted(Path(__file__).parent.glob("*.py"))


def _stamp(function: Callable[..., object]) -> tuple[tuple[str, float, int], ...]:
    """What the cache of a function depends on: the modules of the package and its own file."""
    sources = [*_PACKAGE, Path(function.__code__.co_filename)]
    return tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in sources)


def compiled(function: Function) -> Function:
    """Compile a function at its first call and keep the machine code beside its source.

    Numba drops a cached function when its own file changes, not when a function that it
    calls does. The kernels here call each other across modules, so the stamp of the cache
    covers every module of the package, and the function's own file where that lies elsewhere.

    A compiled function must not allocate: without numba's runtime no reference to an array is
    counted, which would otherwise cost more than the arithmetic of a step. It runs without the
    interpreter's lock, so that threads can share a batch.
    """
    dispatcher = njit(cache=True, error_model="numpy", forceinline=True, nogil=True, _nrt=False)(function)  # pyright: ignore
    dispatcher._cache._cache_file._source_stamp = _stamp(function)  # pyright: ignore
    return dispatcher  # pyright: ignore
