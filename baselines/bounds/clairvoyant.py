"""The best schedule that can be found for an episode whose arrivals are all known.

Its J is what knowing the future can attain at least, so the optimum of an episode lies between
the bound of `baselines.bounds.bound` and this. Schedules are only ever judged by playing them in a
`Batch`, all candidates of an episode side by side.
"""

from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np

from baselines.bounds.bound import lower_bounds, needs_one_pool, relaxed
from baselines.bounds.drift import drifting_shares
from baselines.bounds.inner_linearisation import Optimum, solve
from baselines.bounds.programme import Programme
from baselines.bounds.window_search import window_search
from baselines.online.cmu import cmu
from baselines.online.max_weight import max_weight
from baselines.online.receding_horizon import RecedingHorizon, RecedingHorizonBatch
from baselines.processes import in_processes
from baselines.tuned import tuned
from gpualloc_env.batch import Batch
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array

CANDIDATES, ROUNDS, PARENTS = 128, 24, 12
# A jump is allowed where it would save so many times what it costs, most selective first.
SELECTIVITY = (30.0, 12.0, 6.0)
LARGEST_PROGRAMME = 4000  # agents times steps for which the linear programmes take seconds
KEEP_WARM = 1e-6  # share that keeps a model on the GPU at no cost to speak of [fraction of the platform]
CLOSE = 1e-6  # to the bound, relative: nothing is left to search for


@dataclass(frozen=True)
class Schedule:
    """Shares for every step of one episode, made with knowledge of its arrivals."""

    shares: Array
    """(T, N) [fraction of the platform]"""
    objective: float
    """J of the episode under these shares."""
    lower_bound: float
    """J of the episode under any shares is at least this."""


def feasible_schedule(scenario: Scenario, seed: int, rounds: int = ROUNDS) -> Schedule:
    """Search a good schedule for the episode that `seed` draws; the same one at every call.

    The relaxed optimum is made to move within the deadband, with and without jumps, and what some
    online policies do stands beside it; then a population of such schedules is crossed, part by
    part, and the best of each round live on. Where agents serve calls, receding-horizon control is
    improved window by window instead (`baselines.bounds.window_search`).

    Args:
        scenario: what is played.
        seed: seed of the episode, as in `training.evaluation.evaluate`.
        rounds: rounds of the search; of calls at most one for each width of a window.

    Raises:
        FutureError: the scenario is a cluster.
    """
    needs_one_pool(scenario)
    if scenario.service == "requests":
        return _searched(scenario, seed, rounds)
    episode = _episodes(scenario, 1, seed)
    programme = relaxed(scenario, episode.arrivals[:, 0], episode.state[0]["mean_rate"], episode.agents[0])
    optimum = solve(programme)
    least = optimum.lower_bound
    batch = _episodes(scenario, CANDIDATES, seed, same=True)
    shares = np.concatenate(
        [_first_candidates(scenario, programme, optimum), _decided_online(scenario, seed)]
    )
    costs = _play(batch, seed, shares)
    generator = np.random.default_rng(seed % 2**63)
    for _ in range(rounds):
        if costs.min() - least <= CLOSE * (1 + abs(least)):
            break
        order = np.argsort(costs, kind="stable")[:PARENTS]
        shares, costs = shares[order], costs[order]
        children = _children(scenario, shares, generator)
        shares = np.concatenate([shares, children])
        costs = np.concatenate([costs, _play(batch, seed, children)])
    best = int(costs.argmin())
    return Schedule(shares[best], float(costs[best]), least)


def _searched(scenario: Scenario, seed: int, rounds: int) -> Schedule:
    """The schedule of an episode of calls."""
    *_, policy = _receding_horizon(scenario)
    shares, objective = window_search(scenario, seed, policy, rounds)
    return Schedule(shares, objective, float(lower_bounds(scenario, 1, seed, workers=1)[0]))


def _episodes(scenario: Scenario, count: int, seed: int, same: bool = False) -> Batch:
    """A batch that plays the episodes of `seed` and of those that follow, or all of them that of `seed`."""
    batch = Batch(scenario, count)
    _restart(batch, seed, same)
    return batch


