"""Episodes shared among processes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None,
    progress: Callable[[int], None] | None,
) -> list[Result]:
    """Results of a function for each task, in the order of the tasks for any number of processes.

    Args:
        function: what to compute; other processes must be able to import it.
        tasks: what to compute it for.
        workers: processes; 1 computes in this one, none means one for each core.
        progress: called with the number of results after each of them.
    """

    def collected(stream: Iterable[Result]) -> list[Result]:
        results: list[Result] = []
        for result in stream:
            results.append(result)
            if progress is not None:
                progress(len(results))
        return results

    if workers == 1 or len(tasks) == 1:
        return collected(map(function, tasks))
    # A fork would copy the threads of a batch as dead ones.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return collected(pool.map(function, tasks))
