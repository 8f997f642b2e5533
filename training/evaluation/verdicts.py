"""Who wins: intervals over episodes and training seeds, paired differences, and their correction."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from scipy.stats import bootstrap, norm, trim_mean

from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import Kind
from training.reporting.report import Estimate

Verdict = Literal["wins", "ties", "loses"]
LEVEL = 0.95
RESAMPLES = 20_000
POWER = 0.8


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
    def mean(self) -> float:
        """Mean J."""
        return float(self.objective.mean())

    @property
    def interquartile_mean(self) -> float:
        """Mean J of the middle half of the training seeds, each by its mean over the episodes."""
        return float(trim_mean(self.objective.mean(axis=1), 0.25))


def interval(values: Array, level: float = LEVEL) -> Estimate:
    """Mean of (S, E) values and its bootstrap interval, the same for the same values at every call.

    One training seed: BCa over the episodes. Several: percentiles of the mean after drawing
    training seeds and episodes anew, each with replacement, so that both kinds of chance count;
    every training seed met the same episodes.
    """
    mean = float(values.mean())
    # Rounding alone makes equal values differ; there BCa divides by a variance of zero.
    if np.ptp(values) <= 1e-12 * abs(mean):
        return Estimate(mean, mean, mean)
    generator = np.random.default_rng(0)
    if len(values) == 1:
        result = bootstrap(
            (values[0],),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=level,
            method="BCa",
            rng=generator,
            batch=2000,
        )
        return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))
    seeds, episodes = values.shape
    seed_counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    episode_counts = generator.multinomial(episodes, np.full(episodes, 1 / episodes), RESAMPLES)
    means = ((seed_counts @ values) * episode_counts).sum(axis=1) / values.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high))


def verdict(entry: Entry, reference: Entry, comparisons: int) -> tuple[Verdict, Estimate]:
    """Whether a policy has a lower J than another on the same episodes, and by how much.

    The paired difference excludes zero at the level that leaves, by Bonferroni's inequality, a
    chance of 5 % that any of so many comparisons names a winner where there is none.

    Args:
        entry: the policy.
        reference: the other policy, one training seed or as many as the first.
        comparisons: how many comparisons are made in all.

    Returns:
        The verdict, and J − J of the reference with the interval at that level.
    """
    shift = reference.objective if len(reference.objective) == 1 else reference.objective.mean(axis=0)
    difference = interval(entry.objective - shift, 1 - (1 - LEVEL) / max(1, comparisons))
    rounding = 1e-12 * abs(reference.mean)
    if difference.high < -rounding:
        return "wins", difference
    return ("loses" if difference.low > rounding else "ties"), difference


def headroom_closed(objective: float, adaptive: float, bound: float) -> float:
    """(J_adaptive − J) / (J_adaptive − J_bound); NaN where Algorithm 1 leaves nothing to gain."""
    room = adaptive - bound
    return (adaptive - objective) / room if room > 1e-9 * abs(adaptive) else float("nan")


def best_online(entries: Sequence[Entry]) -> Entry:
    """The policy of kind `online` with the lowest mean J, the first of equals."""
    return min((entry for entry in entries if entry.kind == "online"), key=lambda entry: entry.mean)


def episodes_needed(differences: Array, effect: float, comparisons: int) -> int:
    """Episodes after which a mean difference is told from zero in four cases out of five.

    n = ((z(1 − α/2) + z(power)) σ / effect)², σ of the paired differences, α shared by so many
    comparisons.

    Args:
        differences: J − J of the reference by episode, (E,).
        effect: the mean difference to be seen, not zero.
        comparisons: how many comparisons are made in all.
    """
    alpha = (1 - LEVEL) / max(1, comparisons)
    quantiles = float(norm.ppf(1 - alpha / 2) + norm.ppf(POWER))
    return max(2, ceil((quantiles * float(differences.std(ddof=1)) / abs(effect)) ** 2))
