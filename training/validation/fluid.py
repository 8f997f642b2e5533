"""The fluid side of a validation: long or replayed episodes of a `Batch`, of which only totals are kept."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from baselines import Policy
from gpualloc_env.batch import Batch
from gpualloc_env.scenario.agents import Agent
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.simulation.arrivals import WINDOWS, Replay
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


class Totals(NamedTuple):
    """Sums over an episode from some step on."""

    backlog: Array  # (B, N) [requests · s] integral of the number waiting or in service
    transit: Array  # (B,) [requests · s] integral of the work done that has yet to reach its next agent
    served: Array  # (B, N) [requests]
    external: Array  # (B, N) [requests] from outside


def station(
    throughputs: Sequence[float],
    rates: Sequence[float],
    steps: int,
    dt: float,
    routing: Array | None = None,
    law: str = "poisson",
) -> Scenario:
    """Agents without friction, on one GPU, with these base throughputs and external rates [requests/s]."""
    agents = tuple(
        Agent(name=f"agent-{i}", model_mb=0, throughput_rps=rate) for i, rate in enumerate(throughputs)
    )
    return Scenario(
        name="validation",
        agents=agents,
        traffic=Traffic.model_validate({"law": law, "rates_rps": tuple(rates)}),
        routing=None if routing is None else tuple(map(tuple, routing.tolist())),
        steps=steps,
        dt=dt,
    )


def drawn(scenario: Scenario, replications: int, seed: int) -> Batch:
    """Environments at the start of episodes drawn from the scenario's own traffic."""
    batch = Batch(scenario, replications)
    batch.seed(seed)
    batch.reset()
    return batch


def replayed(scenario: Scenario, arrivals: Array, *, record: bool = False) -> Batch:
    """Environments at the start of given episodes, (B, T, N) [requests], in place of the drawn ones.

    They are played as the episodes of a log are: environment k, seeded with k, meets the k-th.
    """
    batch = Batch(scenario, len(arrivals), record=record)
    steps = arrivals.reshape(-1, batch.num_agents)  # those of all episodes in one row
    step, agent = np.nonzero(steps)
    replay = Replay(step, agent, steps[step, agent], len(arrivals))
    batch.source = batch.source._replace(kind=WINDOWS, replay=replay)
    batch.seed(0)
    batch.reset()
    return batch


def slotted(instants: Sequence[Array], work: Sequence[Array], steps: int, dt: float) -> Array:
    """Requests that arrive at known instants as the arrivals of one agent's steps, (B, T, 1)."""
    arrivals = np.zeros((len(instants), steps, 1))
    for episode, times, sizes in zip(arrivals, instants, work, strict=True):
        np.add.at(episode[:, 0], (times / dt).astype(np.int64), sizes)
    return arrivals


def play(batch: Batch, policy: Policy, first_step: int = 0) -> Totals:
    """Play the episodes to their end and add up what happens from a step on, after the warm-up.

    An agent that serves s requests in a step and holds q̄ of them in the mean has done
    q_end + s − q̄ in the mean: that part of them which is routed on waits for the next step.
    """
    steps, dt = batch.scenario.steps, batch.scenario.dt
    routed = batch.world.routing.sum(axis=1) if batch.world.routing.size else np.zeros(batch.num_agents)
    backlog, served = np.zeros((2, batch.num_envs, batch.num_agents))
    left = np.zeros((batch.num_envs, batch.num_agents))
    for t in range(steps):
        batch.step(policy(batch.view))
        if t >= first_step:
            backlog += batch.outcome["backlog"]
            served += batch.outcome["served"]
            left += batch.outcome["queue"]
    transit = (left + served - backlog) @ routed
    external = batch.arrivals[first_step:steps].sum(axis=0)
    return Totals(backlog * dt, transit * dt, served, external)


def whole_gpu(view: View) -> Array:
    """The whole platform for the only agent."""
    return np.ones_like(view.queue)


def generalised_processor_sharing(view: View) -> Array:
    """Equal shares for the agents that have work."""
    busy = view.queue > 0
    return busy / np.maximum(1, busy.sum(axis=-1, keepdims=True))
