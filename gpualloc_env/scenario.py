"""Scenarios: what the agents, the GPUs, the traffic and the objective are. A registry by name."""

import difflib
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from gpualloc_env.agents import PAPER_AGENTS, SATURATING_AGENTS, Agent, Model, NonNegative
from gpualloc_env.platform import FRICTIONLESS, SERVERLESS, Platform
from gpualloc_env.reward import Objective
from gpualloc_env.state import Array
from gpualloc_env.traces import Split, Trace, Windows, cut
from gpualloc_env.workload import CONSTANT, NO_REPLAY, POISSON, WINDOWS, Burst, Cycle, Source, Surge, Traffic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ScenarioError(ValueError):
    """A scenario that cannot be built; the message names the place, the value and the remedy."""


class Scenario(Model):
    """A complete, frozen description of one environment."""

    name: str
    description: str = ""
    agents: Annotated[tuple[Agent, ...], Field(min_length=1)] = PAPER_AGENTS
    platform: Platform = FRICTIONLESS
    objective: Objective = Objective()
    traffic: Traffic | None = None
    """Synthetic traffic; a scenario has either this or a `trace`."""
    trace: Trace | None = None
    routing: tuple[tuple[NonNegative, ...], ...] | None = None
    """W: requests that agent j finishes become routing[j][i] requests of agent i."""
    agent_spread: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Each episode draws every agent's base throughput, model size and κ within this fraction of its own."""
    steps: Annotated[int, Field(ge=1)] = 300
    dt: Annotated[float, Field(ge=0.01, le=10)] = 1.0
    warm: bool = True
    """Whether all models are loaded at reset."""

    @model_validator(mode="after")
    def _check(self) -> "Scenario":
        names = self.agent_names
        if len(set(names)) < len(names):
            raise ValueError(f"agents must have different names, got {', '.join(names)}")
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
                f"({', '.join(names)}), got {len(traffic.rates_rps)}"
            )
        for surge in traffic.surges:
            if surge.agent not in names:
                raise ValueError(
                    f"traffic.surges names agent {surge.agent!r}; the agents are {', '.join(names)}"
                )

    def _check_routing(self, routing: tuple[tuple[float, ...], ...]) -> None:
        count = len(self.agents)
        if [len(row) for row in routing] != [count] * count:
            raise ValueError(f"routing must have {count} rows of {count} numbers, one for each agent")
        radius = max(abs(np.linalg.eigvals(np.array(routing))))
        if radius >= 1:
            raise ValueError(
                f"routing has spectral radius {radius:.3f}: tasks would never end; "
                "lower its numbers until the radius is below 1"
            )

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
        stamp = self.trace.path.stat() if self.trace.path.is_file() else None
        return _cut_log(self, stamp and (stamp.st_mtime_ns, stamp.st_size))  # pyright: ignore[reportArgumentType]

    def source(self) -> Source:
        """Everything that the compiled draw of an episode reads."""
        count, steps = len(self.agents), self.steps
        kind, rates, surges, cycle = WINDOWS, np.zeros(count), np.zeros((1, count)), np.ones(1)
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
        )


@lru_cache(maxsize=4)
def _cut_log(scenario: Scenario, stamp: tuple[int, int] | None) -> Windows:
    """The windows of a scenario's log, read again when the stamp of the file has changed."""
    # Only a log needs polars, which takes longer to load than all else here.
    from gpualloc_env.trace_formats import read_log

    assert scenario.trace is not None and scenario.trace.path is not None
    log = read_log(scenario.trace.path)
    return cut(log, scenario.trace, scenario.steps, scenario.dt, scenario.agent_names, scenario.utilisation)


