"""The episodes on which policies are judged: of a log the windows that no policy was trained on."""

from pathlib import Path
from typing import Any

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario


def held_out_scenario(
    scenario: str | Path | Scenario, overrides: Overrides | None = None, **changes: Any
) -> Scenario:
    """A scenario with the changes asked for; of a log, the windows kept for evaluation by default.

    They take the place of those for training, which a scenario has unless its file says otherwise.
    Arguments as in `load_scenario`.
    """
    changed = load_scenario(scenario, overrides, **changes)
    asked = changes.get("split") or (overrides.split if overrides is not None else None)
    trains = changed.trace is not None and changed.trace.split == "train"
    return load_scenario(changed, split="eval") if trains and asked is None else changed


def episodes_at_most(asked: int, scenario: Scenario) -> int:
    """How many episodes to play: those asked for, but every window of a log at most once.

    Raises:
        ValueError: none, or of a log that cannot be played.
    """
    if asked < 1:
        raise ValueError(f"episodes must be at least 1, got {asked}")
    scenario.source()  # reads a log, and refuses it before anything is played
    return asked if scenario.trace is None else min(asked, scenario.windows.episodes)
