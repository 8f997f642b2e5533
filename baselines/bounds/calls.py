"""A lower bound on the objective of an episode of calls that no policy can undercut, however it is made.

All tasks of the episode are known. The bound is the larger of two, each of which leaves something out:

- Alone: every task has the whole platform to itself, so that only capacity is forgotten. A finished task
  stays for each of its stages as long as the stage's longest call, or longer, and pays for the share of
  its calls in the GPUs that they run on; an unfinished one stays to the end. Speed and bill are weighed call
  by call: a token of a batch of b calls on g GPUs takes (a + c b)/f(g) seconds and g/b of a GPU for that
  time, and no batch and share make the sum of both cheaper than the best ones. With a bill of nothing a task
  takes its critical path alone on a whole GPU.
- Fluid: every server always runs a full batch, so that a call is work of e p + (o − 1)(a + c B)/B seconds
  of a GPU, served at f(g). A call that is not finished counts as the part of its work that is left, by
  the largest work of a call of its agent; a task of several stages as the part of all its work that is left,
  by the largest work of a task; its later stages may be worked on as soon as it arrives. That is the convex
  programme of `baselines.bounds.programme` with what waits priced at the end of each step.

Late calls and shares below the minima are not charged, and reallocation and loading cost nothing.

In a cluster of K GPUs at speeds v_k memory, hops and what leaving costs are left out besides. Let v be the
greatest speed and V the sum of all:

- Alone: every call has the fastest GPU to itself, at which time and bill are both the least: its a, c and e
  are divided by v, and a share is at most one of one GPU.
- Fluid: the instances of an agent do Σ_k v_k f(g_k) of its work a second. f is concave, so by Jensen's
  inequality that is at most V f(y), where y = Σ_k v_k g_k / V; the agents' y sum to at most 1, since the
  shares of each GPU do, and none is above the largest share. The bill is that of Σ_k g_k ≥ y V/v GPUs. So
  the GPUs are one of speed V, of which a second costs V/v times as much. What an instance that leaves has
  lost is done again, and only the farthest that a call has come counts as work done.
"""

from typing import Any, NamedTuple

import numpy as np

from baselines.bounds.inner_linearisation import solve
from baselines.bounds.programme import Programme, speed
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.calls import Tasks
from gpualloc_env.simulation.shares import SLICE_TOLERANCE
from gpualloc_env.simulation.state import AnyArray, Array

ROUNDING = 1e-9
"""Part of the terms that is taken off, so that rounding cannot lift the bound."""


class Prices(NamedTuple):
    """What an episode costs by its objective."""

    call: Array  # (N,) of a second of a call in the system
    task: float  # of a second of a task in the system
    gpu: float  # of a GPU-second
    finished: float  # earned for a call


class CallEpisode(NamedTuple):
    """What of an episode is known beforehand."""

    tasks: Tasks
    prices: Prices
    agents: AnyArray  # (N,) of AGENT


def prices_of(scenario: Scenario, episode: Any, agents: AnyArray) -> Prices:
    """The prices of an episode, one of EPISODE, whose agents are (N,) of AGENT."""
    weights = scenario.objective
    return Prices(
        call=weights.latency * episode["per_weighted_rate"] * agents["weight"],
        task=float(weights.task * episode["per_task_rate"]),
        gpu=weights.cost / (scenario.num_gpus or scenario.platform.gpus),
        finished=float(weights.throughput * episode["per_total_rate"]),
    )


def bound_of_calls(scenario: Scenario, episode: CallEpisode) -> float:
    """A lower bound on the objective J of an episode whose agents serve calls, for every policy."""
    fastest = max((node.speed for node in scenario.nodes), default=1.0)
    together = scenario.capacity if scenario.nodes else 1.0
    return max(
        alone(scenario, at_speed(episode, fastest)),
        fluid(scenario, at_speed(episode, together, together / fastest)),
    )


def at_speed(episode: CallEpisode, speed: float, price: float = 1.0) -> CallEpisode:
    """The same episode on a GPU of another speed, a second of which costs so many times as much."""
    agents, prices = episode.agents.copy(), episode.prices
    for name in ("iteration", "iteration_per_call", "prefill_per_token"):
        agents[name] /= speed
    return CallEpisode(episode.tasks, prices._replace(gpu=prices.gpu * price), agents)


def most_share(scenario: Scenario) -> float:
    """The most that one agent can hold, the tolerance of a slice's rounding included [GPU]."""
    platform = scenario.platform
    return min(platform.max_share, platform.gpus) * (1 + SLICE_TOLERANCE if platform.slice else 1)


