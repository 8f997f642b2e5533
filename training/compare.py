"""Compare allocators on the same held-out workloads: a table, a figure, files and TensorBoard runs.

python -m training.compare --scenario serverless --policies static adaptive runs/my-ppo
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track

from baselines import POLICIES, PRIVILEGED, Policy
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.policies import AgentsError, kind_of, load_policy, policy_of
from training.cli import fail
from training.evaluation.evaluate import Evaluation, evaluate
from training.evaluation.held_out import count_episodes, held_out_among_others, held_out_scenario
from training.files.provenance import write_config
from training.files.staging import staged
from training.reporting.event_files import write_runs
from training.reporting.figures import draw
from training.reporting.heatmap import draw_heatmap
from training.reporting.report import (
    Summary,
    overview,
    rich_table,
    summary,
    tables,
    write_episodes,
    write_json,
)

ALL = "all"
ENTRIES = ("summary.json", "episodes.csv", "config.json", "comparison.png", "tensorboard")
OWNED = (*ENTRIES, "heatmap.png", *SCENARIOS)
"""What a comparison of one scenario or of all may write."""


@dataclass(frozen=True)
class CompareConfig(Overrides):
    """Compare allocators on the same held-out workloads."""

    scenario: str = "serverless"
    """A registered scenario, the path of a .toml file, or `all` registered scenarios one after another."""
    policies: tuple[str, ...] = ("static", "round-robin", "adaptive")
    """Names of baselines, exported allocators (.npz), and directories of training runs.

    `clairvoyant` searches a good schedule for every episode with its arrivals known, which takes
    seconds an episode; it shows what could be attained and is labelled as knowing the future.
    """
    episodes: int = 100
    """Held-out episodes that every policy plays; of a log, at most its windows."""
    seed: int = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/compare")
    """Directory for the results; those of an earlier comparison in it are replaced."""


def main(config: CompareConfig) -> None:
    """Evaluate every policy on the same episodes of each scenario, write the files, print the tables."""
    status = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    everything = config.scenario == ALL
    names = all_scenarios(config, status) if everything else [config.scenario]
    console = Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False)
    try:
        contests = [Contest.of(config, name, status, skip_misfits=everything) for name in names]
        with staged(config.out, OWNED, mark="summary.json") as directory:
            summaries: dict[str, Summary] = {}
            for name, contest in zip(names, contests, strict=True):
                target = directory / name if everything else directory
                evaluations = contest.run(target, config, status)
                summaries[name] = summary(evaluations, config.seed)
                for title, rows in tables(evaluations).items():
                    console.print(rich_table(f"{name}: {title}" if everything else title, rows), "", sep="\n")
            if everything:
                write_json(directory / "summary.json", {"scenarios": summaries})
                write_config(directory / "config.json", asdict(config))
                draw_heatmap(directory / "heatmap.png", summaries)
                console.print(
                    rich_table("Objective J by scenario (lower is better)", overview(summaries)), ""
                )
    except (ValueError, OSError) as error:
        fail(error)
    place = config.out if everything else config.out / "tensorboard"
    console.print(f"Results in {config.out}; charts with: tensorboard --logdir {place}")


@dataclass(frozen=True)
class Contest:
    """One scenario, and the policies that play the same episodes of it."""

    scenario: Scenario
    policies: dict[str, Policy | None]
    """By the names under which they appear; None for one that is made as the episodes are played."""
    given: dict[str, str]
    """What each was asked for as."""
    episodes: int

    @classmethod
    def of(cls, config: CompareConfig, name: str, status: Console, skip_misfits: bool) -> "Contest":
        """Load everything before any episode is played, so that a mistake costs no time.

        Args:
            config: what to compare.
            name: the scenario.
            status: where to say what is played, and what is not.
            skip_misfits: leave out a policy that was trained for other agents, and say so.
        """
        scenario = make_scenario(config, name)
        policies: dict[str, Policy | None] = {}
        asked = named(config.policies)
        for label, given in asked.items():
            try:
                policies[label] = None if given in PRIVILEGED else load_policy(given, scenario)
            except AgentsError as error:
                if not skip_misfits:
                    raise
                status.print(f"{name} without {label}: {error}")
        episodes = count_episodes(config.episodes, scenario)
        if scenario.trace is not None:
            status.print(scenario.windows.accounting)
            if episodes < config.episodes:
                status.print(
                    f"Split {scenario.trace.split!r} has {episodes} windows: each is played once instead of "
                    f"{config.episodes} episodes, because repeated windows are not independent samples"
                )
        return cls(scenario, policies, asked, episodes)

    def run(self, directory: Path, config: CompareConfig, status: Console) -> list[Evaluation]:
        """Play the episodes and write the results."""
        directory.mkdir(exist_ok=True)
        evaluations = [
            self.evaluation(name, config.seed)
            for name in track(self.policies, f"Evaluating on {self.scenario.name}", console=status)
        ]
        write_json(directory / "summary.json", summary(evaluations, config.seed))
        write_episodes(directory / "episodes.csv", evaluations, config.seed)
        write_config(directory / "config.json", asdict(config))
        draw(directory / "comparison.png", evaluations, config.seed)
        write_runs(directory / "tensorboard", evaluations, directory / "comparison.png")
        return evaluations

    def evaluation(self, name: str, seed: int) -> Evaluation:
        """What one policy does in the episodes, the first seeded `seed`."""
        given = self.given[name]
        policy = self.policies[name]
        if policy is None:
            policy = policy_of(given, self.scenario, self.episodes, seed)
        return evaluate(name, policy, self.scenario, self.episodes, seed, kind=kind_of(given))


def all_scenarios(config: CompareConfig, status: Console) -> list[str]:
    """Every registered scenario, those that wait for a log only where one is given."""
    waiting = [name for name, scenario in SCENARIOS.items() if scenario.trace and config.trace is None]
    if waiting:
        status.print(f"Without {', '.join(waiting)}, which replays a request log: give one with --trace")
    return [name for name in SCENARIOS if name not in waiting]


def make_scenario(config: CompareConfig, name: str) -> Scenario:
    """The held-out scenario of a name, with the changes asked for."""
    return (held_out_among_others if config.scenario == ALL else held_out_scenario)(name, config)


def named(policies: Sequence[str]) -> dict[str, str]:
    """The policies by the names under which they appear.

    A run is called by the last part of its path, by the last two if that is a seed alone, and by as
    many parts as it takes where that is another's name too. The name of a baseline stays as it is.

    Raises:
        ValueError: no policy, or one that is given twice.
    """
    if not policies:
        raise ValueError(f"no policies to compare; give some of {', '.join(POLICIES)}, or run directories")
    known = {*POLICIES, *PRIVILEGED}
    parts = [(given,) if given in known else Path(given).resolve().parts for given in policies]
    for given, count in zip(policies, (parts.count(path) for path in parts), strict=True):
        if count > 1:
            raise ValueError(f"policy {given!r} is given {count} times; give each policy once")
    names: dict[str, str] = {}
    for given, path in zip(policies, parts, strict=True):
        others = [other for other in parts if other != path]
        least = 2 if path[-1].startswith("seed-") else 1
        unique = (n for n in range(least, len(path)) if all(other[-n:] != path[-n:] for other in others))
        length = next(unique, len(path))
        names["/".join(path[-length:])] = given
    return names


if __name__ == "__main__":
    main(tyro.cli(CompareConfig))
