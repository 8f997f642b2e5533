"""`Batch`: the arrays of B environments, and the only object that changes them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from gpualloc_env.compiled import resolved
from gpualloc_env.listing import listed
from gpualloc_env.memory import check_calls, check_memory, most_calls
from gpualloc_env.scenario.clusters import CLUSTERS
from gpualloc_env.scenario.scenario import Scenario, ScenarioError
from gpualloc_env.simulation import fluid, requests
from gpualloc_env.simulation.arrivals import Source, new_arrival_scratch
from gpualloc_env.simulation.calls import Service, Tasks, new_service, row_of
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, View, derive, encode_agents, view_of
from gpualloc_env.simulation.random import seed_generator
from gpualloc_env.simulation.shares import (
    CLOCK_TOLERANCE,
    NOT_A_NUMBER,
    OK,
    RATE_TIME_CONSTANT_S,
    World,
    check,
)
from gpualloc_env.simulation.state import (
    AGENT,
    EPISODE,
    OUTCOME,
    SETTINGS,
    STATE,
    TERMS,
    WORTH,
    AnyArray,
    Array,
    names_of,
    plain,
)
from gpualloc_env.simulation.tasks import TaskLaw, draw_episode, new_scratch
from gpualloc_env.simulation.threads import Threads

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Batch:
    """B independent environments of one scenario, advanced together.

    The single environment, the vector environment and the adapter for stable-baselines3 are
    shells over this class. Environment k seeded with s + k plays the same episodes, bit for
    bit, in a batch of any size. Call `reset` before the first `step`.
    """

    environment, of_clusters = "GPUAlloc-v0", False
    """The id of the environments that are shells over it, and whether these are clusters."""
    shares_are = "one fraction of the platform for each agent"
    """What the numbers of an action are, as messages say it."""

    def __init__(
        self,
        scenario: Scenario,
        num_envs: int,
        *,
        record: bool = False,
        source: Source | TaskLaw | None = None,
    ) -> None:
        """Allocate the arrays.

        Args:
            scenario: what to simulate.
            num_envs: B.
            record: keep every step of the running episodes in `history`, as metrics need it:
                88 bytes for each agent and step.
            source: what episodes are drawn from; by default the scenario's, which reads its log.
        """
        self._check_kind(scenario)
        check_memory(scenario, num_envs, record=record)
        count, steps = len(scenario.agents), scenario.steps
        self.scenario, self.num_envs, self.num_agents = scenario, num_envs, count
        self.source = scenario.source() if source is None else source
        self._nominal = _agent_records(scenario)
        self._service: Service | None = None
        if isinstance(self.source, TaskLaw):
            self._law = self.source._replace(nominal=self._nominal, most=most_calls(self.source.most))
            self.source = self._law
            self._service = new_service(num_envs, count, max(1, scenario.num_gpus))
        routing = scenario.routing_matrix
        # Time first, so that a step reads and writes in order of memory.
        arrivals = np.zeros((steps + 1, num_envs, count))
        apart = routing.size > 0 or self._service is not None
        self.world = World(
            settings=_setting_records(scenario),
            # One row serves all environments where no episode draws agents of its own.
            agents=np.tile(self._nominal, (num_envs if scenario.agent_spread > 0 else 1, 1)),
            state=np.zeros((num_envs, count), STATE),
            clock=np.full(num_envs, steps),
            worth=np.zeros(num_envs, WORTH),
            episode=np.zeros(num_envs, EPISODE),
            history=np.zeros((num_envs, steps if record else 0, count), OUTCOME),
            routing=routing,
            rate_gain=_rate_gain(scenario),
            arrivals=arrivals,
            inflows=np.zeros_like(arrivals) if apart else arrivals,
            generators=np.zeros((num_envs, 3, 4), dtype=np.uint64),
            windows=np.zeros(num_envs, dtype=np.int64),
        )
        encode_agents(self.world.agents, self.world.settings)
        self._shapes = (num_envs, count, len(names_of(OUTCOME))), (num_envs, count, len(OBSERVATION_FEATURES))
        self.info = np.zeros(self._shapes[0])
        """What the step just taken did, (B, N, columns of OUTCOME), of which callers see the first."""
        self.observation = np.zeros(self._shapes[1], dtype=np.float32)
        """What the policies see now, (B, N, F) float32."""
        self.view: View = view_of(self.state, self.agents, self.world.settings)
        # Handing over a range takes as long as some hundred steps, or a dozen episodes' draws.
        self._steppers, self._drawers = Threads(num_envs, 2048), Threads(num_envs, 64)
        self._step: Callable[..., int] | None = None
        self._all = np.ones(num_envs, dtype=np.bool_)

    def _check_kind(self, scenario: Scenario) -> None:
        """Refuse a scenario of the other kind of environment."""
        if bool(scenario.nodes) == self.of_clusters:
            return
        if scenario.nodes:
            raise ScenarioError(
                f"scenario {scenario.name!r} is a cluster of {len(scenario.nodes)} nodes, and "
                f"{self.environment} has one pool of GPUs; make GPUCluster-v0, or leave out the nodes"
            )
        raise ScenarioError(
            f"scenario {scenario.name!r} has no nodes, and {self.environment} needs some; make GPUAlloc-v0, "
            f"give one of {', '.join(CLUSTERS)}, or add a table of [[nodes]]"
        )

    def __getstate__(self) -> tuple[Scenario, int, bool, Source | TaskLaw, tuple[AnyArray, ...]]:
        """What a copy or a pickle needs: the arrays; those that are views of others are made anew."""
        return self.scenario, self.num_envs, self.history.shape[1] > 0, self.source, self._contents

    def __setstate__(self, kept: tuple[Scenario, int, bool, Source | TaskLaw, tuple[AnyArray, ...]]) -> None:
        """Build the batch again and fill its arrays."""
        scenario, num_envs, record, source, contents = kept
        self.__init__(scenario, num_envs, record=record, source=source)
        if self._service is not None:
            # Its rows are as long as the tasks that were drawn.
            self._service = Service._make(content.copy() for content in contents[-len(self._service) :])
        for array, content in zip(self._contents, contents, strict=True):
            array[...] = content

    def become(self, one: "Batch") -> None:
        """Make every environment a copy of the only one of another batch of the same scenario.

        Raises:
            ValueError: the other batch has several environments, or another scenario, or it is of clusters.
        """
        if self.of_clusters:
            raise ValueError(
                f"scenario {self.scenario.name!r} is a cluster, whose instances are not copied from one "
                "batch to another; use copy.deepcopy of the other batch"
            )
        if one.num_envs != 1 or one.scenario != self.scenario:
            raise ValueError(
                f"copies need a batch of one environment of {self.scenario.name!r}, got one of "
                f"{one.num_envs} of {one.scenario.name!r}"
            )
        if one._service is not None:
            self._service = Service._make(np.repeat(each, self.num_envs, axis=0) for each in one._service)
        for mine, theirs in zip(self.world, one.world, strict=True):
            mine[...] = theirs
        self.info = np.repeat(one.info, self.num_envs, axis=0)
        self.observation = np.repeat(one.observation, self.num_envs, axis=0)

    @property
    def share_shape(self) -> tuple[int, ...]:
        """Shape of one environment's action."""
        return (self.num_agents,)

    @property
    def _contents(self) -> tuple[AnyArray, ...]:
        return (*self.world, self.info, self.observation, *(self._service or ()))

    @property
    def state(self) -> AnyArray:
        """What the policies see and what the next step needs besides, (B, N) of STATE."""
        return self.world.state

    @property
    def agents(self) -> AnyArray:
        """Parameters of the agents in the running episodes, (B, N) of AGENT."""
        return np.broadcast_to(self.world.agents, (self.num_envs, self.num_agents))

    @property
    def arrivals(self) -> Array:
        """Exogenous arrivals of the running episodes, (T + 1, B, N) [requests]."""
        return self.world.arrivals

    @property
    def inflows(self) -> Array:
        """Arrivals so far, routed requests included, (T + 1, B, N) [requests]."""
        return self.world.inflows

    @property
    def history(self) -> AnyArray:
        """Every step of the running episodes, (B, T, N) of OUTCOME; T is 0 where none is recorded."""
        return self.world.history

    def recorded(self, b: int) -> AnyArray:
        """The steps that the running episode of environment b has taken, (t, N) of OUTCOME."""
        return self.history[b, : self.clock[b]]

    @property
    def outcome(self) -> AnyArray:
        """What the step just taken did, (B, N) of OUTCOME: the columns of `info` by name."""
        return self.info.view(OUTCOME)[..., 0]

    @property
    def worth(self) -> AnyArray:
        """What the step just taken was worth, (B,) of WORTH; live, as `state` is."""
        return self.world.worth

    @property
    def reward(self) -> Array:
        """Reward of the step just taken, (B,)."""
        return self.worth["reward"].copy()

    @property
    def clock(self) -> AnyArray:
        """Steps taken in the running episodes, (B,) int64."""
        return self.world.clock

    @property
    def totals(self) -> AnyArray:
        """Sums over the steps taken of the terms and the reward, (B,), by name as in WORTH."""
        return self.world.episode["total"]

    @property
    def done(self) -> AnyArray:
        """Whether the episode has reached its horizon, (B,) bool."""
        return self.clock >= self.scenario.steps

    def own_metrics(self, b: int) -> dict[str, float]:
        """Metrics of the episode of environment b that episodes of this kind alone have."""
        return {}

    def seed(self, seed: int | Sequence[int | None], mask: AnyArray | None = None) -> None:
        """Seed environment k with `seed` + k, or only those of a (B,) bool mask.

        Of a list, environment k is seeded with `seed[k]`, and goes on as it is where that is None.
        """
        for k in np.flatnonzero(self._all if mask is None else self.checked_mask(mask)).tolist():
            own = seed[k] if isinstance(seed, Sequence) else int(seed) + k
            if own is not None:
                word = int(own) % 2**64
                seed_generator(self.world.generators[k, 0], np.uint64(word))
                self.world.windows[k] = word % 2**62

    def checked_mask(self, mask: AnyArray) -> AnyArray:
        """A (B,) bool mask as a contiguous array; the compiled code would not notice a wrong one.

        Raises:
            ValueError: it has another shape or type.
        """
        if getattr(mask, "dtype", None) != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(
                f"a mask must be an array of bool of shape ({self.num_envs},), one for each environment, "
                f"got {mask!r}"
            )
        return np.ascontiguousarray(mask)

    def reset(self, mask: AnyArray | None = None) -> None:
        """Start the next episode in all environments, or in those of a (B,) bool mask."""
        mask = self._all if mask is None else self.checked_mask(mask)
        # Callers may keep what the last step has shown them.
        observation = np.empty_like(self.observation)

        source = self.source
        if isinstance(source, TaskLaw):
            self._draw_tasks(source, mask, observation)
        else:

            def draw(first: int, last: int) -> None:
                scratch = new_arrival_scratch(self.scenario.steps, self.num_agents)
                fluid.reset(first, last, mask, source, self._nominal, self.world, scratch, observation)

            self._drawers.run(draw)
        self._forget(mask)
        self.observation = observation

    def _forget(self, mask: AnyArray) -> None:
        """Start the episodes of a (B,) bool mask with no step; callers may keep what the last one did."""
        self.info = self.info.copy()
        self.info[mask] = 0.0

    def _draw_tasks(self, law: TaskLaw, mask: AnyArray, observation: AnyArray) -> None:
        """Draw the tasks of new episodes, and enlarge the arrays where there are more than before.

        Raises:
            ScenarioError: no memory holds them; the episodes asked for have not begun then.
        """
        while mask.any():
            service = self.service

            def draw(first: int, last: int, mask: AnyArray = mask, service: Service = service) -> None:
                scratch = new_scratch(self.num_agents, law)
                draw_episode(first, last, mask, law, self.world, service, scratch, observation)

            self._drawers.run(draw)
            run, rooms = service.run, (service.tasks, service.calls, service.running)
            asked = [run[name] for name in ("tasks", "calls", "places")]
            mask = mask & np.any([n > room.shape[1] for n, room in zip(asked, rooms, strict=True)], axis=0)
            if mask.any():
                most = tuple(int(numbers[mask].max()) for numbers in asked)
                check_calls(self.scenario, self.num_envs, most, law.most)
                self._service = service.widened(*most)

    @property
    def service(self) -> Service:
        """The tasks, calls and servers of the running episodes.

        Raises:
            ValueError: the scenario's agents serve a fluid.
        """
        if self._service is None:
            raise ValueError(
                f"scenario {self.scenario.name!r} serves a fluid of requests and has no tasks; one with "
                "service = 'requests' has"
            )
        return self._service

    def tasks(self, b: int) -> Tasks:
        """The tasks of the running episode of environment b, all of which are drawn at its reset."""
        return row_of(self.service, b)

    def step(self, shares: AnyArray, active: AnyArray | None = None) -> None:
        """Advance all environments, or those of a (B,) bool mask, by one step.

        `info` and `observation` are new arrays afterwards: a caller may keep those of each step.

        Args:
            shares: fractions of the platform that the policy asks for, (B, N); in a cluster those of
                each GPU, (B, N, K).
            active: which environments to advance.

        Raises:
            TypeError: the shares are no real numbers.
            ValueError: they have the wrong shape or hold a NaN. Nothing has changed then.
            RuntimeError: an episode is over and has not been reset. Nothing has changed then.
        """
        requested = np.ascontiguousarray(real_numbers("shares", shares), np.float64)
        if requested.shape != (self.num_envs, *self.share_shape):
            raise ValueError(
                f"shares must have shape {(self.num_envs, *self.share_shape)}, {self.shares_are} "
                f"({listed(self.scenario.agent_names)}), got shape {requested.shape}"
            )
        self.advance(requested.reshape(self.num_envs, -1), active)

    def advance(self, requested: Array, active: AnyArray | None = None) -> None:
        """`step` for shares that are known to be a C-ordered array of float64, (B, N) or (B, N K)."""
        # New arrays: callers may keep what earlier steps have shown them.
        if active is None:
            active, info = self._all, np.empty(self._shapes[0])
        else:
            active, info = self._some(active)
        observation, service, step = np.empty(self._shapes[1], FLOAT32), self._service, self._step
        if step is None:
            step = self._step = self._resolved()
        if service is None:
            problem = step(requested, active, self.world, info, observation)
        else:
            problem = step(requested, active, self.world, service, info, observation)
        if problem != OK or active is not self._all:
            self._conclude(problem, requested, active)
        self.info, self.observation = info, observation

    def _some(self, active: AnyArray) -> tuple[AnyArray, Array]:
        """A (B,) bool mask of those to be advanced, checked, and what the others did in their last step."""
        return self.checked_mask(active), self.info.copy()

    def _conclude(self, problem: int, requested: Array, active: AnyArray) -> None:
        """Refuse what was wrong; what was not advanced was worth nothing, and its J stays."""
        if problem != OK:
            self._refuse(problem, np.where(active[:, None], requested, 0.0))
        plain(self.worth)[~active, :-1] = 0.0

    def _resolved(self) -> Callable[..., int]:
        """The compiled step of all environments, which takes what is asked for, for which, and `_stepped`."""
        requested = np.empty((self.num_envs, math.prod(self.share_shape)))
        step = resolved(self._compiled, 0, self.num_envs, requested, self._all, *self._stepped)
        if self._steppers.count == 1:
            return partial(step, 0, self.num_envs)
        return partial(_on_threads, self._steppers, step, self.num_envs, self.scenario.steps)

    @property
    def _stepped(self) -> tuple[Any, ...]:
        """What a step reads and writes."""
        service = () if self._service is None else (self._service,)
        return (self.world, *service, self.info, self.observation)

    @property
    def _compiled(self) -> Callable[..., int]:
        """The step of all that this batch is."""
        return fluid.step if self._service is None else requests.step

    def _refuse(self, problem: int, requested: Array) -> NoReturn:
        """Say why a step was refused that asked for these numbers, 0 where nothing was to be advanced."""
        if problem == NOT_A_NUMBER:
            b, i = np.argwhere(np.isnan(requested))[0]
            raise ValueError(
                f"the share asked for agent {self.scenario.agent_names[i]!r} is NaN in environment {b} at "
                f"step {self.clock[b]}; give a number from 0 to 1"
            )
        self._refuse_after_the_end()

    def _refuse_after_the_end(self) -> NoReturn:
        raise RuntimeError(
            f"the episode is over after {self.scenario.steps} steps, or was never started: call reset()"
        )


