"""What is planned for: a log at its own times, cut into windows, on platforms of different sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpualloc_env.scenario.loading import load_scenario, validated
from gpualloc_env.scenario.model import MOST_LOAD
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.platform import PLATFORMS, Preset
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from gpualloc_env.traces.formats import read_log
from gpualloc_env.traces.lines import BLOCK
from gpualloc_env.traces.log import Assignment, Log, TraceError, among, assign
from gpualloc_env.traces.reading import opened, refuse_pipe

DAY_S = 86400.0
MOST_SIZES = 8
LONGEST_WINDOW_S, SHORTEST_WINDOW_S, WINDOWS, MOST_WINDOWS = 300.0, 10.0, 20, 1000


@dataclass(frozen=True)
class Subject:
    """A log, and the scenario that plays it."""

    log: Log
    scenario: Scenario
    span_s: float
    """Time in which it is played [s], that of the log unless a load stretches it."""
    demand: Array
    """GPUs that each agent's work keeps busy in the mean, at full batches on whole GPUs, (N,)."""
    oversized: AnyArray
    """Calls larger than `kv_tokens` of the agent that they visit, (N,); they were given room."""

    @property
    def gpus(self) -> float:
        """GPUs of the platform itself, in a cluster those of all nodes."""
        return float(self.scenario.num_gpus or self.scenario.platform.gpus)

    @property
    def usd_per_gpu_hour(self) -> float:
        """Price of a GPU for an hour [$], in a cluster on its first node."""
        nodes, scenario = self.scenario.nodes, self.scenario
        return scenario.usd_per_gpu_hour(nodes[0]) if nodes else scenario.platform.usd_per_gpu_hour

    def at(self, gpus: float) -> Scenario:
        """The same requests at the same times on so many GPUs, in a cluster on nodes like its first.

        Raises:
            ScenarioError: no such platform.
        """
        scenario = self.scenario
        data = scenario.model_dump()
        if scenario.nodes:
            node = data["nodes"][0]
            full, rest = divmod(int(gpus), node["gpus"])
            data["nodes"] = [node] * full + [{**node, "gpus": rest}] * (rest > 0)
        else:
            data["platform"]["gpus"] = float(gpus)
        if scenario.service == "fluid" or not data["trace"]["own_times"]:
            # What is stretched to a load must last as long on any platform.
            data["trace"]["load"] *= self.gpus / gpus
        return validated(data, f"{gpus:g} GPUs").with_key_of(scenario)

    def day(self, gpus: float) -> Scenario:
        """The first day of the log, or all of a shorter one, as a single episode."""
        scenario = self.at(gpus)
        data = {**scenario.model_dump(), "steps": max(1, int(min(DAY_S, self.span_s) / scenario.dt))}
        return validated(data, f"{gpus:g} GPUs").with_key_of(scenario)

    def sizes(self, asked: tuple[float, ...] | None) -> list[float]:
        """Numbers of GPUs to try, the platform's own among them, in their order.

        By default whole ones up to what all agents can hold, in a cluster up to twice its own, at most
        `MOST_SIZES` of them.

        Raises:
            ValueError: so few that the load passes what can be simulated, or parts of a cluster's.
        """
        least = float(self.demand.sum()) / MOST_LOAD
        if asked is None:
            held = (
                2 * self.gpus if self.scenario.nodes else len(self.demand) * self.scenario.platform.max_share
            )
            most = max(np.ceil(held), np.ceil(least) + 1)
            asked = tuple(np.unique(np.linspace(max(1, np.ceil(least)), most, MOST_SIZES).round()).tolist())
        sizes = sorted({*map(float, asked), self.gpus})
        if self.scenario.nodes and (part := next((each for each in sizes if each % 1), None)) is not None:
            raise ValueError(f"--sweep {part:g}: a cluster has whole GPUs")
        if sizes[0] <= 0 or sizes[0] < least:
            raise ValueError(
                f"--sweep {sizes[0]:g}: the log's work keeps {self.demand.sum():.3g} GPUs busy, and a load "
                f"above {MOST_LOAD:g} is not simulated; give at least {least:.3g} GPUs"
            )
        return sizes


