"""Episodes shared among processes."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# joblib keeps one pool of processes, and two threads that want it in different sizes can wait forever.
_POOL = Lock()


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None,
    progress: Callable[[int], None] | None,
) -> list[Result]:
    """Results of a function for each task, in the order of the tasks for any number of processes.

    Args:
        function: what to compute.
        tasks: what to compute it for.
        workers: processes; 1 computes in this one, none means one for each core.
        progress: called with the number of results after each of them; what it raises ends all.
    """
    # Only the bound and the clairvoyant search need joblib.
    from joblib import Parallel, delayed

    here = workers == 1 or len(tasks) == 1
    pool = Parallel(n_jobs=1 if here else -1 if workers is None else workers, return_as="generator")
    results: list[Result] = []
    with nullcontext() if here else _POOL:
        stream: Any = pool(delayed(function)(task) for task in tasks)
        try:
            for result in stream:
                results.append(result)
                if progress is not None:
                    progress(len(results))
        except BaseException:
            with warnings.catch_warnings():
                # That the other tasks are given up is what was asked for.
                warnings.simplefilter("ignore")
                stream.close()
            raise
    return results
