"""Traffic: the laws by which requests arrive from outside."""

from itertools import pairwise
from math import prod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from gpualloc_env.scenario.model import (
    LARGEST,
    Load,
    Model,
    Number,
    PositiveSeconds,
    Rate,
    Seconds,
    Weight,
    Whole,
)
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import Array


class Burst(Model):
    """A two-state process: the rate is `ratio` times higher while on.

    On and off times are exponential with means `on_s` and `off_s`; the mean rate is kept.
    """

    common: bool = False
    """Whether one process drives all agents; otherwise each has an independent one of its own."""
    ratio: Annotated[Number, Field(ge=1, le=LARGEST)] = 4.0
    on_s: PositiveSeconds = 10.0
    off_s: PositiveSeconds = 50.0

    @property
    def off_factor(self) -> float:
        """Rate while off, as a multiple of the mean rate: (on + off) / (ratio · on + off)."""
        return (self.on_s + self.off_s) / (self.ratio * self.on_s + self.off_s)


class Cycle(Model):
    """A sinusoidal factor on all rates, day and night: 1 + amplitude · cos(2π (t − peak_s) / period_s)."""

    amplitude: Annotated[Number, Field(ge=0, le=1)]
    """Peak over mean, less one."""
    period_s: PositiveSeconds
    peak_s: Seconds = 0.0
    """Time of a peak, from the start of the episode [s]."""

    def factors(self, edges: Array) -> Array:
        """Mean of the factor between each two of some times, (n + 1,) [s]: (n,); 1 between equal ones."""
        radians = 2 * np.pi / self.period_s
        between, swing = np.diff(edges), np.zeros(len(edges) - 1)
        turned = np.diff(np.sin(radians * (edges - self.peak_s)))
        np.divide(turned, radians * between, out=swing, where=between > 0)
        # The integral over a whole period rounds to just below zero where the rate touches it.
        return np.maximum(0.0, 1 + self.amplitude * swing)


class Surge(Model):
    """The rate of one agent is multiplied by `factor` from `start_s` to `end_s`."""

    agent: str
    factor: Weight
    start_s: Seconds
    end_s: PositiveSeconds

    @model_validator(mode="after")
    def _check(self) -> "Surge":
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s must be after start_s = {self.start_s:g}, got {self.end_s:g}")
        return self


class Traffic(Model):
    """How requests arrive from outside, before any routing among the agents."""

    law: Literal["constant", "poisson"] = "poisson"
    """`constant`: rate × dt requests in every step, fractions included. `poisson`: random counts."""
    rates_rps: tuple[Rate, ...] | None = None
    """Mean rate of each agent [requests/s], in the order of the agents, before any surge."""
    load: Load | None = None
    """ρ = Σ λ̄_i/T_i / G to which all rates are scaled; none leaves them as they are.

    Surges count as they fall into the episode, a cycle with its mean over a period.
    """
    mix_concentration: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    """Draw each episode's mix of rates from a symmetric Dirichlet law of this concentration."""
    burst: Burst | None = None
    cycle: Cycle | None = None
    surges: tuple[Surge, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Traffic":
        if (self.rates_rps is None) == (self.mix_concentration is None):
            raise ValueError("give either rates_rps or mix_concentration, the law of a drawn mix")
        if self.mix_concentration is not None and self.load is None:
            raise ValueError("a drawn mix needs a load, such as load = 0.8, to set its total rate")
        if self.rates_rps is not None and not any(self.rates_rps):
            raise ValueError("rates_rps must not all be zero; no request would ever arrive")
        return self

    def profile(self, names: tuple[str, ...], steps: int, dt: float, cycle: Cycle | None) -> Array:
        """Mean over each step of the factor of surges and of a cycle on each agent's rate, (steps + 1, N)."""
        edges = dt * np.arange(steps + 2, dtype=np.float64)
        profile = np.ones((steps + 1, len(names)))
        if cycle is not None:
            profile *= cycle.factors(edges)[:, None]
        turns = sorted({turn for surge in self.surges for turn in (surge.start_s, surge.end_s)})
        for start, end in pairwise(turns):
            within = np.clip(edges, start, end)
            inside = np.diff(within) / dt
            if cycle is not None:
                inside *= cycle.factors(within)
            for i, name in enumerate(names):
                active = [s.factor for s in self.surges if s.agent == name and s.start_s <= start < s.end_s]
                profile[:, i] += (prod(active) - 1) * inside
        # What rounding leaves of a factor of 0 is no traffic, and none that a load could be made of.
        return np.where(profile < NEGLIGIBLE, 0.0, profile)
