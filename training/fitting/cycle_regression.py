"""A sinusoidal cycle in a request log, found by harmonic regression on binned counts.

Bursts make the counts of a log vary by chance on long time scales too, and the highest of many
frequencies always looks like a cycle. So a candidate's gain in Poisson likelihood is divided by
the dispersion of the counts at frequencies around its own (quasi-likelihood: McCullagh and
Nelder, "Generalized Linear Models", 1989, chapter 9), measured after the candidate is removed.
"""

from dataclasses import dataclass
from math import atan2, hypot, log, log1p, pi, tau

import numpy as np
from scipy.optimize import minimize_scalar

from gpualloc_env.simulation.state import Array
from training.fitting.log_statistics import counts

MOST_BINS = 32768
FEWEST_BINS_A_PERIOD = 8
PARAMETERS = 3
NEIGHBOURHOOD = 4  # the dispersion is that of frequencies from f / 4 to 4 f


@dataclass(frozen=True, slots=True)
class Sinusoid:
    """The likeliest cycle: the rate is 1 + amplitude · cos(2π (t − peak_s) / period_s) times the mean."""

    amplitude: float
    period_s: float
    peak_s: float
    gain: float
    """Gain in quasi-log-likelihood over a constant rate."""
    threshold: float
    """What BIC asks of the gain: ½ log of the number of bins for each parameter."""

    @property
    def stands_out(self) -> bool:
        """Whether the counts vary at this period by more than around it, beyond chance."""
        return self.gain > self.threshold

    def factor(self, times: Array) -> Array:
        """Factor on the rate at each time, kept above zero so that no request is impossible."""
        phase = tau * (times - self.peak_s) / self.period_s
        return np.maximum(1 + self.amplitude * np.cos(phase), 1e-6)

    def integral(self, times: Array) -> Array:
        """Integral of the factor from 0 to each time [s]."""
        phase = tau * (times - self.peak_s) / self.period_s
        first = tau * self.peak_s / self.period_s
        return times + self.amplitude * self.period_s / tau * (np.sin(phase) + np.sin(first))


def find_cycle(times: Array, span_s: float) -> Sinusoid | None:
    """The most likely cycle of a log that it covers at least once; None where the log is too short.

    Whether to believe it is for its `gain` and `threshold` to say.

    Args:
        times: request times, (n,) [s].
        span_s: how long the log lasts from 0 [s].
    """
    bins = min(MOST_BINS, len(times))
    width = span_s / bins
    count = counts(times, span_s * (1 + 1e-12), width)[:bins]
    middle: Array = (np.arange(bins, dtype=np.float64) + 0.5) * width
    highest = bins // FEWEST_BINS_A_PERIOD
    if highest < 2:
        return None
    ordinary = _power(count)[: NEIGHBOURHOOD * highest + 1]
    around, _ = _noise(ordinary, np.arange(1.0, highest + 1), exclude=0.0)
    # Requests at equal distances have no power at all.
    ratio = ordinary[1 : highest + 1] / np.maximum(around, 1e-9 * count.mean())
    candidate = 1 + int(np.argmax(ratio))

    def unexplained(frequency: float) -> float:
        return _regress(count, middle, frequency / span_s)[1]

    limits = (max(1.0, candidate - 1.0), min(candidate + 1.0, highest))
    cycles = minimize_scalar(unexplained, bounds=limits, method="bounded", options={"xatol": 1e-4}).x
    # The likelihood is nearly a parabola at its top, but a bounded search never tries the ends.
    cycles = float(min((cycles, *limits), key=unexplained))
    (mean, cosine, sine), squares = _regress(count, middle, cycles / span_s)
    model = _design(middle, cycles / span_s) @ np.array([mean, cosine, sine])
    rest = _power(count - model)[: NEIGHBOURHOOD * highest + 1]
    noise, ordinates = _noise(rest, np.array([cycles]), exclude=1.5)
    # Half the sum of squares that the cycle explains, in units of the counts' variance.
    explained = max(0.0, float(((count - count.mean()) ** 2).sum()) - squares) / 2
    height = explained / max(float(noise[0]), count.mean())
    m = float(ordinates[0])
    period = span_s / cycles
    # The mean over a bin flattens the cosine by sin(x)/x.
    flattening = float(np.sinc(width / period))
    return Sinusoid(
        amplitude=min(1.0, hypot(cosine, sine) / float(mean) / flattening),
        period_s=period,
        peak_s=atan2(sine, cosine) % tau / tau * period,
        # The dispersion is itself a mean of m ordinates only, which gives the likelihood longer tails.
        gain=m * log1p(height / m) if m else 0.0,
        threshold=PARAMETERS / 2 * log(bins),
    )


def _power(count: Array) -> Array:
    """Periodogram of the counts, (K / 2 + 1,); the mean count is its expectation for Poisson."""
    return np.abs(np.fft.rfft(count - count.mean())) ** 2 / len(count)


def _noise(power: Array, cycles: Array, exclude: float) -> tuple[Array, Array]:
    """Mean power from f / 4 to 4 f, f in cycles per log, and how many ordinates it is the mean of.

    Ordinates within `exclude` cycles of f are left out.
    """
    total = np.concatenate([[0.0], np.cumsum(power)])

    def between(low: Array, high: Array) -> tuple[Array, Array]:
        first = np.clip(np.ceil(low), 1, len(power)).astype(np.int64)
        last = np.clip(np.floor(high) + 1, 1, len(power)).astype(np.int64)
        return np.where(last > first, total[last] - total[first], 0.0), np.maximum(last - first, 0)

    sums, ordinates = between(cycles / NEIGHBOURHOOD, cycles * NEIGHBOURHOOD)
    if exclude:
        inner, number = between(cycles - exclude, cycles + exclude)
        sums, ordinates = sums - inner, ordinates - number
    return sums / np.maximum(ordinates, 1), ordinates.astype(np.float64)


def _design(middle: Array, frequency: float) -> Array:
    phase = 2 * pi * frequency * middle
    return np.stack([np.ones(len(middle)), np.cos(phase), np.sin(phase)], axis=1)


def _regress(count: Array, middle: Array, frequency: float) -> tuple[Array, float]:
    """Least squares of the counts on a constant, a cosine and a sine: coefficients, sum of squares."""
    design = _design(middle, frequency)
    coefficients: Array = np.linalg.lstsq(design, count)[0].astype(np.float64)
    return coefficients, float(((count - design @ coefficients) ** 2).sum())