def _on_threads(
    threads: Threads, step: Callable[..., int], num_envs: int, steps: int, *arguments: Any
) -> int:
    """Call the compiled step for ranges of environments side by side."""
    # No range may advance before all of them are known to be sound.
    requested, active, world = arguments[:3]
    problem = check(0, num_envs, requested, active, world.clock, steps)
    if problem == OK:
        threads.run(lambda first, last: step(first, last, *arguments))
    return problem


def real_numbers(name: str, values: object) -> AnyArray:
    """An argument as an array, unless it holds what NumPy would make numbers of in silence.

    Raises:
        TypeError: complex numbers, texts, dates, objects, or an array with a mask.
    """
    array = np.asarray(values)
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must have a number in every place, got an array with a mask; fill it first")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}; give an array of float32")
    return array


def _rate_gain(scenario: Scenario) -> Array:
    """Weight of a step's rate in the smoothed one, (T + 1,): a mean over the time observed so far."""
    elapsed = scenario.dt * np.arange(1, scenario.steps + 2) / RATE_TIME_CONSTANT_S
    return np.expm1(-elapsed[0]) / np.expm1(-elapsed)


def _setting_records(scenario: Scenario) -> AnyArray:
    """The settings that all environments share, (1,) of SETTINGS."""
    platform, objective = scenario.platform, scenario.objective
    settings = np.zeros(1, SETTINGS)
    settings["dt"] = scenario.dt
    for name in names_of(SETTINGS):
        if name in type(platform).model_fields:
            settings[name] = getattr(platform, name) or 0.0
    if scenario.nodes:
        settings["gpus"] = scenario.num_gpus
    for term in TERMS:
        settings["price"][term] = getattr(objective, term)
    derive(settings)
    return settings


def _agent_records(scenario: Scenario) -> AnyArray:
    """The agents' nominal parameters, (1, N) of AGENT."""
    agents = np.zeros((1, len(scenario.agents)), AGENT)
    for record, agent in zip(agents[0], scenario.agents, strict=True):
        record["throughput"], record["kappa"] = agent.throughput_rps, agent.kappa or 0.0
        record["min_share"], record["priority"] = agent.min_share, agent.priority
        record["cold_start"] = scenario.platform.cold_start_s(agent.model_mb)
        record["slo"], record["weight"] = agent.slo_s, 1.0 / agent.priority
        record["max_batch"], record["kv_tokens"] = agent.max_batch, agent.kv_tokens
        record["model_mb"] = agent.model_mb
        record["need_mb"] = agent.model_mb + agent.kv_tokens * agent.kv_mb_per_token
        if scenario.service == "requests":
            record["iteration"], record["iteration_per_call"] = agent.iteration_s, agent.iteration_s_per_call
            record["prefill_per_token"] = agent.prefill_s_per_token
        lag = math.ceil(agent.slo_s / scenario.dt - CLOCK_TOLERANCE) - 1
        record["slo_lag"] = min(max(0, lag), scenario.steps + 1)  # no request of an episode is older
    return agents
