"""Traffic replayed from a request log: where it is, how it is stretched and which windows are played."""

from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from gpualloc_env.scenario.model import Load, Model, Number
from gpualloc_env.traces.log import Assignment, Split, TimeUnit


class Trace(Model):
    """Traffic replayed from a request log.

    Time is stretched until the load is the one asked for; no request is dropped. Where agents serve calls
    and no load is asked for, requests come at the log's own times.
    """

    path: Path | None = None
    """The log; none is a scenario that waits for one."""
    load: Load = 0.8
    """ρ = Σ λ̄_i/T_i / G over the whole log."""
    own_times: bool = False
    """Whether calls are issued at the log's own times, whatever their load; where no load is asked for they
    are. A fluid's time is always stretched."""
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

    leave_out_others: bool = False
    """Whether requests that name an agent which the scenario does not have are left out, and counted; if not,
    they are an error."""

    @model_validator(mode="before")
    @classmethod
    def _decide_times(cls, data: Any) -> Any:
        """A log keeps its own times unless a load is asked for."""
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        return {"own_times": "load" not in given, **given}
