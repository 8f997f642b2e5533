"""`Scenario`: what the agents, the GPUs, the traffic and the objective are."""

import hashlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from gpualloc_env.listing import listed
from gpualloc_env.scenario.agents import PAPER_AGENTS, Agent
from gpualloc_env.scenario.model import MOST_AGENTS, Model, Number, PositiveSeconds, StepLength, Steps
from gpualloc_env.scenario.models import REFERENCE_GPU
from gpualloc_env.scenario.nodes import Network, Node, relative_speed
from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.platform import FRICTIONLESS, Platform
from gpualloc_env.scenario.task_law import (
    call_windows,
    calls_per_session,
    stamp_of,
    task_law,
    tasks_of_sessions,
)
from gpualloc_env.scenario.tasks import Sessions, Workflow
from gpualloc_env.scenario.trace import Trace
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.simulation.arrivals import CONSTANT, NO_REPLAY, POISSON, WINDOWS, Source
from gpualloc_env.simulation.state import Array
from gpualloc_env.simulation.tasks import TaskLaw
from gpualloc_env.traces.log import Log, TimeUnit, Windows, among, cut

MOST_NODES = 1024
MOST_VISITS = 1e6
MOST_TURNS = 1e7  # some seconds of drawing for each agent
# Rounding leaves the radius of a stochastic matrix, which is 1, a little below as often as above.
LARGEST_RADIUS = 1 - 1e-9


class ScenarioError(ValueError):
    """A scenario that cannot be built; the message names the place, the value and the remedy."""


class UnexpectedArgument(ScenarioError, TypeError):
    """A change that no scenario knows: callers try arguments on and expect Python's own error."""