def token_cost(agents: AnyArray, batch: AnyArray, rate: Array, gpu: float, most: float) -> Array:
    """Least cost of a decoded token, (N,), of a call that costs `rate` a second, (N,).

    The minimum of (a + c b)/f(g) · (rate + gpu · g/b) over batches b of at most `batch`, (N,), and g ≤ most.
    """
    least = np.empty(len(agents))
    for i, agent in enumerate(agents):
        b, kappa = np.arange(1, max(1, batch[i]) + 1), agent["kappa"]
        iteration = agent["iteration"] + agent["iteration_per_call"] * b
        # Where the derivative of (g + κ)(rate/g + gpu/b) vanishes; linear speed costs least at its most.
        share = np.sqrt(rate[i] * kappa * b / gpu) if kappa > 0 and gpu > 0 else np.full(len(b), np.inf)
        share = np.minimum(most, np.maximum(share, 1e-12))
        cost = iteration / speed(share, kappa) * (rate[i] + gpu * share / b)
        least[i] = cost.min()
    return least


def alone(scenario: Scenario, episode: CallEpisode) -> float:
    """The bound in which every task has the platform to itself."""
    tasks, prices, agents = episode
    if not len(tasks.time):
        return 0.0
    end, most = scenario.steps * scenario.dt, most_share(scenario)
    agent, tokens = tasks.agent, tasks.output - 1
    prefill = agents["prefill_per_token"][agent] * tasks.prompt
    batch = np.minimum(agents["max_batch"], np.bincount(agent, minlength=len(agents)))
    least = [
        token_cost(agents, batch, rate, prices.gpu, most) for rate in (prices.call + prices.task, prices.call)
    ]
    rates = prices.call[agent] + prices.task, prices.call[agent]
    critical, other = (
        prefill * (rate / most + prices.gpu) + tokens * cost[agent]
        for rate, cost in zip(rates, least, strict=True)
    )
    fastest = (
        prefill / most
        + tokens
        * ((agents["iteration"] + agents["iteration_per_call"]) / speed(most, agents["kappa"]))[agent]
    )
    owner = np.repeat(np.arange(len(tasks.time)), np.diff(tasks.first))
    stages = np.flatnonzero(np.diff(owner, prepend=-1) | np.diff(tasks.stage, prepend=-1))
    of_stage = owner[stages]
    time = np.bincount(of_stage, np.maximum.reduceat(tasks.after_s + fastest, stages))
    longest = np.maximum.reduceat(prices.task * tasks.after_s + critical - other, stages)
    count = np.diff(tasks.first)
    done = np.bincount(of_stage, longest) + np.bincount(owner, other) - prices.finished * count
    left = end - tasks.time
    # Of an unfinished task only the calls of the first stage are sure to be issued.
    issued = np.maximum(0.0, left[owner] - tasks.after_s)
    stays = np.where(tasks.stage > 0, 0.0, np.where(count[owner] == 1, issued, np.minimum(issued, fastest)))
    undone = (
        prices.task * left + np.bincount(owner, prices.call[agent] * stays) - prices.finished * (count - 1)
    )
    total = np.where(time <= left * (1 + ROUNDING), np.minimum(done, undone), undone)
    return float((total.sum() - ROUNDING * np.abs(total).sum()) / end)


def fluid(scenario: Scenario, episode: CallEpisode) -> float:
    """The bound in which every server always runs a full batch."""
    tasks, prices, agents = episode
    steps, dt, count = scenario.steps, scenario.dt, len(agents)
    most, platform, agent = most_share(scenario), scenario.platform, tasks.agent
    gpus = 1.0 if scenario.nodes else platform.gpus
    full = agents["iteration"] / agents["max_batch"] + agents["iteration_per_call"]
    work = agents["prefill_per_token"][agent] * tasks.prompt + (tasks.output - 1) * full[agent]
    # On more than one GPU prefill is faster than f(g), by at most g/f(g) at the largest share.
    work /= dt * np.maximum(1.0, most / speed(most, agents["kappa"]))[agent]
    owner = np.repeat(np.arange(len(tasks.time)), np.diff(tasks.first))
    came = tasks.time[owner] / dt
    step = np.minimum(came.astype(np.int64), steps - 1)
    arrivals, waiting = np.zeros((steps, count)), np.zeros(count)
    np.add.at(arrivals, (step, agent), work)
    single = len(tasks.agent) == len(tasks.time) and not tasks.after_s.any()
    largest = np.zeros(count)
    np.maximum.at(largest, agent, work)
    if single:
        waiting = prices.call + prices.task
    else:
        largest[:] = np.bincount(owner, work).max(initial=0.0)
        waiting += prices.task
    holding = np.divide(waiting * dt, largest, out=np.zeros(count), where=largest > 0)
    programme = Programme(
        arrivals=arrivals,
        kappa=np.ascontiguousarray(agents["kappa"]),
        holding=holding,
        within=np.zeros(count),
        credit=np.zeros(count),
        min_share=np.zeros(count),
        short=np.zeros((steps, count)),
        routing=np.zeros((0, 0)),
        price=prices.gpu * dt,
        gpus=gpus * (1 + SLICE_TOLERANCE if platform.slice else 1),
        max_share=most,
    )
    # What comes within a step waits only from then on.
    early = float(((came - step) * work * holding[agent]).sum())
    least = solve(programme).lower_bound / dt - (early + prices.finished * len(agent)) / (steps * dt)
    return least - ROUNDING * abs(least)