def _restart(batch: Batch, seed: int, same: bool) -> None:
    for k in range(batch.num_envs if same else 0):
        # Environment k is seeded with the given seed + k.
        batch.seed(seed - k, np.arange(batch.num_envs) == k)
    if not same:
        batch.seed(seed)
    batch.reset()


def _play(batch: Batch, seed: int, shares: Array) -> Array:
    """J of each of (C, T, N) candidate schedules in the episode of `seed`, (C,)."""
    costs = [np.zeros(0)]
    for first in range(0, len(shares), batch.num_envs):
        part = shares[first : first + batch.num_envs]
        played = np.zeros((batch.num_envs, *part.shape[1:]))
        played[: len(part)] = part
        _restart(batch, seed, same=True)
        for t in range(batch.scenario.steps):
            batch.step(played[:, t])
        costs.append(-batch.totals["reward"][: len(part)] / batch.scenario.steps)
    return np.concatenate(costs)


def _first_candidates(scenario: Scenario, p: Programme, optimum: Optimum) -> Array:
    """Schedules to begin with, (C, T, N): the relaxed optimum, and others that change less."""
    platform = scenario.platform
    share, work = optimum.share, optimum.work
    targets = [share]
    if platform.slice is not None:
        targets.append(np.rint(share / platform.slice) * platform.slice)
    if platform.reallocation_s > 0:
        if share.size <= LARGEST_PROGRAMME:
            targets += _drifting(scenario, p, share, work)
        smooth = [
            share,
            _smoothed(share, 2),
            _smoothed(share, 5),
            np.tile(share.mean(axis=0), (len(share), 1)),
        ]
        for jump in (0.1, 0.2, 0.4, np.inf):
            targets += list(_tracked(scenario, np.stack(smooth), np.full(len(smooth), jump)))
    return _kept_warm(scenario, np.stack(targets) / platform.gpus)


def _decided_online(scenario: Scenario, seed: int) -> Array:
    """What some strong policies that do not know the future ask for in the episode, (C, T, N).

    Where the relaxed optimum cannot be followed, as in whole slices, these are better to begin with.
    """
    policies = (cmu, max_weight, *_receding_horizon(scenario))
    decided = np.empty((len(policies), scenario.steps, len(scenario.agents)))
    for shares, policy in zip(decided, policies, strict=True):
        batch = _episodes(scenario, 1, seed)
        for t in range(scenario.steps):
            shares[t] = policy(batch.view)[0]
            batch.step(shares[t : t + 1])
    return decided


def _receding_horizon(scenario: Scenario) -> tuple[RecedingHorizon, RecedingHorizonBatch]:
    """Receding-horizon control for a fluid and for servers of calls, with the scenario's tuned constants."""
    constants = tuned().get(scenario.key, {})
    return (
        RecedingHorizon(**constants.get("receding-horizon", {})),
        RecedingHorizonBatch(**constants.get("receding-horizon-batch", {})),
    )


def _drifting(scenario: Scenario, p: Programme, share: Array, work: Array) -> list[Array]:
    """Optima with changes within the deadband, and with jumps allowed where they save most."""
    lost = min(1.0, scenario.platform.reallocation_s / scenario.dt)
    points, found = [(work, share)], list[Array]()
    jumps = np.zeros(share.shape, dtype=np.bool_)
    # With routing HiGHS takes several times as long, and jumps gain little.
    for selectivity in (None,) if p.routing.size else (*SELECTIVITY, None):
        result = drifting_shares(p, jumps, scenario.platform.deadband, lost, [points[0], points[-1]])
        if result is None:
            break
        share, work, saved = result
        found.append(share)
        points.append((work, share))
        if selectivity is not None:
            jumps = jumps | (saved > selectivity * (p.within * work * lost + 0.1 * p.price))
    return found


