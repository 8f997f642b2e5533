"""What Algorithm 1 leaves to gain: bounds of J, computed beside the episodes, and how much of it is taken."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import numpy as np
from rich.progress import Progress

from baselines import algorithm_1_of, lower_bounds
from baselines.processes import Workers
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import Evaluation
from training.evaluation.verdicts import headroom_closed


@contextmanager
def bounds_meanwhile(
    contests: Mapping[str, tuple[Scenario, int]], seed: int, workers: Workers, progress: Progress
) -> Iterator[dict[str, Future[Array]]]:
    """Bounds of each scenario's episodes, computed by processes while policies play in this one.

    Args:
        contests: scenarios by their names, and how many episodes of each.
        seed: of the first episode.
        workers: who computes, as in `lower_bounds`.
        progress: where a bar is shown for each scenario.
    """
    over = Event()

    def bounds(scenario: Scenario, episodes: int) -> Array:
        task = progress.add_task(f"{scenario.name}: bound", total=episodes)

        def advance(done: int) -> None:
            if over.is_set():
                raise CancelledError
            progress.update(task, completed=done)

        found = lower_bounds(scenario, episodes, seed, workers=workers, progress=advance)
        progress.update(task, completed=episodes)
        return found

    thread = ThreadPoolExecutor(1)
    futures = {name: thread.submit(bounds, *contest) for name, contest in contests.items()}
    try:
        yield futures
    finally:
        # Where something has failed nobody waits for the rest.
        over.set()
        thread.shutdown(wait=False, cancel_futures=True)


def headrooms(bounds: Array, played: Mapping[str, Array], algorithm_1: str) -> dict[str, float]:
    """The part that each policy closes of the headroom between Algorithm 1 and the bound.

    Args:
        bounds: of the episodes, (E,).
        played: J of each training seed and episode, (S, E), by policy.
        algorithm_1: the name of the paper's allocator among them.

    Returns:
        By policy; NaN where Algorithm 1 leaves nothing to gain, or does not play.

    Raises:
        ValueError: an episode in which a policy has a lower J than the bound, which is then none.
    """
    for name, objective in played.items():
        under = np.argwhere(objective < bounds - 1e-9 * (1 + abs(bounds)))
        if under.size:
            run, episode = under[0].tolist()
            raise ValueError(
                f"{name} has J = {objective[run, episode]!r} in episode {episode}, below the "
                f"bound {bounds[episode]!r}: please report this scenario and seed"
            )
    adaptive = float(played[algorithm_1].mean()) if algorithm_1 in played else np.nan
    bound = float(bounds.mean())
    return {name: headroom_closed(float(each.mean()), adaptive, bound) for name, each in played.items()}


def with_headroom(evaluations: Sequence[Evaluation], bounds: Array) -> list[Evaluation]:
    """The evaluations, with the mean bound of their episodes, (E,), and the headroom that each closes."""
    algorithm_1 = algorithm_1_of(evaluations[0].scenario)
    closed = headrooms(bounds, {each.policy: each.by_seed for each in evaluations}, algorithm_1)
    bound = float(bounds.mean())
    return [replace(each, bound=bound, headroom_closed=closed[each.policy]) for each in evaluations]
