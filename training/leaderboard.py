"""Run every policy on every scenario, and say what was left to gain and who wins.

python -m training.leaderboard --episodes 100 --seed 10000 --out runs/leaderboard
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from baselines import POLICIES, PRIVILEGED, Policy, lower_bounds
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.artifacts.policies import AgentsError, kind_of, load_policies, policy_of
from training.cli import fail
from training.compare import named
from training.evaluation.evaluate import Kind, evaluate, mean_metrics
from training.evaluation.held_out import count_episodes, held_out_among_others, held_out_scenario
from training.evaluation.verdicts import Entry
from training.files.provenance import write_config
from training.files.staging import staged
from training.reporting.leaderboard_figures import draw_headroom, draw_power, draw_profiles
from training.reporting.leaderboard_report import (
    Board,
    boards_json,
    rows_by_scenario,
    summary_rows,
    write_csv,
    write_markdown,
)
from training.reporting.report import rich_table, write_json

FILES = ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "headroom.png", "power.png", "config.json")
OWNED = (*FILES, "profiles.png")
"""Performance profiles are drawn where a policy was learned."""
ALL = "all"
SYNTHETIC = tuple(name for name, scenario in SCENARIOS.items() if scenario.trace is None)


@dataclass(frozen=True)
class LeaderboardConfig(Overrides):
    """Run every policy on every scenario, and say what was left to gain and who wins."""

    scenarios: tuple[str, ...] = SYNTHETIC
    """Registered scenarios, or paths of .toml files. A log given with `--trace` replaces the traffic of a
    single scenario; of several it goes to those that replay one."""
    policies: tuple[str, ...] = (ALL,)
    """Names of baselines, exported allocators, and directories of training runs.

    A directory that holds several seeds, runs or exported (`seed-*.npz`), is one policy.

    `all` stands for every baseline; `clairvoyant` searches a good schedule for every episode with
    its arrivals known, which takes seconds an episode.
    """
    episodes: int = 100
    """Held-out episodes of each scenario; one where all are alike, of a log at most its windows."""
    seed: int = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/leaderboard")
    """Directory for the results; those of an earlier leaderboard in it are replaced."""
    workers: int | None = None
    """Processes that compute bounds; default: one for each core."""


def main(config: LeaderboardConfig) -> None:
    """Play everything, write the files, print the tables."""
    status = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        policies = named(
            [each for given in config.policies for each in (POLICIES if given == ALL else [given])]
        )
        if "adaptive" not in policies:
            raise ValueError("policies must include 'adaptive': the headroom is measured from it")
        contests = {name: contest(config, name) for name in config.scenarios}
        with (
            staged(config.out, OWNED, mark="leaderboard.json") as directory,
            progress_bar(status) as progress,
        ):
            with bounds_meanwhile(config, contests, progress) as bounds:
                entries = {
                    name: play(config, policies, scenario, episodes, progress, status)
                    for name, (scenario, episodes) in contests.items()
                }
                boards = {
                    name: Board(bounds[name].result(), played, varies=contests[name][0].varies)
                    for name, played in entries.items()
                }
            write_json(directory / "leaderboard.json", boards_json(boards))
            write_csv(directory / "leaderboard.csv", boards)
            write_markdown(directory / "leaderboard.md", boards, config.seed)
            draw_headroom(directory / "headroom.png", boards)
            draw_power(directory / "power.png", boards)
            if any(entry.kind == "learned" for board in boards.values() for entry in board.entries):
                draw_profiles(directory / "profiles.png", boards)
            write_config(directory / "config.json", asdict(config))
    except (ValueError, OSError) as error:
        fail(error)
    console = Console(width=None if sys.stdout.isatty() else 150, markup=False, highlight=False)
    for title, rows in rows_by_scenario(boards).items():
        console.print(rich_table(title, rows), "", sep="\n")
    console.print(rich_table("Summary", summary_rows(boards)), f"Results in {config.out}", sep="\n\n")


def contest(config: LeaderboardConfig, name: str) -> tuple[Scenario, int]:
    """A scenario, and how many episodes of it are played."""
    several = len(config.scenarios) > 1
    scenario = (held_out_among_others if several else held_out_scenario)(name, config)
    return scenario, count_episodes(config.episodes, scenario) if scenario.varies else 1


@contextmanager
def bounds_meanwhile(
    config: LeaderboardConfig, contests: Mapping[str, tuple[Scenario, int]], progress: Progress
) -> Iterator[dict[str, Future[Array]]]:
    """Bounds of each scenario's episodes, computed by processes while policies play in this one."""
    over = Event()

    def bounds(scenario: Scenario, episodes: int) -> Array:
        task = progress.add_task(f"{scenario.name}: bound", total=episodes)

        def advance(done: int) -> None:
            if over.is_set():
                raise CancelledError
            progress.update(task, completed=done)

        return lower_bounds(scenario, episodes, config.seed, workers=config.workers, progress=advance)

    with ThreadPoolExecutor(1) as thread:
        futures = {name: thread.submit(bounds, *contest) for name, contest in contests.items()}
        try:
            yield futures
        finally:
            # Where something has failed nobody waits for the rest.
            over.set()
            thread.shutdown(cancel_futures=True)


def play(
    config: LeaderboardConfig,
    policies: Mapping[str, str],
    scenario: Scenario,
    episodes: int,
    progress: Progress,
    status: Console,
) -> list[Entry]:
    """Every policy on the same episodes of a scenario."""
    task = progress.add_task(scenario.name, total=len(policies))
    entries: list[Entry] = []
    for name, given in policies.items():
        progress.update(task, description=f"{scenario.name}: {name}")
        try:
            kind, runs = contestants(given, scenario, episodes, config.seed)
        except AgentsError as error:
            status.print(f"{scenario.name} without {name}: {error}")
            continue
        played = [evaluate(name, policy, scenario, episodes, config.seed) for policy in runs]
        objective: Array = np.stack([run.objective for run in played])
        metrics = mean_metrics([each for run in played for each in run.metrics])
        entries.append(Entry(name, kind, objective, metrics))
        progress.advance(task)
    progress.update(task, description=scenario.name, completed=len(policies))
    return entries


def contestants(given: str, scenario: Scenario, episodes: int, seed: int) -> tuple[Kind, list[Policy]]:
    """The kind of a policy, and the policy, or one for each of its training seeds."""
    if given in PRIVILEGED:
        return kind_of(given), [policy_of(given, scenario, episodes, seed)]
    return kind_of(given), load_policies(given, scenario)


@contextmanager
def progress_bar(status: Console) -> Iterator[Progress]:
    """Two lines for each scenario, its bounds and its policies, on the terminal that messages go to."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=status) as progress:
        yield progress


if __name__ == "__main__":
    main(tyro.cli(LeaderboardConfig))