def subject(
    path: Path,
    scenario: str | None,
    overrides: Overrides,
    *,
    preset: Preset | None = None,
    platform: Mapping[str, float | None] | None = None,
    assignment: Assignment | None = None,
    slo_s: float | None = None,
) -> Subject:
    """Read a log and set up the scenario that plays it.

    Args:
        path: of the log.
        scenario: whose agents serve it; none: `llm`, call by call, for a log with tokens, else `trace`.
        overrides: changes to the scenario.
        preset: a platform whose frictions replace the scenario's.
        platform: other changes to the scenario's platform, by key; none leaves what there is.
        assignment: agents that a request visits where the log names none.
        slo_s: objective of every agent [s].

    Raises:
        ValueError: a log or a scenario that cannot be used.
    """
    load_scenario(scenario or "trace", overrides)  # refuses what no log could mend
    refuse_other_logs(path)
    log = read_log(path, overrides.time_unit)
    own = load_scenario(scenario or ("llm" if log.output_tokens is not None else "trace"))
    if own.trace is not None and own.trace.leave_out_others:
        log = among(log, own.agent_names)
    if own.sessions is not None:
        raise ValueError(f"--scenario {scenario} plays sessions, and a plan replays requests; give another")
    changes = {name: value for name, value in (platform or {}).items() if value is not None}
    if own.nodes and (preset is not None or changes):
        given = f"--{next(iter(changes), 'platform').replace('_', '-')}"
        raise ValueError(f"{given}: {scenario} is a cluster, which its file describes; change it there")
    base = load_scenario(own, overrides, trace=path, split=overrides.split or "all")
    data = base.model_dump()
    if preset is not None:
        kept = {name: data["platform"][name] for name in ("gpus", "max_share", "usd_per_gpu_hour")}
        data["platform"] = {**PLATFORMS[preset].model_dump(), **kept}
    data["platform"] |= changes
    if assignment is not None:
        data["trace"]["assignment"] = assignment
    if slo_s is not None:
        data["agents"] = [{**agent, "slo_s": slo_s} for agent in data["agents"]]
    made = validated(data, f"scenario {own.name!r}").with_key_of(base)
    return _played(log, made, overrides)


def _played(log: Log, made: Scenario, overrides: Overrides) -> Subject:
    """The log under a scenario, at the times, with the memory and in the windows that it is played."""
    assert made.trace is not None
    calls = made.service == "requests"
    span_s = log.span_s
    if overrides.load is not None:
        amount = visits(made, log, np.ones(len(log.work)) if calls else log.work)
        span_s = made.utilisation(amount) / overrides.load
    demand, data = gpu_seconds(made, log) / span_s, made.model_dump()
    oversized = make_room(data["agents"], made, log)
    data["trace"]["own_times"], load = overrides.load is None, checked_load(made, demand)
    if not calls:
        data["trace"]["load"] = load
    if overrides.steps is None:
        data["steps"] = window_steps(made, span_s)
    made = validated(data, f"scenario {made.name!r}").with_key_of(made)
    made.source()  # refuses a log that it cannot play
    refuse_blind(made, demand)
    return Subject(log, made, span_s, demand, oversized)


def refuse_blind(scenario: Scenario, demand: Array) -> None:
    """Refuse windows in which no request of some agent can be late: those that still wait count as in time.

    Raises:
        ValueError: they are no longer than the objective of an agent that has work.
    """
    assert scenario.trace is not None
    window_s = scenario.steps * scenario.dt
    working = [agent for agent, work in zip(scenario.agents, demand, strict=True) if work > 0]
    agent = max(working or scenario.agents, key=lambda each: each.slo_s)
    if window_s <= agent.slo_s:
        raise ValueError(
            f"{scenario.trace.path}: played in windows of {window_s:g} s, no longer than the objective of "
            f"agent {agent.name}, {agent.slo_s:g} s: whoever still waits at the end of one would count as in "
            "time; give a longer log, more --steps or a shorter --slo"
        )


