"""Request logs: spreading their requests over the agents and cutting them into episodes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np

from gpualloc_env.listing import listed
from gpualloc_env.simulation.arrivals import Replay
from gpualloc_env.simulation.shares import CLOCK_TOLERANCE
from gpualloc_env.simulation.state import AnyArray, Array

Split = Literal["train", "eval", "all"]
Assignment = Literal["coordinator-and-specialist", "by-length", "first-agent"]
TimeUnit = Literal["s", "ms"]
UNITS_S: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3}
# No model reads or writes this many tokens, and sums of them stay exact.
MOST_TOKENS = 10**9


class TraceError(ValueError):
    """A request log that cannot be used; the message names file, line, field and remedy."""


@dataclass(frozen=True, slots=True)
class Log:
    """The requests of one log in the order of their arrival: each has prompt tokens or names an agent."""

    path: Path
    time_s: Array  # (n,) [s] since the first request
    work: Array  # (n,) multiples of the mean request of the agent that serves it
    prompt_tokens: AnyArray | None = None  # (n,); without output tokens the milliseconds of a whole GPU
    output_tokens: AnyArray | None = None  # (n,)
    agent: AnyArray | None = None  # (n,) index in `agent_names`
    agent_names: tuple[str, ...] = ()
    quantum_s: float = 0.0  # [s] over which the requests of one stamp were spread; 0 where none share one
    notes: tuple[str, ...] = ()  # what was decided while reading, for people
    first_line: int = 2  # of the file, on which the first request stands
    row: AnyArray | None = None  # (n,) where each stands among the file's, where some are left out

    @property
    def line(self) -> AnyArray:
        """The line of the file on which each request stands, (n,)."""
        return (np.arange(len(self.time_s)) if self.row is None else self.row) + self.first_line

    @property
    def span_s(self) -> float:
        """Time that the log covers [s]: n gaps of the mean length, the one after the last included."""
        gaps = len(self.time_s) - 1
        return float(self.time_s[-1]) * (gaps + 1) / gaps


Played = TypeVar("Played")


@dataclass(frozen=True)
class Windows(Generic[Played]):
    """A log cut into episodes."""

    played: Played
    """Its requests as `Replay`, or where agents serve calls as `Tasks`."""
    episodes: int
    """W, the number of windows that the split holds."""
    accounting: str
    """Where every request of the log went."""


def cut(
    log: Log,
    agent_names: tuple[str, ...],
    gpu_seconds: Callable[[Array], float],
    *,
    assignment: Assignment,
    load: float,
    eval_fraction: float,
    split: Split,
    steps: int,
    dt: float,
) -> Windows[Replay]:
    """Cut a log into windows of `steps` × `dt` seconds after stretching it to the asked load.

    Args:
        log: the requests.
        agent_names: names of the N agents.
        gpu_seconds: GPU time that work of (N,) requests, sent from outside, takes in all, as a
            multiple of the platform's capacity per second: Σ_i λ_i/T_i / G, routed visits included.
        assignment: the rule by which a request visits agents.
        load: ρ over the whole log.
        eval_fraction: the last part of the windows, kept for evaluation.
        split: which windows are played.
        steps: steps of a window.
        dt: length of a step [s].

    Raises:
        TraceError: the log names an unknown agent, or is too short for the windows that
            the split needs.
    """
    agents = assign(log, assignment, agent_names)
    work = np.zeros(len(agent_names))
    for visit in agents.T:
        work += np.bincount(visit, weights=log.work, minlength=len(work))
    span = gpu_seconds(work) / load
    position = _positions(log, span, load, dt)
    parts = cut_time(log, span, steps, dt, eval_fraction, split, load)
    training, windows, first, last = parts
    ends = np.searchsorted(position, [training * steps, windows * steps, position[-1] + 1])
    went = account(log, span, load, np.diff(ends, prepend=0), parts, steps * dt)
    played = slice(*np.searchsorted(position, [first * steps, last * steps]))
    visits = agents.shape[1]
    replay = Replay(
        step=np.repeat(position[played] - first * steps, visits),
        agent=agents[played].ravel(),
        requests=np.repeat(log.work[played], visits),
        episodes=last - first,
    )
    return Windows(replay, last - first, "; ".join((went, *log.notes)))


class Parts(NamedTuple):
    """The windows of a log, by their numbers."""

    training: int  # the first of evaluation
    windows: int  # how many there are
    first: int  # of the split
    last: int  # after those of the split


def cut_time(
    log: Log, span: float, steps: int, dt: float, eval_fraction: float, split: Split, load: float | None
) -> Parts:
    """The windows of a log that lasts for a span [s], and those of a split.

    A load has stretched the log to that span; without one it is played at its own times.

    Raises:
        TraceError: the split has none.
    """
    windows = int(span / (steps * dt) + CLOCK_TOLERANCE)
    parts = _parts(windows, eval_fraction, split)
    if parts.last == parts.first:
        why = "" if load is None else f"at load {load:g} "
        needed = _windows_needed(eval_fraction, split)
        raise TraceError(
            f"{log.path}: {why}the log lasts {span:.6g} s, {windows} windows of {steps * dt:g} s, none of "
            f"them for split {split!r}; {_remedy(needed, span, steps, dt, load)}"
        )
    return parts


def _parts(windows: int, eval_fraction: float, split: Split) -> Parts:
    """So many windows, divided."""
    training = windows - int(np.ceil(windows * eval_fraction))
    first, last = {"train": (0, training), "eval": (training, windows), "all": (0, windows)}[split]
    return Parts(training, windows, first, last)


def _windows_needed(eval_fraction: float, split: Split) -> int:
    """The least number of windows that leaves a split one."""
    # Of W windows all but the first W (1 − fraction), rounded down, are for evaluation.
    windows = max(1, int(1 / (1 - eval_fraction)) - 1) if split == "train" else 1
    while (parts := _parts(windows, eval_fraction, split)).first == parts.last:
        windows += 1
    return windows


def _remedy(needed: int, span: float, steps: int, dt: float, load: float | None) -> str:
    """What makes so many windows of a log that is too short: fewer steps, and less load where it has one."""
    fitting = int(span / (needed * dt))
    remedies = [f"ask for fewer steps: --steps {fitting} at most"] if fitting else []
    if load is not None and span > 0:
        # The log lasts as much longer as the load is lower. Rounding down keeps the windows.
        most = load * span / (needed * steps * dt)
        unit = 10.0 ** (np.floor(np.log10(most)) - 2)
        remedies.append(
            f"ask for a lower load, at which the log lasts longer: --load {np.floor(most / unit) * unit:.3g} "
            "at most"
        )
    if not fitting:
        remedies.append(f"give a longer log, which lasts at least {needed * dt:g} s")
    return "; or ".join(remedies)


def account(log: Log, span: float, load: float | None, parts: AnyArray, cut: Parts, window_s: float) -> str:
    """Where all requests of a log went: those in training, in evaluation and in the remainder, (3,).

    A load stretches the log to the span [s]; without one it is played at its own times.
    """
    in_training, in_evaluation, rest = parts
    times = "at their own times" if load is None else f"stretched to {span:.1f} s for load {load:g}"
    return (
        f"{sum(parts)} requests over {log.span_s:.0f} s, {times}: "
        f"{in_training} in {cut.training} training windows, {in_evaluation} in {cut.windows - cut.training} "
        f"evaluation windows, {rest} in the remainder of {span - cut.windows * window_s:.1f} s"
    )


def _positions(log: Log, span: float, load: float, dt: float) -> AnyArray:
    """The step in which each request arrives where the log is stretched to a span [s], (n,) int64."""
    if span / dt >= 2**53:
        raise TraceError(
            f"{log.path}: at load {load:g} the log lasts {span:g} s, more steps of {dt:g} s than can "
            "be counted; ask for a higher load"
        )
    # Rounding must not put a request at the start of a step into the one before.
    return (log.time_s * (span / log.span_s) / dt + CLOCK_TOLERANCE).astype(np.int64)


def among(log: Log, agent_names: tuple[str, ...]) -> Log:
    """The requests of a log that name one of some agents, and a note of how many do not.

    Raises:
        TraceError: there are fewer than two of them, or all come at one moment.
    """
    if log.agent is None:
        return log
    kept = np.isin(log.agent, [code for code, name in enumerate(log.agent_names) if name in agent_names])
    columns = {name: getattr(log, name) for name in ("time_s", "work", "prompt_tokens", "output_tokens")}
    if len(np.unique(log.time_s[kept])) < 2:
        raise TraceError(
            f"{log.path}: {kept.sum()} of {len(kept)} requests name an agent of the scenario, and a log "
            f"needs a span of time; its agents are {listed(agent_names)}"
        )
    left = f"{len(kept) - kept.sum()} of {len(kept)} requests are left out, which name other agents"
    return replace(
        log,
        **{name: None if each is None else each[kept] for name, each in columns.items()},
        agent=log.agent[kept],
        row=np.flatnonzero(kept),
        notes=log.notes if kept.all() else (*log.notes, left),
    )


def assign(log: Log, assignment: Assignment, agent_names: tuple[str, ...]) -> AnyArray:
    """Indices of the agents that each request visits, (n, visits)."""
    if log.agent is None:
        return ASSIGNMENTS[assignment](log, len(agent_names))
    known = [agent_names.index(name) if name in agent_names else -1 for name in log.agent_names]
    agent = np.array(known, dtype=np.int64)[log.agent]
    if agent.min() < 0:
        stranger = int(np.argmax(agent < 0))
        raise TraceError(
            f"{log.path}, line {log.line[stranger]}, field agent: "
            f"{log.agent_names[log.agent[stranger]]!r} is no agent of the scenario; "
            f"name one of {listed(agent_names)}, or give a scenario file with yours, whose "
            "leave_out_others can skip the rest"
        )
    return agent[:, np.newaxis]


def _coordinator_and_specialist(log: Log, agents: int) -> AnyArray:
    coordinator = _first_agent(log, agents)
    if agents == 1:
        return coordinator
    return np.hstack([coordinator, 1 + _by_length(log, agents - 1)])


def _by_length(log: Log, agents: int) -> AnyArray:
    assert log.prompt_tokens is not None
    rank = np.empty(len(log.work), dtype=np.int64)
    rank[np.argsort(log.prompt_tokens, kind="stable")] = np.arange(len(rank))
    return (rank * agents // len(rank))[:, np.newaxis]


def _first_agent(log: Log, agents: int) -> AnyArray:
    return np.zeros((len(log.work), 1), dtype=np.int64)


ASSIGNMENTS: dict[Assignment, Callable[[Log, int], AnyArray]] = {
    "coordinator-and-specialist": _coordinator_and_specialist,
    "by-length": _by_length,
    "first-agent": _first_agent,
}
