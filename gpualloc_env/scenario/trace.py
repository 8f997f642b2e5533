"""Traffic replayed from a request log: where it is, how it is stretched and which windows are played."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from gpualloc_env.scenario.model import Load, Model, Number
from gpualloc_env.traces.log import Assignment, Split, TimeUnit

DEFAULT_LOAD = 0.8
"""Of a fluid's log where none is asked for."""


class Trace(Model):
    """Traffic replayed from a request log.

    Time is stretched until the load is the one asked for; no request is dropped. Where agents serve calls
    and no load is asked for, requests come at the log's own times.
    """

    path: Path | None = None
    """The log; none is a scenario that waits for one."""
    load: Load | None = None
    """ρ = Σ λ̄_i/T_i / G over the whole log; none is 0.8 for a fluid, and the log's own times for calls."""
    eval_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.3
    """The last part of the windows, kept for evaluation."""
    split: Split = "train"
    """Which windows are played: `train`, the later `eval` ones, or `all`."""
    time_unit: TimeUnit | None = None
    """Unit of the log's times where they are numbers; none decides by its format and its times."""
    assignment: Assignment = "coordinator-and-specialist"
    """The agents that a request visits; a log that names the agent of each request overrules it.

    `coordinator-and-specialist`: the first agent and one of the others, which take equal parts
    of the requests, in their order, from the shortest prompts to the longest. `by-length`: one of
    all the agents, in the same way. `first-agent`: the first alone, from which `routing` goes on.
    """