_PAPER_RATES = (80.0, 40.0, 45.0, 25.0)
_FLEET = tuple(
    # The minimum shares of 16 of each kind would sum to 16 GPUs, twice what there is.
    agent.model_copy(update={"name": f"{agent.name}-{number}", "min_share": agent.min_share / 2})
    for number in range(1, 17)
    for agent in SATURATING_AGENTS
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="paper",
            description="The paper's experiment: constant traffic at 3.18 times the capacity of one T4.",
            traffic=Traffic(law="constant", rates_rps=_PAPER_RATES),
            steps=100,
        ),
        Scenario(
            name="paper-overload",
            description="The paper's overload: three times its traffic; only the backlog's growth is tested.",
            traffic=Traffic(law="constant", rates_rps=tuple(3 * rate for rate in _PAPER_RATES)),
            steps=100,
        ),
        Scenario(
            name="paper-spike",
            description="The paper's spike: ten times the NLP traffic from 40 s to 50 s; tests the reaction.",
            traffic=Traffic(
                law="constant",
                rates_rps=_PAPER_RATES,
                surges=(Surge(agent="nlp", factor=10, start_s=40, end_s=50),),
            ),
            steps=1000,
            dt=0.1,
        ),
        Scenario(
            name="paper-dominance",
            description="The paper's dominance: 90 % of 190 requests/s go to NLP; tests for starvation.",
            traffic=Traffic(law="constant", rates_rps=(190 / 30, 171.0, 190 / 30, 190 / 30)),
            steps=100,
        ),
        Scenario(
            name="steady",
            description="Poisson traffic, linear GPUs, no friction: the cµ rule has the least holding cost.",
            traffic=Traffic(rates_rps=tuple(rate / 4 for rate in _PAPER_RATES)),
        ),
        Scenario(
            name="serverless",
            description="Bursts, a new mix every episode, concave throughput, cold starts, costly changes.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(load=0.8, mix_concentration=2, burst=Burst(ratio=4, on_s=10, off_s=50)),
        ),
        Scenario(
            name="bursty",
            description="Long silence, then everyone at once, as sparse and as uneven as the Azure code log: "
            "tests what is held, and kept warm, while nothing comes.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(
                rates_rps=(2, 2 / 3, 2 / 3, 2 / 3), burst=Burst(common=True, ratio=50, on_s=40, off_s=150)
            ),
            steps=600,
        ),
        Scenario(
            name="diurnal",
            description="A day of ten minutes: tests whether GPUs go back at night and are there by day.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(
                rates_rps=_PAPER_RATES, load=0.5, cycle=Cycle(amplitude=0.8, period_s=600, peak_s=300)
            ),
            steps=600,
        ),
        Scenario(
            name="workflow",
            description="Tasks that the coordinator hands to specialists and gets back: "
            "tests whether an allocator serves the agent that the others wait for.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(rates_rps=(1, 0, 0, 0), load=0.8),
            routing=((0, 0.22, 0.15, 0.18), (1, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)),
        ),
        Scenario(
            name="fleet",
            description="64 agents on 8 GPUs, other ones in each episode: tests an allocator on many agents.",
            agents=_FLEET,
            agent_spread=0.3,
            platform=SERVERLESS.model_copy(update={"gpus": 8.0}),
            traffic=Traffic(load=0.8, mix_concentration=2, burst=Burst(ratio=4, on_s=10, off_s=50)),
        ),
        Scenario(
            name="trace",
            description="A request log on the serverless platform: tests an allocator on real traffic.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            trace=Trace(),
            steps=30,
        ),
    )
}


