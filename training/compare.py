"""Compare allocators on the same held-out workloads: a table, a figure, files and TensorBoard runs.

python -m training.compare --scenario serverless --policies static adaptive runs/my-ppo
"""

import shlex
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.progress import Progress

from baselines import algorithm_1_of
from baselines.bounds import FutureError, bounds_are_cheap
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.artifacts.contestants import Contestant, evaluations_of
from training.artifacts.policies import AgentsError, named, with_all
from training.artifacts.training_record import read_record
from training.cli import progress_bars, results_console, run, status_console
from training.evaluation.evaluate import Evaluation
from training.evaluation.headroom import bounds_meanwhile, with_headroom
from training.evaluation.held_out import count_episodes, held_out_among_others, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.files.provenance import write_config
from training.files.staging import staged
from training.limits import Limits
from training.reporting.event_files import write_runs
from training.reporting.figure_style import attempted
from training.reporting.figures import draw
from training.reporting.heatmap import draw_heatmap
from training.reporting.report import (
    Summary,
    overview,
    page,
    print_tables,
    summary,
    tables,
    write_episodes,
    write_json,
    write_table,
)
from training.reporting.task_figure import draw_task, example
from training.sharing import RayWorkers

ALL = "all"
ENTRIES = (
    *("summary.json", "episodes.csv", "comparison.csv", "comparison.md", "config.json"),
    *("comparison.png", "comparison.svg", "tensorboard"),
)
OWNED = (*ENTRIES, "task.png", "task.svg", "heatmap.png", "heatmap.svg", *SCENARIOS)
"""What a comparison of one scenario or of all may write."""


