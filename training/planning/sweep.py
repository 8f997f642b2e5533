"""Allocators on platforms of different sizes: what each gives, who meets the objective, and which to take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpualloc_env.simulation.state import Array
from training.artifacts.contestants import Contestant, evaluation_of
from training.evaluation.evaluate import Evaluation, Kind, label
from training.evaluation.statistics import Estimate, interval
from training.evaluation.verdicts import difference
from training.planning.subject import Subject
from training.reporting.measures import COST, SERVED, SLO, Measure

MUCH_LESS = 0.8  # of a bill is worth a word
NEARLY = 0.01  # below the fraction asked for
SEED = 0  # window k of a log is the episode of seed k


@dataclass(frozen=True)
class Trial:
    """What one allocator gives on so many GPUs."""

    policy: str
    given: str
    """What it was asked for as."""
    kind: Kind
    gpus: float
    metrics: dict[str, Array]
    """Every metric of the windows, (W,)."""
    hours: float
    """Length of a window."""
    seeds: int = 1

    @property
    def label(self) -> str:
        """Its name wherever a person reads it."""
        return label(self.policy, self.kind, self.seeds)

    def by_request(self, metric: str) -> Array:
        """Values whose mean over the windows is that of a metric over all requests, (W,).

        With n_k requests in window k and m_k the metric there it is R = Σ n_k m_k / Σ n_k, exact where the
        metric is a mean over requests. R + n_k (m_k − R)/n̄ has this mean, and the deviation by which
        a ratio's interval is made (Cochran, "Sampling Techniques", section 6.4). The values of two
        allocators, which met the same requests, are paired.
        """
        values, requests = self.metrics[metric], self.metrics["arrived"]
        known = ~np.isnan(values) & (requests > 0)
        if not known.any():
            return np.full(len(values), np.nan)
        count = np.where(known, requests, 0.0)
        filled = np.where(known, values, 0.0)
        ratio = count @ filled / count.sum()
        return ratio + count * (filled - ratio) / count.mean()

    def estimate(self, measure: Measure) -> Estimate:
        """Mean and interval of a measure: over all requests, of rates and bills over the windows.

        In the unit of its metric; the bill is that of an hour. None of them can be negative.
        """
        if measure is COST:
            return bounded(interval(self.bill), 0.0, np.inf)
        values = self.metrics[SERVED.metric] if measure is SERVED else self.by_request(measure.metric)
        return bounded(interval(values), 0.0, np.inf)

    @property
    def bill(self) -> Array:
        """What the shares held cost in each window, (W,) [$/h]."""
        return self.metrics["cost_usd"] / self.hours

    @property
    def attainment(self) -> Estimate:
        """Fraction of all requests within their objective, and its interval."""
        return bounded(interval(self.by_request(SLO.metric)), 0.0, 1.0)


def bounded(estimate: Estimate, least: float, most: float) -> Estimate:
    """An estimate of what is never outside two numbers."""
    # A maximum with NaN, of what has no interval, would be a bound.
    return Estimate(*np.clip(estimate, least, most).tolist())


def trial(subject: Subject, windows: int, task: tuple[str, str, float]) -> Trial:
    """Play one allocator, by its name and what it was asked for as, on so many GPUs."""
    policy, given, gpus = task
    scenario = subject.at(gpus)
    played = evaluation_of(scenario, windows, SEED, Contestant.of(policy, given, scenario))
    hours = scenario.steps * scenario.dt / 3600
    return Trial(policy, given, played.kind, gpus, columns(played), hours, len(played.by_seed))


def columns(evaluation: Evaluation) -> dict[str, Array]:
    """The metrics of an evaluation, each an array over its episodes."""
    return {
        name: np.array([episode[name] for episode in evaluation.metrics]) for name in evaluation.metrics[0]
    }


class Rival(NamedTuple):
    """The next best allocator on the chosen platform, and the paired differences of the chosen from it."""

    trial: Trial
    attainment: Estimate
    bill: Estimate  # [$/h]


class Choice(NamedTuple):
    """The allocator to take."""

    trial: Trial
    meets: bool
    """Whether the fraction of requests within their objective is the one asked for."""
    sure: bool
    """Whether all of its interval is."""
    rival: Rival | None
    bargain: Trial | None
    """One whose bill is much less, and that misses the objective by a point at most and perhaps by chance."""


def order(trial: Trial, asked: float) -> tuple[float, ...]:
    """Key by which trials are chosen: who meets the objective, with the fewest GPUs, for the least bill.

    Of those that do not meet it, the one that comes nearest.
    """
    attained = trial.attainment.mean
    if attained >= asked:
        return 0, trial.gpus, trial.bill.mean()
    return 1, -attained, trial.gpus


def choose(trials: Sequence[Trial], asked: float) -> Choice:
    """The allocator to take, and the next best on the same platform."""
    best = min(trials, key=lambda each: order(each, asked))
    others = [each for each in trials if each.gpus == best.gpus and each is not best]
    rival = None
    if others:
        second = min(others, key=lambda each: order(each, asked))
        own, theirs = best.by_request(SLO.metric)[None], second.by_request(SLO.metric)[None]
        rival = Rival(
            second,
            bounded(difference(own, theirs, len(others)), -1.0, 1.0),
            difference(best.bill[None], second.bill[None], len(others)),
        )
    cheap = [
        each
        for each in trials
        if each.attainment.mean >= asked - NEARLY
        and each.attainment.high >= asked
        and each.bill.mean() < MUCH_LESS * best.bill.mean()
    ]
    attained = best.attainment
    bargain = min(cheap, key=lambda each: each.bill.mean(), default=None)
    return Choice(best, attained.mean >= asked, attained.low >= asked, rival, bargain)


def fewest(trials: Iterable[Trial], asked: float) -> Trial | None:
    """The trial with the fewest GPUs that meets the objective; None where none does."""
    enough = [each for each in trials if each.attainment.mean >= asked]
    return min(enough, key=lambda each: each.gpus, default=None)


def untried(trials: Iterable[Trial], chosen: Trial) -> float | None:
    """The middle one of the whole numbers of GPUs between the chosen and the next fewer that were tried.

    Returns:
        The number; None where there is none between them, or nothing was tried on fewer.
    """
    fewer = max((each.gpus for each in trials if each.gpus < chosen.gpus), default=chosen.gpus)
    low, high = np.floor(fewer) + 1, np.ceil(chosen.gpus) - 1
    return float((low + high) // 2) if low <= high else None


def knee(sizes: Sequence[float], late: Sequence[float]) -> float | None:
    """The size after which more GPUs bring little: where the curve bends most.

    Of the curve of late requests against GPUs, both scaled to [0, 1], the point farthest below the line from
    its first point to its last (Satopää et al., "Finding a 'Kneedle' in a Haystack", 2011).

    Returns:
        The size; None where there are less than three or the curve lies nowhere below that line.
    """
    if len(sizes) < 3 or not late[0] > late[-1]:
        return None
    x = (np.array(sizes) - sizes[0]) / (sizes[-1] - sizes[0])
    y = (np.array(late) - late[-1]) / (late[0] - late[-1])
    below = 1 - x - y
    return float(sizes[int(below.argmax())]) if below.max() > 0 else None
