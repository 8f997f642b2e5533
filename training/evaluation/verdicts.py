"""Who wins: paired differences, corrected for the number of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import trim_mean

from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import Kind, label
from training.evaluation.statistics import Estimate, corrected, interval

Verdict = Literal["wins", "ties", "loses"]
ONE_EPISODE = "one episode says nothing of chance: every verdict on it is a tie"


@dataclass(frozen=True)
class Entry:
    """What one policy did on the episodes of one scenario."""

    name: str
    kind: Kind
    objective: Array
    """J of each training seed and episode, (S, E); S is 1 for a policy that was not trained."""
    metrics: dict[str, float]
    """Mean of every metric over training seeds and episodes."""

    @property
    def label(self) -> str:
        """Its name wherever a person reads it."""
        return label(self.name, self.kind, len(self.objective))

    @property
    def mean(self) -> float:
        """Mean J."""
        return float(self.objective.mean())

    @property
    def interquartile_mean(self) -> float:
        """Mean J of the middle half of the training seeds, each by its mean over the episodes."""
        return float(trim_mean(self.objective.mean(axis=1), 0.25))


def difference(objective: Array, reference: Array, comparisons: int = 1, *, varies: bool = True) -> Estimate:
    """J − J of a reference on the same episodes, with the interval by which verdicts are given.

    Args:
        objective: J of the policy, (S, E).
        reference: J of the other one, (S, E) with as many training seeds or others; their mean counts.
        comparisons: how many comparisons are made in all; the level is corrected for them.
        varies: whether episodes differ by chance.
    """
    shift = reference if len(reference) == 1 else reference.mean(axis=0)
    return interval(objective - shift, corrected(comparisons), varies=varies, unseen=True)


def verdict(
    entry: Entry, reference: Entry, comparisons: int, *, varies: bool = True
) -> tuple[Verdict, Estimate]:
    """Whether a policy has a lower J than another on the same episodes, and by how much.

    The interval of the paired difference excludes zero at the level that leaves, by Bonferroni's
    inequality, a chance of 5 % that any of so many comparisons names a winner where there is none.
    One episode has no interval: the two tie, unless all episodes are alike.

    Args:
        entry: the policy.
        reference: the other policy, one training seed or as many as the first.
        comparisons: how many comparisons are made in all.
        varies: whether episodes differ by chance.

    Returns:
        The verdict, and J − J of the reference with the interval at that level.
    """
    apart = difference(entry.objective, reference.objective, comparisons, varies=varies)
    rounding = 1e-12 * abs(reference.mean)
    if apart.high < -rounding:
        return "wins", apart
    return ("loses" if apart.low > rounding else "ties"), apart


def headroom_closed(objective: float, adaptive: float, bound: float) -> float:
    """(J_adaptive − J) / (J_adaptive − J_bound); NaN where Algorithm 1 leaves nothing to gain."""
    room = adaptive - bound
    return (adaptive - objective) / room if room > 1e-9 * abs(adaptive) else float(np.nan)


def best_online(entries: Sequence[Entry]) -> Entry:
    """The policy of kind `online` with the lowest mean J, the first of equals."""
    return min((entry for entry in entries if entry.kind == "online"), key=lambda entry: entry.mean)
