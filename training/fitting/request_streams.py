"""The requests of a log by the agents at which they arrive, ready for fitting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpualloc_env.listing import listed
from gpualloc_env.simulation.state import Array
from gpualloc_env.traces.log import ASSIGNMENTS, Log, TraceError
from gpualloc_env.traces.stamps import JITTER_S
from training.fitting.log_statistics import spread

FEWEST_REQUESTS = 100
SHORTEST_S = 600.0  # ten windows of the longest for which counts are compared
SEED = 0  # of the places within coarse stamps


@dataclass(frozen=True, slots=True)
class RequestStreams:
    """Request times by agent, in the order of the scenario's agents."""

    times: list[Array]  # N arrays of sorted times [s] from the start of the log
    span_s: float  # length of the log [s]
    quantum_s: float  # [s] time that one stamp of the log stands for; 0 where each has its own

    @property
    def merged(self) -> Array:
        """Times of all requests, sorted [s]."""
        return np.sort(np.concatenate(self.times))


def request_streams(log: Log, agent_names: Sequence[str], service: str = "fluid") -> RequestStreams:
    """Requests by agent: as the log names them, or else all at the first agent.

    Where agents serve calls, a request is one call, and one that names no agent is served by that of its
    prompt's length.

    Where requests share stamps, as they must where the clock is coarser than the mean gap, they
    are spread over the time that a stamp stands for.

    Raises:
        TraceError: the log is too short, or names an unknown agent.
    """
    count, span = len(log.time_s), log.span_s
    if count < FEWEST_REQUESTS or span < SHORTEST_S:
        raise TraceError(
            f"{log.path}: {count} requests in {span:.6g} s do not suffice for a fit, which needs at least "
            f"{FEWEST_REQUESTS} requests and {SHORTEST_S:g} s; give a longer log"
        )
    owner = np.zeros(count, dtype=np.int64)
    if log.agent is not None:
        strangers = [name for name in log.agent_names if name not in agent_names]
        if strangers:
            raise TraceError(
                f"{log.path}: agent {strangers[0]!r} is not in the scenario, whose agents are "
                f"{listed(agent_names)}; rename it in the log, or give --scenario a file that has it"
            )
        owner = np.array([list(agent_names).index(name) for name in log.agent_names])[log.agent]
    elif service == "requests":
        owner = ASSIGNMENTS["by-length"](log, len(agent_names))[:, 0]
    step = log.quantum_s
    streams = [log.time_s[owner == i] for i in range(len(agent_names))]
    if not step:
        return RequestStreams(streams, span, 0.0)
    span = step * (1 + int((log.time_s[-1] + JITTER_S) / step))
    return rounded(RequestStreams(streams, span, step), SEED)


def rounded(streams: RequestStreams, seed: int) -> RequestStreams:
    """The same requests as a clock of `quantum_s` would have told them: rounded down, then spread."""
    step = streams.quantum_s
    if not step:
        return streams
    generator = np.random.default_rng((seed, 1))
    stamps = [np.floor((times + min(JITTER_S, step / 100)) / step) * step for times in streams.times]
    times = [spread(stamp, step, generator) for stamp in stamps]
    return RequestStreams(times, streams.span_s, step)
