"""Run every policy on every scenario, and say what was left to gain and who wins.

python -m training.leaderboard --episodes 100 --seed 10000 --out runs/leaderboard
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import Progress

from baselines import PRIVILEGED, algorithm_1_of
from baselines.bounds import needs_one_pool
from baselines.processes import at_most
from gpualloc_env.metrics import mean_metrics
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.contestants import Contestant, evaluations_of
from training.artifacts.policies import ALL, AgentsError, named, with_all
from training.cli import progress_bars, results_console, run, status_console
from training.evaluation.headroom import bounds_meanwhile
from training.evaluation.held_out import count_episodes, held_out_among_others, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.evaluation.verdicts import Entry
from training.files.provenance import write_config
from training.files.staging import staged
from training.limits import Limits
from training.reporting.figure_style import attempted
from training.reporting.leaderboard_figures import draw_headroom, draw_power, draw_profiles
from training.reporting.leaderboard_report import (
    Board,
    boards_json,
    notes,
    rows_by_scenario,
    summary_rows,
    write_csv,
    write_markdown,
)
from training.reporting.report import print_tables, write_json
from training.sharing import RayWorkers

FIGURES = ("headroom.png", "headroom.svg", "power.png", "power.svg")
FILES = ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "config.json", *FIGURES)
OWNED = (*FILES, "profiles.png", "profiles.svg")
"""Performance profiles are drawn where a policy was learned."""
SYNTHETIC = tuple(name for name, each in SCENARIOS.items() if each.trace is None)
"""Scenarios that need no log."""


@dataclass(frozen=True)
class LeaderboardConfig(Overrides, RayWorkers):
    """Run every policy on every scenario, and say what was left to gain and who wins."""

    scenarios: tuple[str, ...] = SYNTHETIC
    """Registered scenarios, or paths of .toml files. A log given with `--trace` replaces the traffic of a
    single scenario; of several it goes to those that replay one."""
    policies: tuple[str, ...] = (ALL,)
    """Names of baselines, exported allocators, and directories of training runs, among them Algorithm 1:
    `adaptive`, or `hierarchical` of clusters.

    A directory that holds several seeds, runs or exported (`seed-*.npz`), is one policy.

    `all` stands for every baseline; `clairvoyant` searches a good schedule for every episode with
    its arrivals known, which takes seconds an episode.
    """
    episodes: Annotated[int, Limits(1)] = 100
    """Held-out episodes of each scenario; one where all are alike, of a log at most its windows."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/leaderboard")
    """Directory for the results; those of an earlier leaderboard in it are replaced."""
    workers: Annotated[int | None, Limits(1)] = None
    """Processes that compute bounds and search schedules, without `--ray`; default: one for each core."""


def main(config: LeaderboardConfig) -> None:
    """Play everything, write the files, the numbers before the figures, and print the tables."""
    status = status_console()
    check_evaluation_seeds(config.seed, config.episodes)
    contests = {name: contest(config, name) for name in config.scenarios}
    with staged(config.out, OWNED, mark="leaderboard.json") as directory:
        boards = played(config, contests, status)
        write_json(directory / "leaderboard.json", boards_json(boards))
        write_csv(directory / "leaderboard.csv", boards)
        write_markdown(directory / "leaderboard.md", boards, config.seed)
        write_config(directory / "config.json", asdict(config))
        attempted(draw_headroom, directory / "headroom.png", boards, warn=status.print)
        attempted(draw_power, directory / "power.png", boards, warn=status.print)
        if any(entry.kind == "learned" for board in boards.values() for entry in board.entries):
            attempted(draw_profiles, directory / "profiles.png", boards, warn=status.print)
    console = results_console()
    print_tables(console, {**rows_by_scenario(boards), "Summary": summary_rows(boards)})
    console.print(*notes(boards), f"Results in {config.out}", sep="\n\n", soft_wrap=True)


def contest(config: LeaderboardConfig, name: str) -> tuple[Scenario, int]:
    """A scenario, and how many episodes of it are played."""
    several = len(config.scenarios) > 1
    scenario = (held_out_among_others if several else held_out_scenario)(name, config)
    if PRIVILEGED.keys() & set(config.policies):
        needs_one_pool(scenario)
    if algorithm_1_of(scenario) not in policies_on(scenario, config):
        raise ValueError(
            f"policies must include {algorithm_1_of(scenario)!r}: the headroom on {scenario.name!r} is "
            "measured from it"
        )
    return scenario, count_episodes(config.episodes, scenario) if scenario.varies else 1


def policies_on(scenario: Scenario, config: LeaderboardConfig) -> dict[str, str]:
    """The policies that are asked for on a scenario, by the names under which they appear."""
    return named(with_all(config.policies, scenario))


def played(
    config: LeaderboardConfig, contests: Mapping[str, tuple[Scenario, int]], status: Console
) -> dict[str, Board]:
    """Every policy on every scenario, beside the bounds of its episodes."""
    with (
        at_most(config.workers),
        progress_bars(status, width=34) as progress,
        bounds_meanwhile(contests, config.seed, config.ray or config.workers, progress) as bounds,
    ):
        entries = {
            name: entries_of(config, policies_on(scenario, config), scenario, episodes, progress)
            for name, (scenario, episodes) in contests.items()
        }
        return {
            name: Board(bounds[name].result(), entries[name], algorithm_1_of(scenario), scenario.varies)
            for name, (scenario, _) in contests.items()
        }


def entries_of(
    config: LeaderboardConfig,
    policies: Mapping[str, str],
    scenario: Scenario,
    episodes: int,
    progress: Progress,
) -> list[Entry]:
    """Every policy on the same episodes of a scenario."""
    contestants: list[Contestant] = []
    for name, given in policies.items():
        try:
            contestants.append(Contestant.of(name, given, scenario))
        except AgentsError as error:
            progress.console.print(f"{scenario.name} without {name}: {error}")

    evaluations = evaluations_of(scenario, episodes, config.seed, contestants, config.ray or 1, progress)
    return [Entry(each.policy, each.kind, each.by_seed, mean_metrics(each.metrics)) for each in evaluations]


if __name__ == "__main__":
    run(main, LeaderboardConfig)
