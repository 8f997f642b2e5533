"""`Batch`: the arrays of B environments, and the only object that changes them."""

import math
from collections.abc import Callable

import numpy as np

from gpualloc_env import simulator
from gpualloc_env.buffers import buffers
from gpualloc_env.compiled import resolved
from gpualloc_env.generator import seed_generator
from gpualloc_env.lanes import CLOCK_TOLERANCE, WORKSPACE
from gpualloc_env.observation import (
    OBSERVATION_FEATURES,
    View,
    empty_features,
    encode_parameters,
    view_of,
)
from gpualloc_env.scenario import Scenario
from gpualloc_env.state import (
    AGENT_COLUMNS,
    EPISODE_COLUMNS,
    HISTORY_COLUMNS,
    OUTCOME_COLUMNS,
    REWARD,
    SETTINGS,
    STATE_COLUMNS,
    TERM_COLUMNS,
    TERMS,
    WEIGHTS,
    AnyArray,
    Array,
)
from gpualloc_env.threads import Threads
from gpualloc_env.workload import SCRATCH

SPARE_LANES = 64
_OF_A_STEP = 2  # arrays of a batch that only its steps need, the first of them


class Batch:
    """B independent environments of one scenario, advanced together.

    The single environment, the vector environment and the adapter for stable-baselines3 are
    shells over this class. Environment k seeded with s + k plays the same episodes, bit for
    bit, in a batch of any size. Call `reset` before the first `step`.
    """

    def __init__(self, scenario: Scenario, num_envs: int, *, record: bool = False) -> None:
        """Allocate the arrays.

        Args:
            scenario: what to simulate.
            num_envs: B.
            record: keep every step of the running episodes in `history`, as metrics need it:
                80 bytes for each agent and step.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        count, steps = len(scenario.agents), scenario.steps
        self.scenario = scenario
        self.num_envs = num_envs
        self.num_agents = count
        self.source = scenario.source()
        self.routing = scenario.routing_matrix
        self.settings = _settings(scenario)
        self._nominal = _agent_parameters(scenario)
        # One row serves all environments where no episode draws agents of its own.
        rows = num_envs if scenario.agent_spread > 0 else 1
        self._agents: Array = np.tile(self._nominal, (rows, 1, 1))
        self._features = empty_features((rows, count))
        for row in range(rows):
            encode_parameters(self._agents[row], self.settings, self._features[row])
        # What the compiled code sees has one row for each column, and a lane for each agent of each
        # environment. Spare lanes: without them the columns of 2ⁿ environments would all meet in
        # the same cache lines.
        spare = SPARE_LANES if num_envs * count >= SPARE_LANES else 0
        state = np.zeros((STATE_COLUMNS, num_envs * count + spare))
        self.episode: Array = np.zeros((num_envs, EPISODE_COLUMNS))
        self.outcome_lanes: Array = np.zeros((OUTCOME_COLUMNS, num_envs * count))
        self.terms: Array = np.zeros((num_envs, TERM_COLUMNS))
        self.observation_lanes = np.zeros((num_envs * count, len(OBSERVATION_FEATURES)), dtype=np.float32)
        self._new_outcome = buffers(self.outcome_lanes.shape, np.float64)
        self._new_terms = buffers(self.terms.shape, np.float64)
        self._new_observation = buffers(self.observation_lanes.shape, np.float32)
        self.state: Array = self._by_agent(state)
        self.clock = np.full(num_envs, steps)
        # Time first, so that a step reads and writes in order of memory. One spare column: without
        # it the steps of 2ⁿ environments would all meet in the same cache lines.
        arrivals = np.zeros((steps + 1, (num_envs + 1) * count))
        inflows = np.zeros_like(arrivals) if self.routing.size else arrivals
        by_time = (steps + 1, num_envs + 1, count)
        self.arrivals: Array = arrivals.reshape(by_time)[:, :num_envs]
        self.inflows: Array = inflows.reshape(by_time)[:, :num_envs]
        self.history: Array = np.zeros((num_envs, steps if record else 0, HISTORY_COLUMNS, count))
        self.agents: Array = np.broadcast_to(self._agents, (num_envs, count, AGENT_COLUMNS))
        self.view: View = view_of(self.state, self.agents, self.settings)
        self._generators = np.zeros((num_envs, 4), dtype=np.uint64)
        self._episodes = np.zeros(num_envs, dtype=np.int64)
        # Handing over a range takes as long as some hundred steps, or a dozen episodes' draws.
        self._steppers = Threads(num_envs, smallest_range=2048)
        self._drawers = Threads(num_envs, smallest_range=64)
        self._step: Callable[..., int] | None = None
        self._all = np.ones(num_envs, dtype=np.bool_)
        elapsed = scenario.dt * np.arange(1, steps + 2) / simulator.RATE_TIME_CONSTANT_S
        self._arrays = (
            np.expm1(-elapsed[0]) / np.expm1(-elapsed),
            self.routing,
            self.clock,
            state,
            self._agents,
            self._features,
            self.episode,
            self.settings,
            arrivals,
            inflows,
        )
        # The last arguments of a step, for each thread with its own workspace.
        workspaces = np.zeros((self._steppers.count, WORKSPACE.itemsize), dtype=np.uint8)
        self._rest = [(self.history, workspace, *self._arrays) for workspace in workspaces]

    def __getstate__(self) -> tuple[Scenario, int, bool, tuple[AnyArray, ...]]:
        """What a copy or a pickle needs: the arrays; those that are views of others are made anew."""
        return self.scenario, self.num_envs, self.history.shape[1] > 0, self._contents

    def __setstate__(self, kept: tuple[Scenario, int, bool, tuple[AnyArray, ...]]) -> None:
        """Build the batch again and fill its arrays."""
        scenario, num_envs, record, contents = kept
        self.__init__(scenario, num_envs, record=record)
        for array, content in zip(self._contents, contents, strict=True):
            array[...] = content

    @property
    def _contents(self) -> tuple[AnyArray, ...]:
        return (
            self._generators,
            self._episodes,
            self.history,
            self.outcome_lanes,
            self.terms,
            self.observation_lanes,
            *self._arrays,
        )

    def _by_agent(self, lanes: Array) -> Array:
        """(columns, B · N and spare) as (B, N, columns), in the same memory."""
        used = lanes[:, : self.num_envs * self.num_agents]
        return used.reshape(-1, self.num_envs, self.num_agents).transpose(1, 2, 0)

    @property
    def outcome(self) -> Array:
        """What the step just taken did, (B, N, OUTCOME_COLUMNS), a view of `outcome_lanes`."""
        return self._by_agent(self.outcome_lanes)

    @property
    def observation(self) -> AnyArray:
        """What the policies see now, (B, N, F) float32."""
        return self.observation_lanes.reshape(self.num_envs, self.num_agents, -1)

    def seed(self, seed: int, mask: AnyArray | None = None) -> None:
        """Seed environment k with `seed` + k, or only those of a (B,) bool mask."""
        for k in np.flatnonzero(self._all if mask is None else self._checked(mask)).tolist():
            word = (int(seed) + k) % 2**64
            seed_generator(self._generators[k], np.uint64(word))
            self._episodes[k] = word % 2**62

    def _checked(self, mask: AnyArray) -> AnyArray:
        """The mask as a contiguous array; the compiled code would not notice a wrong one."""
        if getattr(mask, "dtype", None) != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(
                f"a mask must be an array of bool of shape ({self.num_envs},), one for each environment, "
                f"got {mask!r}"
            )
        return np.ascontiguousarray(mask)

    def reset(self, mask: AnyArray | None = None) -> None:
        """Start the next episode in all environments, or in those of a (B,) bool mask."""
        mask = self._all if mask is None else self._checked(mask)
        # Callers may keep what the last step has shown them.
        outcome, observation = self._new_outcome(), self._new_observation()
        outcome[...] = self.outcome_lanes
        self.outcome_lanes, self.observation_lanes = outcome, observation

        def draw(number: int, first: int, last: int) -> None:
            simulator.reset(
                first,
                last,
                mask,
                self.scenario.warm,
                self.source,
                self._generators,
                self._episodes,
                self._nominal,
                np.empty(max(self.num_agents, SCRATCH)),
                np.empty((2, 4), dtype=np.uint64),
                self.outcome_lanes,
                self.observation_lanes,
                *self._arrays[_OF_A_STEP:],
            )

        self._drawers.run(draw)

    def step(self, shares: AnyArray, active: AnyArray | None = None) -> None:
        """Advance all environments, or those of a (B,) bool mask, by one step.

        `outcome`, `terms` and `observation` are new arrays afterwards: a caller may keep those of each step.

        Args:
            shares: fractions of the platform that the policy asks for, (B, N).
            active: which environments to advance.

        Raises:
            ValueError: the shares have the wrong shape or hold a NaN. Nothing has changed then.
            RuntimeError: an episode is over and has not been reset. Nothing has changed then.
        """
        requested = np.ascontiguousarray(shares, np.float64)
        if requested.shape != (self.num_envs, self.num_agents):
            raise ValueError(
                f"shares must have shape {(self.num_envs, self.num_agents)}, one fraction of the platform "
                f"for each agent ({', '.join(self.scenario.agent_names)}), got shape {requested.shape}"
            )
        self.advance(requested, active)

    def advance(self, requested: Array, active: AnyArray | None = None) -> None:
        """`step` for shares that are known to be a C-ordered array of (B, N) float64."""
        # Arrays that nobody holds: callers may keep what earlier steps have shown them.
        outcome, terms, observation = self._new_outcome(), self._new_terms(), self._new_observation()
        if active is None:
            active = self._all
        else:
            active = self._checked(active)
            outcome[...], terms[...] = self.outcome_lanes, 0.0
        arrays = (requested, active, outcome, terms, observation)
        step = self._step
        if step is None:
            step = self._step = resolved(simulator.step, 0, self.num_envs, *arrays, *self._rest[0])
        if self._steppers.count == 1:
            problem = step(0, self.num_envs, *arrays, *self._rest[0])
        else:
            # No range may advance before all of them are known to be sound.
            problem = simulator.check(0, self.num_envs, requested, active, self.clock, self.scenario.steps)
            if problem == simulator.OK:

                def advance(number: int, first: int, last: int) -> None:
                    step(first, last, *arrays, *self._rest[number])

                self._steppers.run(advance)
        if problem == simulator.OK:
            self.outcome_lanes, self.terms, self.observation_lanes = outcome, terms, observation
            return
        if problem == simulator.NOT_A_NUMBER:
            b, i = np.argwhere(np.isnan(requested))[0]
            raise ValueError(
                f"the share asked for agent {self.scenario.agent_names[i]!r} is NaN in environment {b} at "
                f"step {self.clock[b]}; give a number from 0 to 1"
            )
        raise RuntimeError(
            f"the episode is over after {self.scenario.steps} steps, or was never started: call reset()"
        )

    @property
    def reward(self) -> Array:
        """Reward of the step just taken, (B,)."""
        return self.terms[:, REWARD]

    @property
    def done(self) -> AnyArray:
        """Whether the episode has reached its horizon, (B,) bool."""
        return self.clock >= self.scenario.steps


def _settings(scenario: Scenario) -> Array:
    platform, objective = scenario.platform, scenario.objective
    settings = np.array(
        [
            scenario.dt,
            platform.gpus,
            platform.max_share,
            platform.slice or 0.0,
            platform.reallocation_s,
            platform.deadband,
            platform.keep_alive_s,
            1.0 / scenario.dt,
            *(getattr(objective, term) for term in TERMS),
        ]
    )
    assert len(settings) == SETTINGS == WEIGHTS + len(TERMS)
    return settings


def _agent_parameters(scenario: Scenario) -> Array:
    """Parameters of the agents in the order of their columns, (N, AGENT_COLUMNS)."""
    return np.array(
        [
            (
                agent.throughput_rps,
                agent.kappa or 0.0,
                agent.min_share,
                agent.priority,
                scenario.platform.cold_start_s(agent.model_mb),
                agent.slo_s,
                1.0 / agent.priority,
                max(0, math.ceil(agent.slo_s / scenario.dt - CLOCK_TOLERANCE) - 1),
            )
            for agent in scenario.agents
        ]
    )
