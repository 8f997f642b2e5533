"""A lower bound on the objective of an episode of a fluid that no policy can undercut, however it is made.

All arrivals of the episode are known. Whatever a policy does, its shares g(t), its work x(t) (in
GPU steps) and what it leaves waiting are a point of the convex programme in
`baselines.bounds.programme`, and the programme's objective there is at most what the episode cost:

- Service: x = min(queue, f(g) · time in service) is at most the queue and at most f(g), because
  reallocation and loading only shorten the time in service. Serving less is allowed besides.
- Shares: what the platform grants adds up to at most G, at most `max_share` each. Slices are
  left out, so there are more shares to choose from.
- Waiting: without delay the mean number waiting in a step is what is left plus x²/(2 f(g)); a
  delay lets the x wait longer.
- Routing, cost and the credit for throughput are exact.
- Late requests are not charged. Being short of the minimum share is charged to those agents to
  whom something came from outside in that step, who therefore had work, and divided by the
  minima of all agents, of which those with work have a part.

The least value of that programme is not computed but bounded from below, so that no tolerance of
a solver enters: for any price of a GPU p(t) ≥ 0 and any worth of finished work y(t) the Lagrangian
falls apart into single agents and steps, each a minimum in closed form, and weak duality makes
their sum a bound. The prices are multipliers of linear programmes that HiGHS solves
(`baselines.bounds.inner_linearisation`): the bound is within some 0.1 % of the programme's optimum, 0.4 %
with thousands of agents and steps.
Without frictions, slices and routing that optimum can be attained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from baselines.bounds.calls import CallEpisode, bound_of_calls, prices_of
from baselines.bounds.inner_linearisation import solve
from baselines.bounds.programme import Programme
from baselines.processes import Workers, in_processes
from gpualloc_env.cluster_batch import batch_of
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.shares import SLICE_TOLERANCE
from gpualloc_env.simulation.state import AnyArray, Array

Holding = Literal["within-step", "end-of-step"]


@dataclass(frozen=True)
class Bound:
    """What no policy can undercut in one episode."""

    objective: float
    """J of the episode is at least this."""
    shares: Array
    """Shares at which the relaxed programme takes its least value, (T, N) [fraction of the platform]."""


def bound(
    scenario: Scenario, arrivals: Array, mean_rate: Array, agents: AnyArray, holding: Holding = "within-step"
) -> Bound:
    """A lower bound on the objective J of an episode, for every policy that there can be.

    Args:
        scenario: the platform, the objective and the routing.
        arrivals: external arrivals, (T, N) or (T + 1, N) as a batch holds them [requests].
        mean_rate: λ̄ of the episode, (N,) [requests/s], by which the objective is scaled.
        agents: parameters of the agents, (N,) of AGENT.
        holding: `end-of-step` prices the queue after service in place of the mean backlog of the
            step: the objective for which the cµ rule is optimal without frictions.

    Raises:
        ValueError: arrays of wrong shapes, or with numbers that no episode can have.
    """
    programme = relaxed(scenario, arrivals, mean_rate, agents, holding)
    optimum = solve(programme)
    return Bound(objective=optimum.lower_bound, shares=optimum.share / programme.gpus)


def relaxed(
    scenario: Scenario, arrivals: Array, mean_rate: Array, agents: AnyArray, holding: Holding = "within-step"
) -> Programme:
    """The relaxed programme of an episode; arguments as in `bound`.

    Raises:
        FutureError: the agents serve calls one by one.
    """
    if scenario.service != "fluid":
        raise FutureError(
            f"scenario {scenario.name!r} serves calls one by one, and this programme is one of a fluid of "
            "requests; `lower_bounds` and `feasible_schedule` take both"
        )
    steps, count, dt = scenario.steps, len(scenario.agents), scenario.dt
    _check(arrivals, ((steps, count), (steps + 1, count)), "arrivals")
    _check(mean_rate, ((count,),), "mean_rate")
    for name in ("throughput", "kappa", "min_share", "weight"):
        _check(agents[name], ((count,),), f"agents[{name!r}]")
    if holding not in ("within-step", "end-of-step"):
        raise ValueError(f"holding must be 'within-step' or 'end-of-step', got {holding!r}")
    objective, platform = scenario.objective, scenario.platform
    weight, base, minima = agents["weight"], agents["throughput"] * dt, agents["min_share"]
    # A contiguous copy of the weights would change the product, and with it every bound, in the last bit.
    weighted, total = float(weight @ mean_rate), float(mean_rate.sum())
    waiting = weight * base * (objective.latency / weighted if weighted > 0 else 0.0)
    shortfall = objective.shortfall / minima.sum() if minima.any() else 0.0
    # Rounding to whole slices can lift a share by the tolerance of the rounding.
    margin = 1.0 + SLICE_TOLERANCE if platform.slice else 1.0
    routing = scenario.routing_matrix
    return Programme(
        arrivals=np.ascontiguousarray(arrivals[:steps] / base),
        kappa=np.ascontiguousarray(agents["kappa"]),
        holding=waiting,
        within=waiting if holding == "within-step" else np.zeros(count),
        credit=base * (objective.throughput / (dt * total) if total > 0 else 0.0),
        min_share=np.ascontiguousarray(minima),
        short=np.where(arrivals[:steps] > 0, shortfall, 0.0),
        routing=np.ascontiguousarray(routing.T * base / base[:, None]) if routing.size else routing,
        price=objective.cost / platform.gpus,
        gpus=margin * platform.gpus,
        max_share=margin * min(platform.max_share, platform.gpus),
    )


def _check(given: Array, shapes: tuple[tuple[int, ...], ...], name: str) -> None:
    if given.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name} must have shape {wanted}, got {given.shape}")
    if not (np.isfinite(given) & (given >= 0)).all():
        place = tuple(int(k) for k in np.argwhere(~(np.isfinite(given) & (given >= 0)))[0])
        raise ValueError(f"{name} must be finite and not negative, got {given[place]} at {place}")


class FutureError(ValueError):
    """What knowing the future is worth cannot be found for a scenario."""


def needs_one_pool(scenario: Scenario) -> None:
    """Refuse a cluster, for which no schedule is searched.

    Raises:
        FutureError: the scenario has nodes.
    """
    if scenario.nodes:
        raise FutureError(
            f"scenario {scenario.name!r} is a cluster, and a schedule with the future known can only be "
            "found for one pool of GPUs; `lower_bounds` says what no policy can undercut"
        )


def lower_bounds(
    scenario: Scenario,
    episodes: int,
    seed: int,
    *,
    workers: Workers = None,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """Bounds of the episodes with seeds `seed`, `seed` + 1, …, (E,); one where all are alike, E times.

    These are the episodes that `training.evaluation.evaluate` plays. Where agents serve calls the bounds are
    those of `baselines.bounds.calls`.

    Args:
        scenario: what is played.
        episodes: E.
        seed: seed of the first episode.
        workers: processes that share the episodes; 1 computes here, none means one for each core, and the
            address of a Ray cluster all of its cores.
        progress: called with the number of episodes done after each of them.
    """
    different = episodes if scenario.varies else min(episodes, 1)
    batch = batch_of(scenario, different)
    batch.seed(seed)
    batch.reset()
    agents = [batch.agents[b].copy() for b in range(different)]
    if scenario.service == "requests":
        priced = (prices_of(scenario, batch.world.episode[b], agents[b]) for b in range(different))
        calls = [CallEpisode(batch.tasks(b), each, agents[b]) for b, each in enumerate(priced)]
        found = in_processes(partial(bound_of_calls, scenario), calls, workers, progress)
    else:
        rates = batch.state["mean_rate"]
        tasks = [(batch.arrivals[:, b].copy(), rates[b].copy(), agents[b]) for b in range(different)]
        found = in_processes(partial(_objective, scenario), tasks, workers, progress)
    return np.resize(found, episodes)


CHEAP = 3000
"""Agents × steps of a fluid without routing whose bound takes less than a second; it is 0.3 s at 1,200."""


def bounds_are_cheap(scenario: Scenario) -> bool:
    """Whether bounds take no longer than it takes to play some policies: of calls they take seconds."""
    size = scenario.steps * len(scenario.agents)
    return scenario.service == "fluid" and not scenario.routing and (size <= CHEAP or not scenario.varies)


def _objective(scenario: Scenario, task: tuple[Array, Array, AnyArray]) -> float:
    return bound(scenario, *task).objective
