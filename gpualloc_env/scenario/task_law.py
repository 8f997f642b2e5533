"""The law of a scenario's tasks as the compiled draw reads it."""

from functools import lru_cache
from math import inf, log, log1p, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpualloc_env.scenario.models import DATA
from gpualloc_env.simulation.arrivals import Source
from gpualloc_env.simulation.calls import Tasks
from gpualloc_env.simulation.state import AGENT, AnyArray, Array
from gpualloc_env.simulation.tasks import LOG, SESSIONS, SINGLE, WORKFLOW, Flow, TaskLaw
from gpualloc_env.traces.calls import cut_calls, session_tasks
from gpualloc_env.traces.log import Log, Windows

if TYPE_CHECKING:
    from gpualloc_env.scenario.scenario import Scenario
    from gpualloc_env.traces.sessions import SessionLog

SHIPPED_SESSIONS = DATA / "magentic_sessions.csv"
MOST_CALLS = 2**31 - 1  # of an episode: they are numbered in 32 bits


def task_law(scenario: "Scenario", arrivals: Source) -> TaskLaw:
    """Everything but the agents' records, which are the batch's, from the law of the tasks' arrivals."""
    kind, recorded, episodes = SINGLE, _tasks(), 1
    if scenario.trace is not None:
        kind, recorded, episodes = LOG, scenario.windows.played, scenario.windows.episodes
    elif scenario.sessions is not None:
        kind, recorded = SESSIONS, tasks_of_sessions(scenario)
    elif scenario.tasks is not None:
        kind = WORKFLOW
    return TaskLaw(
        arrivals=arrivals,
        nominal=np.zeros((1, len(scenario.agents)), AGENT),
        kind=kind,
        tokens=_tokens(scenario),
        flow=_flow(scenario),
        recorded=_tasks(recorded),
        episodes=episodes,
        horizon=scenario.steps * scenario.dt,
        most=MOST_CALLS,
    )


def _tasks(tasks: Tasks | None = None) -> Tasks:
    """Tasks in arrays of the types that the compiled draw expects; none by default."""
    if tasks is None:
        return _tasks(Tasks(*(np.zeros(int(name == "first")) for name in Tasks._fields)))
    times = {"time", "after_s"}
    return Tasks._make(
        np.ascontiguousarray(values, np.float64 if name in times else np.int64)
        for name, values in zip(Tasks._fields, tasks, strict=True)
    )


def _tokens(scenario: "Scenario") -> Array:
    """Mean and deviation of the logarithm of each agent's prompts, and of its outputs, (N, 4).

    A lognormal number of mean m and coefficient of variation v has σ² = ln(1 + v²) and µ = ln m − σ²/2.
    """
    rows: list[tuple[float, float, float, float]] = []
    for agent in scenario.agents:
        row: list[float] = []
        for mean, variation in (
            (agent.prompt_tokens or 0.0, agent.prompt_cv),
            (agent.output_tokens or 0.0, agent.output_cv),
        ):
            square = log1p(variation**2)
            row += [log(mean) - square / 2 if mean > 0 else -inf, sqrt(square)]
        rows.append((row[0], row[1], row[2], row[3]))
    return np.array(rows)


def _flow(scenario: "Scenario") -> Flow:
    tasks, names = scenario.tasks, scenario.agent_names
    if tasks is None:
        return Flow(0, 1.0, np.zeros(0, np.int64), 0, 0, 0.0)
    specialists = np.array([names.index(name) for name in tasks.specialists], dtype=np.int64)
    return Flow(
        names.index(tasks.entry), float(tasks.end), specialists, tasks.least, tasks.most, float(tasks.tool_s)
    )


def kv_capacities(scenario: "Scenario") -> AnyArray:
    """K of each agent [tokens], (N,) int64."""
    return np.array([agent.kv_tokens for agent in scenario.agents], dtype=np.int64)


def stamp_of(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None of what is no file, such as a pipe, which is read but once."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=128)
def _read_sessions(path: Path, stamp: object) -> "SessionLog":
    # Only a log needs polars, which takes longer to load than all else here.
    from gpualloc_env.traces.sessions import read_sessions

    return read_sessions(path)


def tasks_of_sessions(scenario: "Scenario") -> Tasks:
    """The sessions of a scenario as tasks."""
    assert scenario.sessions is not None
    path, agents = scenario.sessions.path or SHIPPED_SESSIONS, scenario.agents
    return session_tasks(
        _read_sessions(path, stamp_of(path)),
        scenario.agent_names,
        kv_capacities(scenario),
        lambda i, prompt, output: agents[i].alone_s(prompt, output),
    )


def calls_per_session(tasks: Tasks, agents: int) -> Array:
    """Mean number of calls of each agent in a session, (N,)."""
    return np.bincount(tasks.agent, minlength=agents) / (len(tasks.first) - 1)


def call_windows(scenario: "Scenario", log: Log) -> Windows[Tasks]:
    """The windows of a scenario's log of requests with tokens."""
    assert scenario.trace is not None
    return cut_calls(
        log,
        scenario.agent_names,
        kv_capacities(scenario),
        scenario.utilisation,
        assignment=scenario.trace.assignment,
        load=None if scenario.trace.own_times else scenario.trace.load,
        eval_fraction=scenario.trace.eval_fraction,
        split=scenario.trace.split,
        steps=scenario.steps,
        dt=scenario.dt,
    )
