"""Request times drawn from a scenario, as a log of it would hold them."""

from math import ceil

import numpy as np

from gpualloc_env.batch import Batch
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array

MOST_STEPS = 2_000_000
STEPS_A_BURST = 100
STEPS_A_CYCLE = 200


def drawn_times(scenario: Scenario, span_s: float, seed: int) -> list[Array]:
    """Sorted times of the requests from outside to each agent, [s], in one episode of `span_s`.

    The arrivals are those that a batch draws, in steps so short that the rate hardly changes
    within one; there the times of Poisson requests are uniform.

    Args:
        scenario: one that draws its traffic.
        span_s: length of the episode [s].
        seed: of the batch and of the times within a step.
    """
    dt = _step_s(scenario, span_s)
    steps = ceil(span_s / dt)
    # Calls come as the requests of a fluid do.
    fluid = {"service": "fluid", "tasks": None}
    batch = Batch(scenario.model_copy(update={"steps": steps, "dt": dt, **fluid}), 1)
    batch.seed(seed)
    batch.reset()
    arrivals = batch.arrivals[:steps, 0].astype(np.int64)
    generator = np.random.default_rng((seed, 0))
    streams: list[Array] = []
    for count in arrivals.T:
        step = np.repeat(np.arange(steps), count)
        times = np.sort((step + generator.random(len(step))) * dt)
        streams.append(times[times < span_s])
    return streams


def _step_s(scenario: Scenario, span_s: float) -> float:
    """A step much shorter than anything that changes the rate, as far as memory allows."""
    traffic = scenario.traffic
    assert traffic is not None
    changes = [1.0]
    if traffic.burst is not None:
        changes.append(min(traffic.burst.on_s, traffic.burst.off_s) / STEPS_A_BURST)
    if traffic.cycle is not None:
        changes.append(traffic.cycle.period_s / STEPS_A_CYCLE)
    return max(min(changes), 0.01, span_s / MOST_STEPS)