class Scenario(Model):
    """A complete, frozen description of one environment."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    agents: Annotated[tuple[Agent, ...], Field(min_length=1, max_length=MOST_AGENTS)] = PAPER_AGENTS
    platform: Platform = FRICTIONLESS
    nodes: Annotated[tuple[Node, ...], Field(max_length=MOST_NODES)] = ()
    """The nodes of a cluster, which `GPUCluster-v0` plays; none: the GPUs are one pool."""
    network: Network = Network()
    """The network between the nodes of a cluster."""
    objective: Objective = Objective()
    service: Literal["fluid", "requests"] = "fluid"
    """How agents serve: a fluid of requests, first come first served, or calls one by one in batches."""
    traffic: Traffic | None = None
    """Synthetic traffic, of tasks where there is a table of them; a scenario has either this, a `trace` or
    `sessions`."""
    trace: Trace | None = None
    tasks: Workflow | None = None
    """What follows the first call of a task, where agents serve calls; none: a task is one call."""
    sessions: Sessions | None = None
    """Tasks that are sessions of a log, where agents serve calls."""
    task_slo_s: PositiveSeconds = 60.0
    """Service objective of a task, where agents serve calls."""
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
        if (self.traffic is not None) + (self.trace is not None) + (self.sessions is not None) != 1:
            raise ValueError(
                "give either traffic, to draw requests, or trace, to replay a log, or, with "
                "service = 'requests', sessions"
            )
        if self.service == "requests":
            self._check_calls()
        elif self.tasks is not None or self.sessions is not None:
            raise ValueError(
                "tasks and sessions are made of calls, which a fluid has none of; add service = 'requests'"
            )
        if self.nodes:
            self._check_nodes()
        elif self.network != Network():
            raise ValueError("a network needs nodes; add a table of [[nodes]] or leave the network out")
        if self.routing is not None:
            self._check_routing(self.routing)
        if self.traffic is not None:
            self._check_traffic(self.traffic)
        return self

    def _check_calls(self) -> None:
        names, tasks = self.agent_names, self.tasks
        for agent in self.agents:
            if agent.iteration_s is None:
                raise ValueError(
                    f"agent {agent.name!r} has no iteration_s, and service = 'requests' needs its times and "
                    "tokens; give a model and a gpu of the catalogue, prompt_tokens and output_tokens"
                )
        if self.routing is not None:
            raise ValueError("routing moves a fluid; with service = 'requests' give a table of tasks instead")
        if tasks is None:
            return
        for name in (tasks.entry, *tasks.specialists):
            if name not in names:
                raise ValueError(f"tasks names agent {name!r}; the agents are {listed(names)}")
        if self.traffic is None:
            raise ValueError("a log has its own tasks; leave out either tasks or trace and sessions")
        rates = self.traffic.rates_rps
        alone = rates is not None and not any(
            rate for rate, name in zip(rates, names, strict=False) if name != tasks.entry
        )
        if not alone:
            raise ValueError(
                f"tasks come to agent {tasks.entry!r} alone; give traffic.rates_rps with zeros for the others"
            )

    def _check_nodes(self) -> None:
        gpus = self.num_gpus
        if self.service != "requests":
            raise ValueError("a cluster serves calls, not a fluid; add service = 'requests'")
        if self.platform.gpus not in (1.0, gpus):
            raise ValueError(
                f"platform.gpus = {self.platform.gpus:g}, but the nodes have {gpus} GPUs; leave it out"
            )
        if self.platform.max_share > 1:
            raise ValueError(
                f"platform.max_share = {self.platform.max_share:g}, but in a cluster a share is a fraction "
                "of one GPU; give at most 1"
            )
        self._check_speeds()

    def _check_speeds(self) -> None:
        """Refuse the catalogue's speed of a node where an agent's times are those of another GPU."""
        elsewhere = [agent for agent in self.agents if agent.gpu not in (None, REFERENCE_GPU)]
        for number, node in enumerate(self.nodes):
            if elsewhere and node.gpu is not None and node.speed == relative_speed(node.gpu):
                name, gpu = elsewhere[0].name, elsewhere[0].gpu
                raise ValueError(
                    f"agent {name!r} has the times of gpu = {gpu!r}, but nodes.{number} has a speed relative "
                    f"to {REFERENCE_GPU!r}, {node.speed:.3g} for gpu = {node.gpu!r}; give the agent gpu = "
                    f"{REFERENCE_GPU!r}, or the node a speed of its own, relative to {gpu!r}"
                )

    def _check_traffic(self, traffic: Traffic) -> None:
        names = self.agent_names
        if traffic.rates_rps is not None and len(traffic.rates_rps) != len(names):
            raise ValueError(
                f"traffic.rates_rps needs one rate for each of the {len(names)} agents "
                f"({listed(names)}), got {len(traffic.rates_rps)}"
            )
        if traffic.burst is not None:
            turns = 2 * self.steps * self.dt / (traffic.burst.on_s + traffic.burst.off_s)
            if turns > MOST_TURNS:
                raise ValueError(
                    f"traffic.burst would turn on and off {turns:.3g} times in an episode of "
                    f"{self.steps * self.dt:g} s, more than {MOST_TURNS:g}; raise on_s and off_s, or lower "
                    "steps"
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
        """Of all that is not at its default but the texts, and the name of the log without its folder."""
        log = self.trace.path.name if self.trace is not None and self.trace.path is not None else ""
        unread = {"name": True, "description": True, "trace": {"path"}}
        # Without defaults a key outlives the settings that are still to come.
        content = self.model_dump_json(exclude=unread, exclude_defaults=True)
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
    def num_gpus(self) -> int:
        """K, the GPUs of a cluster; 0 where there is one pool."""
        return sum(node.gpus for node in self.nodes)

    def usd_per_gpu_hour(self, node: Node) -> float:
        """Price of a GPU of a node for an hour [$], the platform's where the node has none of its own."""
        return self.platform.usd_per_gpu_hour if node.usd_per_gpu_hour is None else node.usd_per_gpu_hour

    @property
    def capacity(self) -> float:
        """GPUs of speed 1 that the platform is worth, in a cluster the sum of the speeds."""
        return sum(node.gpus * node.speed for node in self.nodes) if self.nodes else self.platform.gpus

    @property
    def agent_names(self) -> tuple[str, ...]:
        """Names of the agents in the order of every array."""
        return tuple(agent.name for agent in self.agents)

    @property
    def varies(self) -> bool:
        """Whether one episode differs from another; where agents serve calls, their tokens do."""
        traffic = self.traffic
        return (
            traffic is None
            or self.service == "requests"
            or bool(
                traffic.law != "constant" or traffic.burst or traffic.mix_concentration or self.agent_spread
            )
        )

    @property
    def routing_matrix(self) -> Array:
        """W, (N, N), or (0, 0) where agents are independent."""
        return np.zeros((0, 0)) if self.routing is None else np.array(self.routing, dtype=np.float64)

    @property
    def visits(self) -> Array:
        """V with λ = V · external, (N, N): the solution (I − Wᵀ)⁻¹ of the traffic equations; (0, 0) for I.

        Where agents serve calls, column j holds the calls of each agent for a task that comes to agent j;
        sessions come to the first.
        """
        if self.tasks is not None:
            return self.tasks.visits(self.agent_names)
        if self.sessions is not None:
            visits = np.zeros((len(self.agents), len(self.agents)))
            visits[:, 0] = calls_per_session(tasks_of_sessions(self), len(self.agents))
            return visits
        if self.routing is None:
            return np.zeros((0, 0))
        return np.linalg.inv(np.eye(len(self.agents)) - self.routing_matrix.T).astype(np.float64)

    @property
    def bill_s(self) -> float | None:
        """What the bill of the whole platform weighs in the objective, in seconds of mean latency.

        β / (α + θ n), where a task has n calls in the mean: a second that each call takes longer lengthens a
        task by n. None where the bill or latency do not count.
        """
        objective, visits = self.objective, self.visits
        entries = [0] if self.sessions is not None else range(len(self.agents))
        if self.traffic is not None and self.traffic.rates_rps is not None:
            entries = [i for i, rate in enumerate(self.traffic.rates_rps) if rate > 0]
        calls = float(visits.sum(axis=0)[list(entries)].mean()) if visits.size else 1.0
        latency = objective.latency + objective.task * calls
        return objective.cost / latency if objective.cost > 0 < latency else None

    def utilisation(self, external: Array) -> float:
        """ρ = Σ_i λ_i/T_i / G for external rates, (N,) [requests/s]: the load of linear GPUs."""
        visits = self.visits
        total = visits @ external if visits.size else external
        base = np.array([agent.throughput_rps for agent in self.agents])
        return float(np.sum(total / base) / self.capacity)

    @property
    def windows(self) -> Windows[Any]:
        """The episodes of the log."""
        if self.trace is None:
            raise ScenarioError(f"scenario {self.name!r} draws its traffic; it has no log")
        if self.trace.path is None:
            raise ScenarioError(
                f"scenario {self.name!r} replays a request log: give its path, as trace='my-log.csv' "
                "or --trace my-log.csv"
            )
        return _cut_log(self, stamp_of(self.trace.path))

    def source(self) -> Source | TaskLaw:
        """Everything that the compiled draw of an episode reads."""
        return self._arrivals() if self.service == "fluid" else task_law(self, self._arrivals())

    def _arrivals(self) -> Source:
        """The law of the arrivals from outside: of requests, or of tasks."""
        count, steps = len(self.agents), self.steps
        kind, rates = WINDOWS, np.zeros(count)
        profile = surges = np.ones((1, count))
        traffic = self.traffic or Traffic(rates_rps=(1.0,) * count)
        replay = NO_REPLAY
        if self.sessions is not None:
            kind, traffic = POISSON, Traffic(rates_rps=(1.0, *[0.0] * (count - 1)), load=self.sessions.load)
        elif self.traffic is None:
            replay = self.windows.played if self.service == "fluid" else NO_REPLAY
        else:
            kind = CONSTANT if traffic.law == "constant" else POISSON
            profile, surges = (
                traffic.profile(self.agent_names, steps, self.dt, cycle) for cycle in (traffic.cycle, None)
            )
        load_profile = surges[:steps].mean(axis=0)
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
            load=(traffic.load or 0.0) * self.capacity,
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


@lru_cache(maxsize=4)
def _read_log(path: Path, time_unit: TimeUnit | None, stamp: tuple[int, int] | None) -> Log:
    """A log, read again when the stamp of the file has changed."""
    # Only a log needs polars, which takes longer to load than all else here.
    from gpualloc_env.traces.formats import read_log

    return read_log(path, time_unit)


@lru_cache(maxsize=4)
def _cut_log(scenario: Scenario, stamp: tuple[int, int] | None) -> Windows[Any]:
    """The windows of a scenario's log with that stamp."""
    assert scenario.trace is not None and scenario.trace.path is not None
    log = _read_log(scenario.trace.path, scenario.trace.time_unit, stamp)
    if scenario.trace.leave_out_others:
        log = among(log, scenario.agent_names)
    if scenario.service == "requests":
        return call_windows(scenario, log)
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
