"""Work shared among processes of this machine, or among the machines of a Ray cluster."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

from gpualloc_env.doors import needed
from gpualloc_env.extensions import import_extensions

Task = TypeVar("Task")
Result = TypeVar("Result")
Workers = int | str | None
"""Processes of this machine, none for one on each core; or the address of a Ray cluster."""

# joblib keeps one pool of processes, and two threads that want it in different sizes can wait forever.
_POOL = Lock()
_CORES: ContextVar[int] = ContextVar("cores", default=-1)  # what no number of workers means; -1: all


@contextmanager
def at_most(workers: int | None) -> Iterator[None]:
    """Within it no number of workers means so many; none changes nothing."""
    token = _CORES.set(_CORES.get() if workers is None else workers)
    try:
        yield
    finally:
        _CORES.reset(token)


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
        workers: who computes; 1 is this process, and none is as many as `at_most` allows.
        progress: called with the number of results after each of them; what it raises ends all.

    Raises:
        ValueError: no Ray cluster answers, or it has no CPU.
        NotInstalled: of the extra `ray`.
    """
    if isinstance(workers, str):
        return _on_ray(function, tasks, workers, progress)
    # Only what is shared among processes needs joblib.
    from joblib import Parallel, delayed

    workers = _CORES.get() if workers is None else workers
    here = workers == 1 or len(tasks) == 1
    work = [delayed(_call)(function, task) for task in tasks]
    pool = Parallel(n_jobs=1 if here else workers, return_as="generator")
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


def _on_ray(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    address: str,
    progress: Callable[[int], None] | None,
) -> list[Result]:
    """Results of a function for each task, each on one CPU of a Ray cluster, which waits for a free one.

    Not through Ray's joblib backend: its workers ask for no CPU, so that they may crowd one machine, are
    started anew for every call, and tell nothing before all is done.
    """
    ray = connect(address)
    call = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_call_alone)
    shared = ray.put(function)
    waiting = results = [call.remote(shared, task) for task in tasks]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
            if progress is not None:
                progress(len(tasks) - len(waiting))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for result in waiting:
            ray.cancel(result, force=True)
    return ray.get(results)


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    # The process may be a new one.
    import_extensions()
    return function(task)


def _call_alone(function: Callable[[Task], Result], task: Task) -> Result:
    # Ray has promised one CPU.
    with at_most(1):
        return _call(function, task)


def connect(address: str) -> Any:
    """Become a driver of a Ray cluster, unless this process is one, and return Ray.

    Args:
        address: as `ray start` says it, or `local` to start one on this machine.

    Raises:
        ValueError: none answers there, or it has no CPU.
        NotInstalled: of the extra `ray`.
    """
    ray: Any = needed("ray", "ray")
    try:
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r}: start one with `ray start --head` and give the address "
            "that it prints, or 'local'"
        ) from error
    if ray.cluster_resources().get("CPU", 0) < 1:
        raise ValueError(f"the Ray cluster at {address!r} has no CPU: add a machine by `ray start`")
    return ray