def load_scenario(
    scenario: str | Path = "serverless",
    *,
    steps: int | None = None,
    dt: float | None = None,
    load: float | None = None,
    agents: int | None = None,
    trace: str | Path | None = None,
    split: Split | None = None,
    objective: dict[str, float] | None = None,
) -> Scenario:
    """Return a registered scenario or one read from a TOML file, with the given changes.

    Args:
        scenario: a name in `SCENARIOS` or the path of a `.toml` file.
        steps: steps of an episode.
        dt: length of a step [s], 0.01 to 10; the law of the traffic stays the same.
        load: ρ in (0, 10] to which the traffic is rescaled; 1.0 is the platform's full capacity.
        agents: how many: the scenario's own, in turn as often as it takes, on GPUs in proportion.
        trace: a request log that replaces the scenario's traffic.
        split: windows of the log to play: `train`, `eval` or `all`.
        objective: weights that replace the scenario's, by the name of their term.

    Raises:
        ScenarioError: unknown name, or a value that no scenario can have.
        TraceError: a log that cannot be used.
    """
    if str(scenario).endswith(".toml"):
        base, place = _read_toml(Path(scenario)), str(scenario)
    elif scenario in SCENARIOS:
        base, place = SCENARIOS[str(scenario)], f"scenario {scenario!r}"
    else:
        close = difflib.get_close_matches(str(scenario), SCENARIOS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ScenarioError(
            f"unknown scenario {str(scenario)!r}; {hint}"
            f"Give one of {', '.join(SCENARIOS)}, or the path of a .toml file"
        )
    if load is not None and not 0 < load <= 10:
        raise ScenarioError(f"load must be in (0, 10], got {load}; 1.0 is the platform's full capacity")
    data = base.model_dump()
    if agents is not None:
        _resize(data, agents, place)
    if trace is not None:
        data["traffic"], data["trace"] = None, {**(data["trace"] or {}), "path": trace}
    if split is not None and data["trace"] is None:
        raise ScenarioError(f"{place} draws its traffic, so split={split!r} has no meaning; give a trace too")
    changes: dict[str, dict[str, Any]] = {
        "": {"steps": steps, "dt": dt},
        "traffic" if data["trace"] is None else "trace": {"load": load},
        "objective": dict(objective or {}),
    }
    if split is not None:
        changes["trace"]["split"] = split
    for table, values in changes.items():
        target = data[table] if table else data
        target.update({key: value for key, value in values.items() if value is not None})
    return _validated(data, place)


def _resize(data: dict[str, Any], count: int, place: str) -> None:
    """Give a scenario's data so many agents, each with its own rate, and GPUs in proportion."""
    if count < 1:
        raise ScenarioError(f"agents must be at least 1, got {count}")
    own, traffic = data["agents"], data["traffic"]
    if traffic is None or traffic["surges"] or data["routing"] is not None:
        raise ScenarioError(
            f"{place} has a log, surges or routing for its {len(own)} agents, so agents = {count} has no "
            "meaning; write a scenario of its own as a .toml file"
        )
    rounds = [divmod(k, len(own)) for k in range(count)]
    data["agents"] = [
        {**own[i], "name": f"{own[i]['name']}-{lap + 1}" if lap else own[i]["name"]} for lap, i in rounds
    ]
    data["platform"]["gpus"] *= count / len(own)
    if traffic["rates_rps"] is not None:
        traffic["rates_rps"] = [traffic["rates_rps"][i] for _, i in rounds]


def _read_toml(path: Path) -> Scenario:
    if not path.is_file():
        raise ScenarioError(f"{path}: no such file; registered scenarios are {', '.join(SCENARIOS)}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    log = data.get("trace", {}).get("path") if isinstance(data.get("trace"), dict) else None
    if isinstance(log, str):
        data["trace"]["path"] = path.parent / log
    return _validated({"name": path.stem, **data}, str(path))


def _validated(data: dict[str, Any], place: str) -> Scenario:
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = [_explain(dict(problem)) for problem in error.errors()]
        raise ScenarioError("\n".join(f"{place}: {problem}" for problem in problems)) from None


def _explain(problem: dict[str, Any]) -> str:
    """One sentence for one validation problem: the key, the value and what to do."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}Known keys here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the table at a location of a scenario may have."""
    model: type[BaseModel] = Scenario
    tables: dict[str, type[BaseModel]] = {
        "agents": Agent,
        "platform": Platform,
        "objective": Objective,
        "traffic": Traffic,
        "trace": Trace,
        "burst": Burst,
        "cycle": Cycle,
        "surges": Surge,
    }
    for part in location:
        model = tables.get(str(part), model)
    return list(model.model_fields)
