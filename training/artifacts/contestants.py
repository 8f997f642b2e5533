"""Policies that play the same held-out episodes, here or on another machine."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from rich.progress import Progress

from baselines import PRIVILEGED, Policy
from baselines.bounds import needs_one_pool
from baselines.processes import Workers, in_processes
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.policies import kind_of, load_policies, policy_of
from training.evaluation.evaluate import Evaluation, evaluate, joined


class Contestant(NamedTuple):
    """A policy that plays a scenario."""

    name: str
    given: str  # what it was asked for as
    runs: list[Policy] | None  # of each training seed; None where it is made as the episodes are played

    @classmethod
    def of(cls, name: str, given: str, scenario: Scenario) -> "Contestant":
        """Load it, so that a mistake costs no time.

        Raises:
            AgentsError: it was trained for other agents.
            FutureError: it knows the future, and the scenario is a cluster.
        """
        if given in PRIVILEGED:
            needs_one_pool(scenario)
            return cls(name, given, None)
        return cls(name, given, load_policies(given, scenario))


def evaluation_of(scenario: Scenario, episodes: int, seed: int, contestant: Contestant) -> Evaluation:
    """What a contestant does in the episodes, the first seeded `seed`; the mean of its training seeds."""
    name, given, runs = contestant
    kind = kind_of(given)
    if runs is None:
        runs = [policy_of(given, scenario, episodes, seed)]
    return joined(name, (evaluate(name, run, scenario, episodes, seed, kind=kind) for run in runs))


def evaluations_of(
    scenario: Scenario,
    episodes: int,
    seed: int,
    contestants: Sequence[Contestant],
    workers: Workers,
    progress: Progress,
) -> list[Evaluation]:
    """What each contestant does in the same episodes, with a bar that says who plays."""
    task = progress.add_task(scenario.name, total=len(contestants))

    def advance(done: int) -> None:
        playing = f": {contestants[done].name}" if done < len(contestants) else ""
        progress.update(task, description=f"{scenario.name}{playing}", completed=done)

    play = partial(evaluation_of, scenario, episodes, seed)
    return in_processes(play, contestants, workers, advance)
