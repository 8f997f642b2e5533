"""Means over episodes and training seeds, how far they can be trusted, and how many episodes that takes.

One interval serves every table, figure and verdict. Episodes' objectives are skewed: a few overloaded
episodes hold most of the mean. The interval is Student's t, made longer on the side of the long
tail by Johnson's correction ("Modified t tests and confidence intervals for asymmetrical populations",
JASA 1978). A verdict must also bear the episode that was not drawn: its interval covers the mean with one
more episode on either side, (1 + 45 / n) log α / log 0.05 times as far from the mean as the farthest
of the n drawn on that side, at the level 1 − α. So long a tail on one side does not hide what the other
shows. The factors are round ones with which resampled differences between this project's policies name
a winner where there is none no more often than promised, from 2 episodes on
(`tests/training/evaluation/test_calibration.py`). No interval can see a difference that one episode in
thousands decides.
"""

from bisect import bisect_left
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from gpualloc_env.simulation.state import Array

LEVEL = 0.95
POWER = 0.8
MOST_EPISODES = 10**9
_ROUNDING = 1e-12
"""Relative to the mean: differences as small as this between equal values are rounding."""
_UNSEEN = 45.0
"""Episodes at which the one that was not drawn counts as twice as far out as those that were, at 95 %."""


class Estimate(NamedTuple):
    """A mean and its interval.

    NaN where nothing was measured; the bounds are NaN where one sample says nothing of its spread.
    """

    mean: float
    low: float
    high: float

    def record(self, name: str = "ci95") -> dict[str, Any]:
        """As JSON holds it, the interval under a name."""
        mean, low, high = map(defined, self)
        return {"mean": mean, name: [low, high]}


def defined(value: float) -> float | None:
    """As JSON holds it: a number, or null."""
    return None if np.isnan(value) else value


def interval(
    values: ArrayLike, level: float = LEVEL, *, varies: bool = True, unseen: bool = False
) -> Estimate:
    """Mean and interval of (E,) episodes, or of (S, E) training seeds that played the same episodes.

    Episodes in which the value is NaN do not count. Several training seeds add to the interval:
    Student's t on their means with S − 1 degrees of freedom, combined with that of the episodes as
    the root of the sum of squares (Zou and Donner, "Construction of confidence limits about effect
    measures", Statistics in Medicine 2008).

    Args:
        values: (E,) or (S, E).
        level: probability that the interval covers the mean.
        varies: whether episodes differ by chance; where all are alike, one says everything.
        unseen: allow for an episode more extreme than those drawn, as verdicts do.
    """
    sample = np.asarray(values, dtype=np.float64)
    seeds, by_episode = sample.reshape(-1, sample.shape[-1]).mean(axis=1), np.atleast_2d(sample).mean(axis=0)
    by_episode = by_episode[~np.isnan(by_episode)]
    if by_episode.size == 0:
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(by_episode.mean())
    below = above = 0.0
    if varies:
        below, above = _reach(by_episode, level, unseen)
    if len(seeds) > 1:
        among = float(stdtrit(len(seeds) - 1, (1 + level) / 2) * seeds.std(ddof=1) / np.sqrt(len(seeds)))
        below, above = float(np.hypot(below, among)), float(np.hypot(above, among))
    return Estimate(mean, mean - below, mean + above)


def _reach(values: Array, level: float, unseen: bool) -> tuple[float, float]:
    """How far the interval of (E,) values reaches below and above their mean; NaN for a single one."""
    n = len(values)
    if n < 2:
        return np.nan, np.nan
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if np.ptp(values) <= _ROUNDING * abs(mean):
        return 0.0, 0.0
    centred = values - mean
    skewness = float((centred**3).mean() / (centred**2).mean() ** 1.5)
    lowest, highest = (float(-centred.min()), float(centred.max())) if unseen else (None, None)
    return (
        _one_side(n, deviation, -skewness, level, lowest),
        _one_side(n, deviation, skewness, level, highest),
    )


def _one_side(n: int, deviation: float, skewness: float, level: float, farthest: float | None) -> float:
    """How far the interval reaches towards one side; `skewness` is positive where the long tail is there."""
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    quantile += max(0.0, skewness) * (1 + 2 * quantile**2) / (6 * np.sqrt(n))
    if farthest is None:
        return quantile * deviation / np.sqrt(n)
    distance = (1 + _UNSEEN / n) * float(np.log(1 - level) / np.log(1 - LEVEL)) * farthest
    shift = distance / (n + 1)
    widened = np.sqrt(((n - 1) * deviation**2 + distance**2 * n / (n + 1)) / n)
    return shift + quantile * widened / np.sqrt(n + 1)


def corrected(comparisons: int) -> float:
    """The level that leaves, by Bonferroni's inequality, 5 % that any of so many comparisons errs."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def episodes_needed(differences: Array, effect: float, comparisons: int) -> float:
    """Episodes after which a verdict tells a mean difference from zero in four cases out of five.

    The fewest n for which the effect exceeds the reach of the verdict's interval plus z(power) σ / √n, with
    the extremes that four samples of n in five do not exceed: the farthest episode towards zero, and on
    the other side those beyond, which count neither in the mean nor in σ.

    Args:
        differences: J − J of the reference by episode, (E,).
        effect: the mean difference to be told from zero, not zero.
        comparisons: how many comparisons are made in all.

    Returns:
        The number; infinity above a thousand million.
    """
    level = corrected(comparisons)
    toward_zero = (differences.mean() - differences) * np.sign(effect)
    skewness = float((toward_zero**3).mean() / differences.std() ** 3)

    def enough(n: int) -> bool:
        rare = POWER ** (1 / n)
        lowest = np.quantile(toward_zero, 1 - rare, method="lower")
        highest = np.quantile(toward_zero, rare)
        typical = toward_zero[toward_zero >= lowest]
        deviation = float(typical.std(ddof=1))
        reach = _one_side(n, deviation, skewness, level, float(highest))
        return abs(effect) - float(typical.mean()) >= reach + float(ndtri(POWER)) * deviation / np.sqrt(n)

    number = bisect_left(range(MOST_EPISODES), True, lo=2, key=enough)
    return number if number < MOST_EPISODES else inf