def refuse_other_logs(path: Path) -> None:
    """Refuse a log that can be read only once, and one of sessions.

    Raises:
        TraceError: it is one.
    """
    refuse_pipe(path, "a plan")
    with opened(path, "a request log") as file:
        names = file.readline(BLOCK).split(b",")
    if b"session" in names and b"call" in names:
        raise TraceError(
            f"{path} is a log of sessions, whose times count from the start of each: it does not tell when "
            "they came; give a request log, or compare allocators on sessions that come at a load of your "
            f"own: python -m training.compare --scenario magentic --trace {path} --load 0.6"
        )


def visits(scenario: Scenario, log: Log, weight: Array) -> Array:
    """The weights of a log's requests, (n,), in sum over those that visit each agent, (N,)."""
    assert scenario.trace is not None
    count, total = len(scenario.agents), np.zeros(len(scenario.agents))
    for visit in assign(log, scenario.trace.assignment, scenario.agent_names).T:
        total += np.bincount(visit, weights=weight, minlength=count)
    return total


def gpu_seconds(scenario: Scenario, log: Log) -> Array:
    """Time of whole GPUs at full batches that each agent's part of a log takes, (N,) [GPU s]."""
    agents = scenario.agents
    if scenario.service == "fluid":
        total = visits(scenario, log, log.work)
        total = scenario.visits @ total if scenario.routing is not None else total
        return total / np.array([agent.throughput_rps for agent in agents])
    if log.prompt_tokens is None or log.output_tokens is None:
        raise TraceError(
            f"{log.path} has no tokens, and agents of {scenario.name!r} serve calls; give --scenario a "
            "fluid, such as trace, or a log with prompt and output tokens"
        )
    prompt = visits(scenario, log, log.prompt_tokens.astype(np.float64))
    output = visits(scenario, log, np.maximum(log.output_tokens, 1).astype(np.float64))
    each = [
        ((agent.prefill_s_per_token or 0.0), (agent.iteration_s or 0.0) / agent.max_batch) for agent in agents
    ]
    per_call = np.array([agent.iteration_s_per_call or 0.0 for agent in agents])
    prefill, iteration = np.array(each).T
    return prefill * prompt + (iteration + per_call) * output


def make_room(tables: Sequence[dict[str, Any]], scenario: Scenario, log: Log) -> AnyArray:
    """Give agents, by their tables, room for their largest calls, and count those that had none, (N,)."""
    count = np.zeros(len(scenario.agents), np.int64)
    if scenario.service == "fluid":
        return count
    assert scenario.trace is not None and log.prompt_tokens is not None and log.output_tokens is not None
    tokens = log.prompt_tokens + np.maximum(log.output_tokens, 1)
    for visit in assign(log, scenario.trace.assignment, scenario.agent_names).T:
        for i, (agent, table) in enumerate(zip(scenario.agents, tables, strict=True)):
            own = tokens[visit == i]
            count[i] += np.count_nonzero(own > agent.kv_tokens)
            table["kv_tokens"] = max(table["kv_tokens"], int(own.max(initial=0)))
    return count


def checked_load(scenario: Scenario, demand: Array) -> float:
    """The load of a platform that works for so many GPUs, (N,).

    Raises:
        ValueError: a load that cannot be simulated.
    """
    load = float(demand.sum()) / scenario.capacity
    if load > MOST_LOAD:
        raise ValueError(
            f"the log's work keeps {demand.sum():.3g} GPUs busy and the platform has "
            f"{scenario.capacity:g}: a load of {load:.3g}, above {MOST_LOAD:g}, is not simulated; give "
            f"--gpus at least {demand.sum() / MOST_LOAD:.3g}"
        )
    return load


def window_steps(scenario: Scenario, span_s: float) -> int:
    """Steps of episodes of 300 s, or shorter ones where the log has less than 20 of them.

    Never of less than 10 s, nor than ten times the longest service objective. Of a log with more than 1,000
    of them they are as much longer.
    """
    objective = 10 * max(agent.slo_s for agent in scenario.agents)
    window = min(LONGEST_WINDOW_S, max(SHORTEST_WINDOW_S, objective, span_s / WINDOWS))
    window = max(window, span_s / MOST_WINDOWS)
    return max(1, int(min(window, span_s) / scenario.dt))