@dataclass(frozen=True)
class CompareConfig(Overrides, RayWorkers):
    """Compare allocators on the same held-out workloads."""

    scenario: str = "serverless"
    """A registered scenario, the path of a .toml file, or `all` registered scenarios one after another."""
    policies: tuple[str, ...] = ("static", "round-robin", "adaptive")
    """Names of baselines, `all` for every one of the scenario's, of a cluster `spread`, `packed` and so on,
    with another policy below as `lru+proportional-fair`; exported allocators (.npz), directories of training
    runs, and functions of your own as `module:name`; a directory that holds several seeds, runs or exported,
    is one policy with the mean over them.

    `clairvoyant` searches a good schedule for every episode with its arrivals known, which takes
    seconds an episode; it shows what could be attained and is labelled as knowing the future.
    """
    reference: str | None = None
    """The policy, one of `policies`, from which paired differences of J are shown besides those from
    Algorithm 1; default: the best baseline."""
    episodes: Annotated[int, Limits(1)] = 100
    """Held-out episodes that every policy plays; of a log, at most its windows."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 10000
    """Seed of the first episode; the others follow it."""
    bound: Literal["if-cheap", "always", "never"] = "if-cheap"
    """Whether to compute the J that no policy can undercut, while policies play, and with it the part that
    each closes of the headroom between Algorithm 1 and that bound. Cheap are fluids without routing of at
    most 3,000 agents × steps, with Algorithm 1 among the policies: 0.3 s an episode of `serverless`.
    `fleet` takes 7 s, scenarios of calls 0.2 to 6 s."""
    out: Path = Path("runs/compare")
    """Directory for the results; those of an earlier comparison in it are replaced."""


def main(config: CompareConfig) -> None:
    """Evaluate every policy on the same episodes of each scenario, write the files, print the tables."""
    status = status_console()
    check_evaluation_seeds(config.seed, config.episodes)
    everything = config.scenario == ALL
    names = all_scenarios(config, status) if everything else [config.scenario]
    made = {name: Contest.of(config, name, status, skip_misfits=everything) for name in names}
    contests = {name: contest for name, contest in made.items() if contest.contestants}
    if not contests:
        raise ValueError(
            f"none of {', '.join(config.policies)} can play any of {', '.join(names)}; give one that can, "
            "or a scenario that it can play"
        )
    summaries: dict[str, Summary] = {}
    printed: dict[str, list[dict[str, str]]] = {}
    with (
        staged(config.out, OWNED, mark="summary.json") as directory,
        progress_bars(status, width=34) as progress,
        bounds_meanwhile(bounded(contests, config), config.seed, config.ray, progress) as bounds,
    ):
        for name, contest in contests.items():
            evaluations = contest.play(config, progress, bounds.get(name))
            place = directory / name if everything else directory
            summaries[name], shown = contest.write(place, evaluations, config, status)
            printed |= shown
        if everything:
            write_json(directory / "summary.json", {"scenarios": summaries})
            write_config(directory / "config.json", asdict(config))
            attempted(draw_heatmap, directory / "heatmap.png", summaries, warn=status.print)
    console = results_console()
    print_tables(console, printed)
    if everything:
        print_tables(console, {"J by scenario (lower is better)": overview(summaries)})
    charts, folder = ("charts of a scenario", "SCENARIO") if everything else ("charts", "")
    place = shlex.quote(str(config.out / folder / "tensorboard"))
    console.print(f"Results in {config.out}; {charts} with: tensorboard --logdir {place}", soft_wrap=True)


@dataclass(frozen=True)
class Contest:
    """One scenario, and the policies that play the same episodes of it."""

    scenario: Scenario
    contestants: list[Contestant]
    episodes: int

    @classmethod
    def of(cls, config: CompareConfig, name: str, status: Console, skip_misfits: bool) -> "Contest":
        """Load everything before any episode is played, so that a mistake costs no time.

        Args:
            config: what to compare.
            name: the scenario.
            status: where to say what is played, and what is not.
            skip_misfits: leave out a policy that cannot play the scenario, and say so.
        """
        scenario = (held_out_among_others if config.scenario == ALL else held_out_scenario)(name, config)
        contestants: list[Contestant] = []
        policies = with_all(config.policies, scenario)
        if config.reference is not None and config.reference not in policies:
            raise ValueError(
                f"reference {config.reference!r} does not play; give one of {', '.join(policies)}"
            )
        asked = named(policies, "" if config.scenario == ALL else scenario.key)
        for label, given in asked.items():
            try:
                contestants.append(Contestant.of(label, given, scenario))
            except (AgentsError, FutureError) as error:
                if not skip_misfits:
                    raise
                status.print(f"{name} without {label}: {error}")
        episodes = count_episodes(config.episodes, scenario, policies=len(contestants))
        if scenario.trace is not None:
            status.print(scenario.windows.accounting)
            if episodes < config.episodes:
                status.print(
                    f"Split {scenario.trace.split!r} has {episodes} windows: each is played once instead of "
                    f"{config.episodes} episodes, because repeated windows are not independent samples"
                )
        return cls(scenario, contestants, episodes)

    def play(
        self, config: CompareConfig, progress: Progress, bounds: Future[Array] | None
    ) -> list[Evaluation]:
        """Play the episodes; with their bounds, where some are computed, each policy has its headroom."""
        workers = config.ray or 1
        played = evaluations_of(
            self.scenario, self.episodes, config.seed, self.contestants, workers, progress
        )
        return played if bounds is None else with_headroom(played, bounds.result())

    def write(
        self, directory: Path, evaluations: list[Evaluation], config: CompareConfig, status: Console
    ) -> tuple[Summary, dict[str, list[dict[str, str]]]]:
        """Write the results, the numbers before the figures; returns the summary and the tables."""
        directory.mkdir(exist_ok=True)
        chosen = next((each.name for each in self.contestants if each.given == config.reference), None)
        summed, titled = summary(evaluations, config.seed, chosen), tables(evaluations, chosen)
        write_json(directory / "summary.json", summed)
        write_episodes(directory / "episodes.csv", evaluations, config.seed)
        write_table(directory / "comparison.csv", next(iter(titled.values())))
        (directory / "comparison.md").write_text(page(evaluations, chosen), encoding="utf-8")
        write_config(directory / "config.json", asdict(config))
        shown = partial(attempted, warn=status.print)
        figures = {"comparison": shown(draw, directory / "comparison.png", evaluations, config.seed, chosen)}
        task = example(evaluations)
        if task is not None:
            figures["one task"] = shown(draw_task, directory / "task.png", evaluations, task, config.seed)
        found = {each.name: read_record(Path(each.given)) for each in self.contestants}
        records = {name: record for name, record in found.items() if record is not None}
        write_runs(directory / "tensorboard", evaluations, figures, records, chosen)
        return summed, titled


def bounded(contests: dict[str, Contest], config: CompareConfig) -> dict[str, tuple[Scenario, int]]:
    """The scenarios of which bounds are computed, and how many episodes of each."""

    def worth_it(contest: Contest) -> bool:
        measured_from = algorithm_1_of(contest.scenario)
        plays = any(each.name == measured_from for each in contest.contestants)
        return config.bound == "if-cheap" and plays and bounds_are_cheap(contest.scenario)

    return {
        name: (each.scenario, each.episodes)
        for name, each in contests.items()
        if config.bound == "always" or worth_it(each)
    }


def all_scenarios(config: CompareConfig, status: Console) -> list[str]:
    """Every registered scenario, those that wait for a log only where one is given."""
    waiting = [name for name, scenario in SCENARIOS.items() if scenario.trace and config.trace is None]
    if waiting:
        status.print(f"Without {', '.join(waiting)}, which replays a request log: give one with --trace")
    return [name for name in SCENARIOS if name not in waiting]


if __name__ == "__main__":
    run(main, CompareConfig)
