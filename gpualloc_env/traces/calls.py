"""Logs as tasks of calls: the requests of a log with tokens, and the sessions of multi-agent tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpualloc_env.listing import listed
from gpualloc_env.simulation.calls import Tasks
from gpualloc_env.simulation.state import AnyArray, Array
from gpualloc_env.traces.log import Assignment, Log, Split, TraceError, Windows, account, assign, cut_time


class SessionLog(NamedTuple):
    """The calls of S sessions, session by session in the order in which they begin in the file."""

    path: Path
    first: AnyArray  # (S + 1,) first call of each session
    time_s: Array  # (C,) [s] of issue, from any origin within its session
    agent: AnyArray  # (C,) index in `agent_names`
    prompt: AnyArray  # (C,) [tokens]
    output: AnyArray  # (C,) [tokens]
    line: AnyArray  # (C,) where it stands in the file
    agent_names: tuple[str, ...]


def cut_calls(
    log: Log,
    agent_names: tuple[str, ...],
    kv_tokens: AnyArray,
    gpu_seconds: Callable[[Array], float],
    *,
    assignment: Assignment,
    load: float | None,
    eval_fraction: float,
    split: Split,
    steps: int,
    dt: float,
) -> Windows[Tasks]:
    """Cut a log into windows, at its own times or after stretching it to a load.

    Each request is a task of one stage: a call of its prompt and its output at each agent that it visits,
    all issued at its own stamp. A request without output counts as one of 1 token, which its prefill makes.

    Args:
        log: the requests.
        agent_names: names of the N agents.
        kv_tokens: (N,) capacity of the KV cache of each [tokens].
        gpu_seconds: GPU time that (N,) calls take in all, as a multiple of the platform's capacity per
            second: Σ_i λ_i/T_i / G.
        assignment: the rule by which a request visits agents.
        load: ρ over the whole log; none leaves its times as they are.
        eval_fraction: the last part of the windows, kept for evaluation.
        split: which windows are played.
        steps: steps of a window.
        dt: length of a step [s].

    Raises:
        TraceError: the log has no tokens, a request larger than the KV cache of its agent, or is too short.
    """
    if log.prompt_tokens is None:
        raise TraceError(
            f"{log.path} has no tokens, and agents that serve calls need them; give a log of a format with "
            "prompt and output tokens"
        )
    agents = assign(log, assignment, agent_names)
    # Work that is timed as a whole is a prefill, which makes one token.
    made = np.ones_like(log.prompt_tokens) if log.output_tokens is None else log.output_tokens
    silent = int(np.count_nonzero(made == 0))
    prompt, output = log.prompt_tokens, np.maximum(made, 1)
    for visit in agents.T:
        check_capacity(log.path, log.line, visit, prompt + output, agent_names, kv_tokens)
    span, window_s = log.span_s, steps * dt
    if load is not None:
        calls = np.bincount(agents.ravel(), minlength=len(agent_names)).astype(np.float64)
        span = gpu_seconds(calls) / load
    time = log.time_s * (span / log.span_s)
    parts = cut_time(log, span, steps, dt, eval_fraction, split, load)
    ends = np.searchsorted(time, [parts.training * window_s, parts.windows * window_s, np.inf])
    went = account(log, span, load, np.diff(ends, prepend=0), parts, window_s)
    empty = f"{silent} requests without output count as ones of 1 token" if silent else ""
    played = slice(*np.searchsorted(time, [parts.first * window_s, parts.last * window_s]))
    start = parts.first * window_s
    tasks = _tasks_at_once(time[played] - start, agents[played], prompt[played], output[played])
    accounting = "; ".join(part for part in (went, empty, *log.notes) if part)
    return Windows(tasks, parts.last - parts.first, accounting)


def _tasks_at_once(time: Array, agents: AnyArray, prompt: AnyArray, output: AnyArray) -> Tasks:
    """Tasks of one stage, each of a call with the same tokens at some agents, (M, visits)."""
    count, visits = agents.shape
    return Tasks(
        time=time,
        first=np.arange(count + 1) * visits,
        agent=agents.ravel(),
        stage=np.zeros(count * visits, np.int64),
        prompt=np.repeat(prompt, visits),
        output=np.repeat(output, visits),
        after_s=np.zeros(count * visits),
    )


def session_tasks(
    log: SessionLog,
    agent_names: tuple[str, ...],
    kv_tokens: AnyArray,
    alone_s: Callable[[int, int, int], float],
) -> Tasks:
    """The sessions of a log as tasks: each call a stage of its own, all times of arrival 0.

    What lies between two calls, less the time that the first of them takes on its own, is the time of a
    tool or of a person: `after_s` of the second, never below 0.

    Args:
        log: the sessions.
        agent_names: names of the N agents.
        kv_tokens: (N,) capacity of the KV cache of each [tokens].
        alone_s: time of a call on a whole GPU that serves no other [s], by agent, prompt and output.

    Raises:
        TraceError: the log names an unknown agent, or has a call larger than the KV cache of its agent.
    """
    for code, name in enumerate(log.agent_names):
        if name not in agent_names:
            line = log.line[log.agent == code].min()
            raise TraceError(
                f"{log.path}, line {line}, field agent: {name!r} is no agent of the scenario; name one of "
                f"{listed(agent_names)}, or give a scenario file with yours"
            )
    agent = np.array([agent_names.index(name) for name in log.agent_names], dtype=np.int64)[log.agent]
    check_capacity(log.path, log.line, agent, log.prompt + log.output, agent_names, kv_tokens)
    calls = zip(agent.tolist(), log.prompt.tolist(), log.output.tolist(), strict=True)
    took = np.array([alone_s(*call) for call in calls])
    after_s = np.maximum(0.0, np.diff(log.time_s, prepend=0.0) - np.append(0.0, took[:-1]))
    after_s[log.first[:-1]] = 0.0
    stage = np.arange(len(agent)) - np.repeat(log.first[:-1], np.diff(log.first))
    return Tasks(
        time=np.zeros(len(log.first) - 1),
        first=log.first,
        agent=agent,
        stage=stage,
        prompt=log.prompt,
        output=log.output,
        after_s=after_s,
    )


def check_capacity(
    path: Path, line: AnyArray, agent: AnyArray, tokens: AnyArray, names: tuple[str, ...], kv_tokens: AnyArray
) -> None:
    """Refuse a call, by its line, larger than the KV cache of its agent.

    Raises:
        TraceError: naming the call, the agent and what it has.
    """
    large = np.flatnonzero(tokens > kv_tokens[agent])
    if len(large):
        c = large[np.argmin(line[large])]
        raise TraceError(
            f"{path}, line {line[c]}: a call of {tokens[c]:,} tokens in all is larger than kv_tokens = "
            f"{kv_tokens[agent[c]]:,} of agent {names[agent[c]]!r}, so it could never run; give "
            "the agent more, or other requests"
        )
