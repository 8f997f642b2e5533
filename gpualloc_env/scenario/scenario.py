"""`Scenario`: what the agents, the GPUs, the traffic and the objective are."""

import hashlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from gpualloc_env.listing import listed
from gpualloc_env.scenario.agents import PAPER_AGENTS, Agent
from gpualloc_env.scenario.model import MOST_AGENTS, Model, Number, StepLength, Steps
from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.platform import FRICTIONLESS, Platform
from gpualloc_env.scenario.trace import Trace
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.simulation.arrivals import CONSTANT, NO_REPLAY, POISSON, WINDOWS, Source
from gpualloc_env.simulation.state import Array
from gpualloc_env.traces.log import Log, TimeUnit, Windows, cut

MOST_VISITS = 1e6
# Rounding leaves the radius of a stochastic matrix, which is 1, a little below as often as above.
LARGEST_RADIUS = 1 - 1e-9


class ScenarioError(ValueError):
    """A scenario that cannot be built; the message names the place, the value and the remedy."""


class Scenario(Model):
    """A complete, frozen description of one environment."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    agents: Annotated[tuple[Agent, ...], Field(min_length=1, max_length=MOST_AGENTS)] = PAPER_AGENTS
    platform: Platform = FRICTIONLESS
    objective: Objective = Objective()
    traffic: Traffic | None = None
    """Synthetic traffic; a scenario has either this or a `trace`."""
    trace: Trace | None = None
    routing: tuple[tuple[Annotated[Number, Field(ge=0, le=MOST_VISITS)], ...], ...] | None = None
    """W: requests that agent j finishes become routing[j][i] requests of agent i."""
    agent_spread: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Each episode draws every agent's base throughput, model size and κ within this fraction of its own."""
    steps: Steps = 300
    """Steps of an episode."""
    dt: StepLength = 1.0
    """Length of a step [s]."""
    warm: bool = True
    """Whether all models are loaded at reset."""

    _digest: str | None = PrivateAttr(None)
    """Of the scenario that this one was made from; empty where that is registered."""

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same, wherever they come from."""
        return isinstance(other, Scenario) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((Scenario, *self.__dict__.values()))

    @model_validator(mode="after")
    def _check(self) -> "Scenario":
        name, count = Counter(self.agent_names).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"agents must have different names, got {name!r} {count} times; rename the others"
            )
        if (self.traffic is None) == (self.trace is None):
            raise ValueError("give either traffic, to draw requests, or trace, to replay a log")
        if self.routing is not None:
            self._check_routing(self.routing)
        if self.traffic is not None:
            self._check_traffic(self.traffic)
        return self

    def _check_traffic(self, traffic: Traffic) -> None:
        names = self.agent_names
        if traffic.rates_rps is not None and len(traffic.rates_rps) != len(names):
            raise ValueError(
                f"traffic.rates_rps needs one rate for each of the {len(names)} agents "
                f"({listed(names)}), got {len(traffic.rates_rps)}"
            )
        for surge in traffic.surges:
            if surge.agent not in names:
                raise ValueError(
                    f"traffic.surges names agent {surge.agent!r}; the agents are {listed(names)}"
                )

    def _check_routing(self, routing: tuple[tuple[float, ...], ...]) -> None:
        count = len(self.agents)
        if [len(row) for row in routing] != [count] * count:
            raise ValueError(f"routing must have {count} rows of {count} numbers, one for each agent")
        matrix = np.array(routing)
        radius = max(abs(np.linalg.eigvals(matrix)))
        if radius > LARGEST_RADIUS:
            raise ValueError(
                f"routing has spectral radius {radius:.3f}: tasks would never end; "
                "lower its numbers until the radius is below 1"
            )
        visits = np.abs(np.linalg.inv(np.eye(count) - matrix.T)).max()
        if visits > MOST_VISITS:
            raise ValueError(
                f"routing sends a task to one agent up to {visits:.3g} times, more than {MOST_VISITS:g}; "
                "lower its numbers"
            )

    @property
    def key(self) -> str:
        """Under which constants that were tuned for this scenario are kept, whatever it was changed to.

        The name of a registered scenario; of any other its name and a digest of what it was
        before it was changed, so that a file that is called like a registered scenario has nothing
        of its constants, and a file that is edited has none of before.
        """
        digest = self._own_digest() if self._digest is None else self._digest
        return f"{self.name}-{digest}" if digest else self.name

    def _own_digest(self) -> str:
        """Of the whole description but the texts, and the name of the log without its folder."""
        log = self.trace.path.name if self.trace is not None and self.trace.path is not None else ""
        content = self.model_dump_json(exclude={"name": True, "description": True, "trace": {"path"}})
        return hashlib.sha256(f"{log} {content}".encode()).hexdigest()[:8]

    def with_key_of(self, origin: "Scenario") -> "Scenario":
        """The same scenario, made from another one of the same name by changing it."""
        made = self.model_copy()
        made._digest = origin._own_digest() if origin._digest is None else origin._digest
        return made

    def as_registered(self) -> "Scenario":
        """The same scenario, whose key is its name."""
        made = self.model_copy()
        made._digest = ""
        return made

    @property
    def agent_names(self) -> tuple[str, ...]:
        """Names of the agents in the order of every array."""
        return tuple(agent.name for agent in self.agents)

    @property
    def varies(self) -> bool:
        """Whether one episode differs from another."""
        traffic = self.traffic
        return traffic is None or bool(
            traffic.law != "constant" or traffic.burst or traffic.mix_concentration or self.agent_spread
        )

    @property
    def routing_matrix(self) -> Array:
        """W, (N, N), or (0, 0) where agents are independent."""
        return np.zeros((0, 0)) if self.routing is None else np.array(self.routing, dtype=np.float64)

    @property
    def visits(self) -> Array:
        """V with λ = V · external, (N, N): the solution (I − Wᵀ)⁻¹ of the traffic equations; (0, 0) for I."""
        if self.routing is None:
            return np.zeros((0, 0))
        return np.linalg.inv(np.eye(len(self.agents)) - self.routing_matrix.T).astype(np.float64)

    def utilisation(self, external: Array) -> float:
        """ρ = Σ_i λ_i/T_i / G for external rates, (N,) [requests/s]: the load of linear GPUs."""
        total = external if self.routing is None else self.visits @ external
        base = np.array([agent.throughput_rps for agent in self.agents])
        return float(np.sum(total / base) / self.platform.gpus)

    @property
    def windows(self) -> Windows:
        """The episodes of the log."""
        if self.trace is None:
            raise ScenarioError(f"scenario {self.name!r} draws its traffic; it has no log")
        if self.trace.path is None:
            raise ScenarioError(
                f"scenario {self.name!r} replays a request log: give its path, as trace='my-log.csv' "
                "or --trace my-log.csv"
            )
        return _cut_log(self, _stamp(self.trace.path))

    def source(self) -> Source:
        """Everything that the compiled draw of an episode reads."""
        count, steps = len(self.agents), self.steps
        kind, rates, surges, cycle = WINDOWS, np.zeros(count), np.ones((1, count)), np.ones(1)
        traffic = self.traffic or Traffic(rates_rps=(1.0,) * count)
        replay = NO_REPLAY
        if self.traffic is None:
            replay = self.windows.replay
        else:
            kind = CONSTANT if traffic.law == "constant" else POISSON
            surges = traffic.surge_profile(self.agent_names, steps, self.dt)
            cycle = traffic.cycle_profile(steps, self.dt)
        profile, load_profile = surges * cycle[:, None], surges[:steps].mean(axis=0)
        if traffic.rates_rps is not None:
            rates = np.array(traffic.rates_rps)
        if traffic.load is not None and not np.any((rates + (traffic.mix_concentration or 0)) * load_profile):
            raise ScenarioError(
                f"scenario {self.name!r}: load = {traffic.load:g} cannot be reached, traffic.surges "
                "silence every agent for the whole episode; end them earlier or leave load out"
            )
        burst = traffic.burst
        return Source(
            kind=kind,
            rates=rates,
            profile=profile,
            mean_profile=profile[:steps].mean(axis=0),
            load_profile=load_profile,
            visits=self.visits,
            load=(traffic.load or 0.0) * self.platform.gpus,
            concentration=traffic.mix_concentration or 0,
            burst_factors=burst.off_factor * np.array([1.0, burst.ratio]) if burst else np.ones(2),
            burst_means=np.array([burst.off_s, burst.on_s]) if burst else np.zeros(2),
            agent_spread=self.agent_spread,
            container_start_s=self.platform.container_start_s,
            common_burst=burst is not None and burst.common,
            replay=replay,
            dt=self.dt,
            steady=bool((profile == profile[0]).all()),
            warm=self.warm,
        )


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None of what is no file, such as a pipe, which is read but once."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _read_log(path: Path, time_unit: TimeUnit | None, stamp: tuple[int, int] | None) -> Log:
    """A log, read again when the stamp of the file has changed."""
    # Only a log needs polars, which takes longer to load than all else here.
    from gpualloc_env.traces.formats import read_log

    return read_log(path, time_unit)


@lru_cache(maxsize=4)
def _cut_log(scenario: Scenario, stamp: tuple[int, int] | None) -> Windows:
    """The windows of a scenario's log with that stamp."""
    assert scenario.trace is not None and scenario.trace.path is not None
    log = _read_log(scenario.trace.path, scenario.trace.time_unit, stamp)
    return cut(
        log,
        scenario.agent_names,
        scenario.utilisation,
        assignment=scenario.trace.assignment,
        load=scenario.trace.load,
        eval_fraction=scenario.trace.eval_fraction,
        split=scenario.trace.split,
        steps=scenario.steps,
        dt=scenario.dt,
    )
