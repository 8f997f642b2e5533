"""`compiled`: numba's nopython compiler with an on-disk cache that follows whole packages."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


@lru_cache
def _stamp(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """What changes when a module of this package or of another folder does."""
    sources = sorted({*Path(__file__).parent.glob("*.py"), *folder.glob("*.py")})
    return tuple((str(path), path.stat().st_mtime, path.stat().st_size) for path in sources)


def compiled(function: Function) -> Function:
    """Compile a function at its first call and keep the machine code beside its source.

    Numba drops a cached function when its own file changes, not when a function that it
    calls does. The kernels here call each other across modules, so the stamp of the cache
    covers every module of this package and of the function's own folder.

    A compiled function must not allocate: without numba's runtime no reference to an array is
    counted, which would otherwise cost more than the arithmetic of a step. It runs without the
    interpreter's lock, so that threads can share a batch.
    """
    dispatcher = njit(cache=True, error_model="numpy", forceinline=True, nogil=True, _nrt=False)(function)  # pyright: ignore
    dispatcher._cache._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename).parent)  # pyright: ignore
    return dispatcher  # pyright: ignore
