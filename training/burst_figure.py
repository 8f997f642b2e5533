"""Draw what two allocators do in the same burst: arrivals, shares and queues over time.

python -m training.burst_figure --policies receding-horizon runs/my-ppo --out burst.png
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from training.artifacts.policies import named, policy_of
from training.cli import run
from training.evaluation.evaluate import rollout
from training.evaluation.held_out import count_episodes, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.limits import Limits
from training.reporting.figure_style import AGENT_COLOURS, STYLE, check_figure, save

NAMED = 10
"""Agents that the legend has room for."""


@dataclass(frozen=True)
class BurstFigureConfig(Overrides):
    """Draw what allocators do in the same burst."""

    policies: tuple[str, ...]
    """Names of baselines, exported allocators, or directories of training runs."""
    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 10000
    """Seed of the first episode to choose from."""
    episodes: Annotated[int, Limits(1)] = 20
    """Episodes to choose from, of a log at most its windows: where the last policy gains most on the first,
    the window is drawn."""
    seconds: Annotated[float, Limits(0, 10**9, open_low=True)] = 60.0
    """Length of the window [s]."""
    out: Path = Path("burst.png")
    """The figure."""


def main(config: BurstFigureConfig) -> None:
    """Play the episodes, choose the window, draw it."""
    check_evaluation_seeds(config.seed, config.episodes)
    scenario = held_out_scenario(config.scenario, config)
    check_figure(config.out)
    episodes = count_episodes(config.episodes, scenario, policies=len(config.policies))
    made = {
        name: policy_of(given, scenario, episodes, config.seed)
        for name, given in named(config.policies).items()
    }
    played = {
        name: rollout(policy, scenario, episodes, config.seed, record=True).history
        for name, policy in made.items()
    }
    names, priority = list(played), np.array([agent.priority for agent in scenario.agents], dtype=np.float64)
    steps = min(scenario.steps, max(1, round(config.seconds / scenario.dt)))
    before, after = ((played[name]["backlog"] / priority).sum(axis=2) for name in (names[0], names[-1]))
    episode, start, gain = window(before, after, steps)
    shown = {name: history[episode, start : start + steps] for name, history in played.items()}
    draw(config.out, scenario, shown, start)
    first = start * scenario.dt
    if gain <= 0:
        print(f"{names[-1]} gains nowhere on {names[0]}: this is where it loses least")
    print(f"{config.out}: seed {config.seed + episode}, {first:g} s to {first + steps * scenario.dt:g} s")


def window(first: Array, last: Array, steps: int) -> tuple[int, int, float]:
    """Where one policy gains most on another: the episode, the first step, and the gain.

    The gain is the part of the `first` policy's weighted backlog, (E, T), that the `last` does not have;
    below zero where it gains nowhere. Windows with less backlog than half of all have are left out, since
    their ratios say little.
    """
    sums: list[Array] = []
    for weighted in (first, last):
        total = np.cumsum(np.pad(weighted, ((0, 0), (1, 0))), axis=1)
        sums.append(total[:, steps:] - total[:, :-steps])
    gain = (sums[0] - sums[1]) / (sums[0] + 1e-9)
    busy = np.where(sums[0] >= np.median(sums[0]), gain, -np.inf)
    episode, start = np.unravel_index(np.argmax(busy), gain.shape)
    return int(episode), int(start), float(gain[episode, start])


def draw(path: Path, scenario: Scenario, shown: Mapping[str, AnyArray], start: int) -> None:
    """Draw the arrivals once, and shares and queues of each policy, from their steps, (T, N) of OUTCOME."""
    priority = np.array([agent.priority for agent in scenario.agents], dtype=np.float64)
    history = list(shown.values())
    colours = colormaps[AGENT_COLOURS](np.linspace(0.0, 0.95, len(scenario.agents)))
    time = scenario.dt * np.arange(start, start + len(history[0]))
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.2 * (1 + 2 * len(shown))), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1 + 2 * len(shown), 1, sharex=True))
        for i, name in enumerate(scenario.agent_names):
            label = name if i < NAMED else None
            panels[0].plot(time, history[0]["arrivals"][:, i] / scenario.dt, color=colours[i], label=label)
        panels[0].set(title="Arrivals", ylabel="requests/s")
        some = f"the first of {len(colours)} agents" if len(colours) > NAMED else None
        panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1), title=some)
        gpus = scenario.num_gpus or scenario.platform.gpus
        top = max(float(each["backlog"].sum(axis=1).max()) for each in history)
        for k, (policy, each) in enumerate(shown.items()):
            shares, queues = panels[1 + 2 * k], panels[2 + 2 * k]
            shares.stackplot(time, each["share"].T, colors=list(colours), step="post")
            shares.set(title=f"{policy}: shares", ylabel="GPU", ylim=(0, gpus))
            queues.stackplot(time, each["backlog"].T, colors=list(colours))
            mean = float((each["backlog"] / priority).sum(axis=1).mean())
            queues.set(
                title=f"{policy}: waiting, weighted mean {mean:.1f}",
                ylabel="requests",
                ylim=(0, max(top, 1e-9)),
            )
        panels[-1].set_xlabel("time in the episode [s]")
        save(figure, path)


if __name__ == "__main__":
    run(main, BurstFigureConfig)