def _smoothed(share: Array, width: int) -> Array:
    """Mean over `width` steps to either side, (T, N)."""
    padded = np.pad(share, ((width, width), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1, axis=0).mean(axis=-1)


def _tracked(scenario: Scenario, targets: Array, jump: Array) -> Array:
    """Follow targets, (C, T, N) [GPU], within the deadband, and at once where they are further off.

    `jump`, (C,) [GPU], is the distance from which a share goes straight to its target. No more
    than the platform is ever held: shares that rise wait for those that fall.
    """
    shares = targets.copy()
    deadband = scenario.platform.deadband
    for t in range(1, targets.shape[1]):
        change = targets[:, t] - shares[:, t - 1]
        near = np.abs(change) <= jump[:, None]
        change = np.where(near, np.clip(change, -deadband, deadband), change)
        rise, fall = np.maximum(change, 0.0), np.minimum(change, 0.0)
        free = np.maximum(0.0, scenario.platform.gpus - (shares[:, t - 1] + fall).sum(axis=1))
        rises = rise.sum(axis=1)
        fits = np.divide(free, rises, out=np.ones_like(free), where=rises > free)
        shares[:, t] = shares[:, t - 1] + fall + rise * fits[:, None]
    return shares


def _kept_warm(scenario: Scenario, shares: Array) -> Array:
    """Hold a crumb for each model that would be unloaded, without asking for more than there is."""
    if isfinite(scenario.platform.keep_alive_s):
        shares = np.maximum(shares, KEEP_WARM)
    return shares / np.maximum(1.0, shares.sum(axis=-1, keepdims=True))


def _children(scenario: Scenario, parents: Array, generator: np.random.Generator) -> Array:
    """Cross pairs of schedules over a random stretch of time, some agents of it more or less generously."""
    _, steps, count = parents.shape
    one, other = generator.integers(len(parents), size=(2, CANDIDATES))
    # The first of the parents is the best: half of the children stay close to it.
    one[::2] = 0
    length = np.ceil(steps * generator.random(CANDIDATES) ** 2)
    start = np.floor((steps - length + 1) * generator.random(CANDIDATES))
    times = np.arange(steps)
    inside = (times >= start[:, None]) & (times < (start + length)[:, None])
    weight = np.where(inside, generator.random((CANDIDATES, 1)), 0.0)[..., None]
    generous = np.exp(0.1 * generator.standard_normal((CANDIDATES, 1, count)))
    generous = np.where(generator.random((CANDIDATES, 1, count)) < 0.5, generous, 1.0)
    children = (1 - weight) * parents[one] + weight * parents[other]
    children *= np.where(inside[..., None], generous, 1.0)
    if scenario.platform.reallocation_s > 0:
        jump = generator.choice([0.0, scenario.platform.deadband, 0.1, 0.2, 0.4], CANDIDATES)
        children = _tracked(scenario, children * scenario.platform.gpus, jump) / scenario.platform.gpus
    return _kept_warm(scenario, children)


class Clairvoyant:
    """A policy for one set of episodes that it knows beforehand: call t returns the shares of step t.

    Not a function of the view alone, and so no baseline: it shows what could be attained. It can
    be evaluated like a policy, on the episodes that it was made for and on no others.
    """

    def __init__(self, scenario: Scenario, episodes: int, seed: int) -> None:
        """Search the schedules of as many episodes, the first with `seed`, the next with `seed` + 1."""
        needs_one_pool(scenario)
        search, seeds = partial(feasible_schedule, scenario), range(seed, seed + episodes)
        self.schedules = in_processes(search, seeds, None, None)
        self._shares = np.stack([schedule.shares for schedule in self.schedules])
        self._step = 0

    def __call__(self, view: View) -> Array:
        """Shares of the next step, shaped as `view.queue`; after the last step the first follows."""
        shares = self._shares[:, self._step % self._shares.shape[1]]
        if view.queue.size != shares.size:
            raise ValueError(
                f"this schedule is for {shares.shape[0]} episodes of {shares.shape[1]} agents, "
                f"got queues of shape {view.queue.shape}; play the episodes that it was made for"
            )
        self._step += 1
        return shares.reshape(view.queue.shape).copy()
