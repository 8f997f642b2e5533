"""The episodes on which policies are judged: those that no policy was trained on."""

from dataclasses import replace

from gpualloc_env.memory import physical_memory
from gpualloc_env.scenario.held_out import episodes_at_most, held_out_scenario
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario


def held_out_among_others(scenario: str, overrides: Overrides) -> Scenario:
    """A held-out scenario of several: the log that is asked for goes to those that replay one."""
    if load_scenario(scenario).trace is None:
        overrides = replace(overrides, trace=None, split=None, time_unit=None)
    return held_out_scenario(scenario, overrides)


METRICS_BYTES = 4096  # that the metrics of an episode take, for each agent and for all together


def count_episodes(asked: int, scenario: Scenario, policies: int = 1) -> int:
    """How many episodes to play: those asked for, but every window of a log at most once.

    Args:
        asked: how many.
        scenario: what is played.
        policies: how many play them.

    Raises:
        ValueError: none, more than this machine has memory for, or of a log that cannot be played.
    """
    episodes = episodes_at_most(asked, scenario)
    # Steps are summed up as they are played; what is kept of each episode are its metrics.
    needed = policies * episodes * METRICS_BYTES * (1 + len(scenario.agents))
    memory = physical_memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"episodes = {episodes} of {scenario.name!r} need {needed / 1e9:.3g} GB of memory, and this "
            f"machine has {memory / 1e9:.3g} GB; play at most {int(episodes * memory / needed)}"
        )
    return episodes


def episodes_called(scenario: Scenario, episodes: int) -> str:
    """What so many episodes are called in titles: held out, or windows of a log that are not."""
    split = scenario.trace.split if scenario.trace is not None else "eval"
    plural = "" if episodes == 1 else "s"
    if split == "eval":
        return f"held-out episode{plural}"
    return f"training window{plural}" if split == "train" else f"window{plural} of the whole log"
