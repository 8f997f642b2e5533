"""Compare allocators on the same held-out workloads: a table, a figure, files and TensorBoard runs.

python -m training.compare --scenario serverless --policies static adaptive runs/my-ppo
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import tyro
from rich.console import Console
from rich.progress import track

from baselines import POLICIES
from gpualloc_env.scenario import Scenario, load_scenario
from gpualloc_env.traces import Split
from training.evaluate import evaluate
from training.event_files import write_runs
from training.figures import draw
from training.policies import load_policy
from training.provenance import write_config
from training.report import rich_table, tables, write_episodes, write_summary
from training.staging import staged

ENTRIES = ("summary.json", "episodes.csv", "config.json", "comparison.png", "tensorboard")


@dataclass(frozen=True)
class CompareConfig:
    """Compare allocators on the same held-out workloads."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    policies: tuple[str, ...] = ("static", "round-robin", "adaptive")
    """Names of baselines, and directories of training runs."""
    episodes: int = 100
    """Held-out episodes that every policy plays; of a log, at most its windows."""
    seed: int = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/compare")
    """Directory for the results; those of an earlier comparison in it are replaced."""
    steps: int | None = None
    """Steps of an episode; default: the scenario's."""
    dt: float | None = None
    """Length of a step [s]; default: the scenario's."""
    load: float | None = None
    """Load to which the traffic is rescaled, 1.0 being the platform's capacity; default: the scenario's."""
    trace: Path | None = None
    """A request log that replaces the scenario's traffic."""
    split: Split | None = None
    """Windows of the log to play; default: those kept for evaluation."""


def main(config: CompareConfig) -> None:
    """Evaluate every policy on the same episodes, write the files, print the tables."""
    status = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        scenario = make_scenario(config)
        policies = {name: load_policy(given, scenario) for name, given in named(config.policies).items()}
        episodes = count_episodes(config, scenario)
    except (ValueError, OSError) as error:
        fail(error)
    if scenario.trace is not None:
        status.print(scenario.windows.accounting)
        if episodes < config.episodes:
            status.print(
                f"Split {scenario.trace.split!r} has {episodes} windows: each is played once instead of "
                f"{config.episodes} episodes, because repeated windows are not independent samples"
            )
    try:
        with staged(config.out, ENTRIES) as directory:
            evaluations = [
                evaluate(name, policy, scenario, episodes, config.seed)
                for name, policy in track(policies.items(), f"Evaluating on {scenario.name}", console=status)
            ]
            kinds = {name: "classical" if name in POLICIES else "learned" for name in policies}
            write_summary(directory / "summary.json", evaluations, config.seed)
            write_episodes(directory / "episodes.csv", evaluations, config.seed)
            write_config(directory / "config.json", asdict(config))
            draw(directory / "comparison.png", evaluations, config.seed)
            write_runs(directory / "tensorboard", evaluations, kinds, directory / "comparison.png")
    except OSError as error:
        fail(error)
    console = Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False)
    for title, rows in tables(evaluations).items():
        console.print(rich_table(title, rows), "", sep="\n")
    console.print(f"Results in {config.out}; charts with: tensorboard --logdir {config.out / 'tensorboard'}")


def make_scenario(config: CompareConfig) -> Scenario:
    """The scenario with the changes asked for; of a log, the windows kept for evaluation."""
    changes = {"steps": config.steps, "dt": config.dt, "load": config.load, "trace": config.trace}
    scenario = load_scenario(config.scenario, **changes, split=config.split)
    if scenario.trace is not None and config.split is None:
        scenario = load_scenario(config.scenario, **changes, split="eval")
    return scenario


def named(policies: Sequence[str]) -> dict[str, str]:
    """The policies by the names under which they appear.

    A run is called by the last part of its path, and by as many parts as it takes where that
    is another's name too. The name of a baseline stays as it is.

    Raises:
        ValueError: no policy, or one that is given twice.
    """
    if not policies:
        raise ValueError(f"no policies to compare; give some of {', '.join(POLICIES)}, or run directories")
    parts = [(given,) if given in POLICIES else Path(given).resolve().parts for given in policies]
    for given, count in zip(policies, (parts.count(path) for path in parts), strict=True):
        if count > 1:
            raise ValueError(f"policy {given!r} is given {count} times; give each policy once")
    names: dict[str, str] = {}
    for given, path in zip(policies, parts, strict=True):
        others = [other for other in parts if other != path]
        unique = (n for n in range(1, len(path)) if all(other[-n:] != path[-n:] for other in others))
        length = next(unique, len(path))
        names["/".join(path[-length:])] = given
    return names


def count_episodes(config: CompareConfig, scenario: Scenario) -> int:
    """How many episodes to play: those asked for, but every window of a log at most once."""
    if config.episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {config.episodes}")
    if scenario.trace is None:
        return config.episodes
    return min(config.episodes, scenario.windows.episodes)


def fail(error: Exception) -> NoReturn:
    """End with the message that names the mistake and its remedy."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(tyro.cli(CompareConfig))
