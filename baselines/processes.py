"""Work shared among processes of this machine, or among the machines of a Ray cluster."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any, TypeVar

from gpualloc_env.doors import needed

Task = TypeVar("Task")
Result = TypeVar("Result")
Workers = int | str | None
"""Processes of this machine, none for one on each core; or the address of a Ray cluster."""

# joblib keeps one pool of processes, and two threads that want it in different sizes can wait forever.
_POOL = Lock()


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: Workers,
    progress: Callable[[int], None] | None,
) -> list[Result]:
    """Results of a function for each task, in the order of the tasks for any number of processes.

    Args:
        function: what to compute.
        tasks: what to compute it for.
        workers: who computes; 1 is this process.
        progress: called with the number of results after each of them, of a cluster after all; what it
            raises ends all.

    Raises:
        ValueError: no Ray cluster answers.
        NotInstalled: of the extra `ray`.
    """
    # Only what is shared among processes needs joblib.
    from joblib import Parallel, delayed

    here = workers == 1 or len(tasks) == 1
    work = [delayed(function)(task) for task in tasks]
    if isinstance(workers, str):
        connect(workers)
        with _POOL:
            everything: Any = Parallel(n_jobs=-1, backend="ray")(work)
        if progress is not None:
            progress(len(tasks))
        return everything
    pool = Parallel(n_jobs=1 if here else -1 if workers is None else workers, return_as="generator")
    results: list[Result] = []
    with nullcontext() if here else _POOL:
        stream: Any = pool(work)
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


def connect(address: str) -> None:
    """Become a driver of a Ray cluster, unless this process is one, and let joblib know of it.

    Args:
        address: as `ray start` says it, or `local` to start one on this machine.

    Raises:
        ValueError: none answers there.
        NotInstalled: of the extra `ray`.
    """
    ray: Any = needed("ray", "ray")
    needed("ray.util.joblib", "ray").register_ray()
    if ray.is_initialized():
        return
    try:
        ray.init(address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r}: start one with `ray start --head` and give the address "
            "that it prints, or 'local'"
        ) from error
