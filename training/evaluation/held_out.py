"""The episodes on which policies are judged: those that no policy was trained on."""

import os
from functools import partial
from pathlib import Path

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import OUTCOME
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


def count_episodes(asked: int, scenario: Scenario, recorded: int = 1) -> int:
    """How many episodes to play: those asked for, but every window of a log at most once.

    Args:
        asked: how many.
        scenario: what is played.
        recorded: policies whose every step is kept at the same time.

    Raises:
        ValueError: none, or more than this machine has memory for.
    """
    if asked < 1:
        raise ValueError(f"episodes must be at least 1, got {asked}")
    episodes = asked if scenario.trace is None else min(asked, scenario.windows.episodes)
    each = recorded * scenario.steps * len(scenario.agents) * OUTCOME.itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if episodes * each > memory // 2:
        raise ValueError(
            f"episodes = {episodes} of {scenario.name!r} take {episodes * each / 2**30:.0f} GiB of memory, "
            f"and this machine has {memory / 2**30:.0f}; play at most {memory // 2 // each}"
        )
    return episodes


def episodes_called(scenario: Scenario, episodes: int) -> str:
    """What so many episodes are called in titles: held out, or windows of a log that are not."""
    split = scenario.trace.split if scenario.trace is not None else "eval"
    plural = "" if episodes == 1 else "s"
    if split == "eval":
        return f"held-out episode{plural}"
    return f"training window{plural}" if split == "train" else f"window{plural} of the whole log"
