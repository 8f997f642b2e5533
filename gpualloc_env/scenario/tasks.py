"""What the tasks of a scenario are, where its agents serve calls and a task is more than one of them."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from gpualloc_env.scenario.model import Load, Model, Number, Seconds, Whole
from gpualloc_env.simulation.state import Array


class Workflow(Model):
    """Tasks that one agent leads: after each of its calls it ends the task, or has others work on it.

    With probability `end` the task ends. Otherwise `least` to `most` of the specialists, their number uniform
    and which ones uniform without repetition, are called in parallel, each after an exponential time of mean
    `tool_s`; when all have finished the leader is called again at once.
    """

    entry: str
    """The agent to which tasks come."""
    end: Annotated[Number, Field(gt=0, le=1)]
    """Probability that a task ends after a call of that agent."""
    specialists: tuple[str, ...] = ()
    """Agents that it calls otherwise."""
    least: Annotated[Whole, Field(ge=1)] = 1
    """Least number of them at once."""
    most: Annotated[Whole, Field(ge=1)] = 1
    """Greatest number of them at once."""
    tool_s: Seconds = 0.0
    """Mean time of the tool before each of their calls [s]."""

    @model_validator(mode="after")
    def _check(self) -> "Workflow":
        if self.end < 1 and not self.least <= self.most <= len(self.specialists):
            raise ValueError(
                f"least = {self.least} and most = {self.most} must be numbers of the "
                f"{len(self.specialists)} specialists, the least first"
            )
        if len({self.entry, *self.specialists}) < 1 + len(self.specialists):
            raise ValueError("the entry and the specialists must be different agents")
        return self

    def visits(self, names: tuple[str, ...]) -> Array:
        """Calls of agent i for each task that comes to agent j, in the mean, (N, N)."""
        visits = np.zeros((len(names), len(names)))
        entry = names.index(self.entry)
        visits[entry, entry] = 1 / self.end
        for name in self.specialists:
            rounds, number = (1 - self.end) / self.end, (self.least + self.most) / 2
            visits[names.index(name), entry] = rounds * number / len(self.specialists)
        return visits


class Sessions(Model):
    """Tasks that are sessions of a log, drawn from it at random and started as a Poisson process."""

    path: Path | None = None
    """A log with the columns `session,call,time_s,agent,prompt_tokens,output_tokens`; none is the one that
    comes with the package."""
    load: Load = 0.6
    """ρ = Σ λ̄_i/T_i / G."""
