"""`compiled`: numba's nopython compiler with an on-disk cache that follows the whole package."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def _package_stamp() -> tuple[tuple[str, float, int], ...]:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((path.name, path.stat().st_mtime, path.stat().st_size) for path in sources)


_STAMP = _package_stamp()


def compiled(function: Function) -> Function:
    """Compile a function at its first call and keep the machine code beside its source.

    Numba drops a cached function when its own file changes, not when a function that it
    calls does. The kernels here call each other across modules, so the stamp of the cache
    covers every module of the package.

    A compiled function must not allocate: without numba's runtime no reference to an array is
    counted, which would otherwise cost more than the arithmetic of a step. It runs without the
    interpreter's lock, so that threads can share a batch.
    """
    dispatcher = njit(cache=True, error_model="numpy", forceinline=True, nogil=True, _nrt=False)(function)  # pyright: ignore
    dispatcher._cache._cache_file._source_stamp = _STAMP  # pyright: ignore
    return dispatcher  # pyright: ignore
