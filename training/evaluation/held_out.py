"""The episodes on which policies are judged: those that no policy was trained on."""

from functools import partial
from pathlib import Path

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.traces.log import Split


def held_out_scenario(
    name: str,
    *,
    trace: Path | None = None,
    split: Split | None = None,
    steps: int | None = None,
    dt: float | None = None,
    load: float | None = None,
    agents: int | None = None,
) -> Scenario:
    """A scenario with the changes asked for; of a log, the windows kept for evaluation by default."""
    changed = partial(load_scenario, name, steps=steps, dt=dt, load=load, agents=agents, trace=trace)
    scenario = changed(split=split)
    return changed(split="eval") if scenario.trace is not None and split is None else scenario


def count_episodes(asked: int, scenario: Scenario) -> int:
    """How many episodes to play: those asked for, but every window of a log at most once."""
    if asked < 1:
        raise ValueError(f"episodes must be at least 1, got {asked}")
    return asked if scenario.trace is None else min(asked, scenario.windows.episodes)
