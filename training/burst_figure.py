"""What two allocators do in the same burst: arrivals, shares and queues over time.

python -m training.burst_figure --policies receding-horizon runs/my-ppo --out burst.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.simulation.state import Array
from training.artifacts.policies import named, policy_of
from training.cli import run
from training.evaluation.evaluate import Evaluation, evaluate
from training.evaluation.held_out import count_episodes, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.limits import Limits, check_limits
from training.reporting.figure_style import AGENT_COLOURS, STYLE


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
    seconds: Annotated[float, Limits(0, open_low=True)] = 60.0
    """Length of the window [s]."""
    out: Path = Path("burst.png")
    """The figure."""


def main(config: BurstFigureConfig) -> None:
    """Play the episodes, choose the window, draw it."""
    check_limits(config)
    check_evaluation_seeds(config.seed, config.episodes)
    scenario = held_out_scenario(config.scenario, config)
    episodes = count_episodes(config.episodes, scenario, recorded=len(config.policies))
    made = {
        name: policy_of(given, scenario, episodes, config.seed)
        for name, given in named(config.policies).items()
    }
    played = [evaluate(name, policy, scenario, episodes, config.seed) for name, policy in made.items()]
    steps = min(scenario.steps, max(1, round(config.seconds / scenario.dt)))
    episode, start, gain = window(played[0], played[-1], steps)
    draw(config.out, played, episode, start, steps)
    first = start * scenario.dt
    if gain <= 0:
        print(f"{played[-1].policy} gains nowhere on {played[0].policy}: this is where it loses least")
    print(f"{config.out}: seed {config.seed + episode}, {first:g} s to {first + steps * scenario.dt:g} s")


def window(first: Evaluation, last: Evaluation, steps: int) -> tuple[int, int, float]:
    """Where `last` gains most on `first`: the episode, the first step, and the gain.

    The gain is the part of `first`'s weighted backlog that `last` does not have; below zero where it
    gains nowhere. Windows with less backlog than half of all have are left out, since their ratios
    say little.
    """
    sums: list[Array] = []
    for each in (first, last):
        weighted = (each.batch.history["backlog"] / priorities(each)).sum(axis=2)
        total = np.cumsum(np.pad(weighted, ((0, 0), (1, 0))), axis=1)
        sums.append(total[:, steps:] - total[:, :-steps])
    gain = (sums[0] - sums[1]) / (sums[0] + 1e-9)
    busy = np.where(sums[0] >= np.median(sums[0]), gain, -np.inf)
    episode, start = np.unravel_index(np.argmax(busy), gain.shape)
    return int(episode), int(start), float(gain[episode, start])


def priorities(evaluation: Evaluation) -> Array:
    """P of each agent, (N,)."""
    return np.array([agent.priority for agent in evaluation.batch.scenario.agents], dtype=np.float64)


def draw(path: Path, played: list[Evaluation], episode: int, start: int, steps: int) -> None:
    """Draw the arrivals once, and shares and queues of each policy."""
    scenario = played[0].batch.scenario
    names = scenario.agent_names
    colours = colormaps[AGENT_COLOURS](np.linspace(0.0, 0.95, len(names)))
    time = scenario.dt * np.arange(start, start + steps)
    rows = slice(start, start + steps)
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.2 * (1 + 2 * len(played))), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1 + 2 * len(played), 1, sharex=True))
        history = [each.batch.history[episode, rows] for each in played]
        for i, name in enumerate(names):
            panels[0].plot(time, history[0]["arrivals"][:, i] / scenario.dt, color=colours[i], label=name)
        panels[0].set(title="Arrivals", ylabel="requests/s")
        panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
        top = max(float(each["backlog"].sum(axis=1).max()) for each in history)
        for k, (each, shown) in enumerate(zip(played, history, strict=True)):
            shares, queues = panels[1 + 2 * k], panels[2 + 2 * k]
            shares.stackplot(time, shown["share"].T, colors=list(colours), step="post")
            shares.set(title=f"{each.policy}: shares", ylabel="GPU", ylim=(0, scenario.platform.gpus))
            queues.stackplot(time, shown["backlog"].T, colors=list(colours))
            mean = float((shown["backlog"] / priorities(each)).sum(axis=1).mean())
            queues.set(
                title=f"{each.policy}: waiting, weighted mean {mean:.1f}", ylabel="requests", ylim=(0, top)
            )
        panels[-1].set_xlabel("time in the episode [s]")
        figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run(main, BurstFigureConfig)
