"""Search the settings that PPO is trained with, and keep what fresh seeds confirm.

python -m training.study --allocator ppo --scenario serverless --trials 40 --total-steps 300000 --seeds 2
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Annotated, Any

import optuna
import torch
from rich.progress import Progress
from stable_baselines3.common.logger import Logger

from baselines.processes import Workers, in_processes
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.traces.reading import refuse_pipe
from training.cli import command_line, progress_bars, results_console, run, status_console
from training.evaluation.seeds import LAST_RUN_SEED, check_run_seeds
from training.files.atomic import check_writable
from training.files.run_directory import RESULT, check_claim, claimed
from training.learning.allocators.kinds import KINDS, kind_of
from training.learning.callbacks import Boundaries, CriticFirst
from training.learning.defaults import DEFAULTS, default_settings
from training.learning.learner import AllocatorName, make_learner, whole_steps
from training.learning.selection import Selection, validation_objective
from training.limits import Limits
from training.reporting.measures import UNDEFINED
from training.reporting.report import print_tables
from training.search.search_space import SPACE, make_study, rounded
from training.search.trial_journal import TrialJournal
from training.search.trial_table import Trial, best_of, spread, write_trials
from training.search.tuned_file import Table, read_tables, refuse_changed, write_tables
from training.sharing import RayWorkers
from training.train import TrainConfig, train, train_alone

HEADER = """\
# What PPO is trained with, by scenario and allocator, found by training.study on training and validation
# seeds; a scenario without a table has that of serverless. Above each table stand the command that found
# it, and J of the former settings and of the best ones.
"""
JOURNAL, TRIALS, SETTINGS, CONFIRMATION = "trials.journal", "trials.csv", "settings.toml", "confirmation"
RESULTS = Path(__file__).with_name("results")
PLACES = ("out", "adopt", "file", "results", "progress", "ray")  # they change nothing that is found
DECIMALS = 6  # of J, in the table and in what the search is told alike


@dataclass(frozen=True)
class StudyConfig(Overrides, RayWorkers):
    """Search the settings that PPO is trained with, and keep what fresh seeds confirm."""

    allocator: AllocatorName = "ppo"
    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    trials: Annotated[int, Limits(1)] = 40
    """Settings to try, the present defaults first, then those of the other allocators."""
    trials_at_once: Annotated[int, Limits(1, 1000)] = 1
    """Trials proposed together, from what was found before them, and trained side by side, each on a core of
    this machine or with `--ray` of a cluster. What is found depends on this number, not on the cores."""
    total_steps: Annotated[int, Limits(1)] = 300_000
    """Steps of experience of each run of a trial."""
    seeds: Annotated[int, Limits(1, 1000)] = 2
    """Training seeds over which J of a trial is averaged."""
    seed: Annotated[int, Limits(0, LAST_RUN_SEED)] = 1000
    """The first of them, and the seed of the search."""
    validate_every: Annotated[int, Limits(1)] = 50_000
    """Steps between two validations of a run; after each a trial worse than the median is given up."""
    validation_episodes: Annotated[int, Limits(1)] = 200
    """Episodes of a validation, the same every time, none of them held out for evaluation."""
    confirm_steps: Annotated[int, Limits(1)] = 1_000_000
    """Steps of experience of each run that compares the best settings with the present defaults."""
    confirm_seeds: Annotated[int, Limits(1, 1000)] = 5
    """Training seeds of that comparison."""
    confirm_seed: Annotated[int, Limits(0, LAST_RUN_SEED)] = 0
    """The first of them; no trial may have had one of them."""
    out: Path = Path("runs/study")
    """Directory for the trials, the settings found and the runs of the comparison; the same command
    continues it. With `--ray`, where those runs are trained side by side, all machines must see it."""
    adopt: bool = False
    """Make the settings the defaults in `file`, and the trials a table in `results`, if fresh seeds confirm
    that they are better."""
    file: Path = DEFAULTS
    """File of the defaults; only `adopt` changes it."""
    results: Path = RESULTS
    """Folder for the table of all trials of a study that is adopted."""
    progress: bool = True
    """Show progress bars."""

    @property
    def workers(self) -> Workers:
        """Who trains."""
        return self.ray or (None if self.trials_at_once > 1 else 1)


def main(config: StudyConfig) -> None:
    """Try settings, compare the best with the present ones on fresh seeds, and write what was found."""
    torch.set_num_threads(1)
    check(config)
    if config.trace is not None:
        refuse_pipe(config.trace, "a study")
    scenario = load_scenario(config.scenario, config)
    if scenario.nodes:
        raise ValueError(
            f"scenario {scenario.name!r} has nodes, and a study searches the settings of allocators for one "
            "pool of GPUs; give --scenario one without nodes"
        )
    scenario.source()
    check_claim(config.out, asked(config))
    bars = progress_bars(status_console(), counted=True, shown=config.progress)
    with claimed(config.out, asked(config)), bars as progress:
        journal = TrialJournal(config.out / JOURNAL)
        trials = search(config, scenario, journal, progress)
        best = best_of(trials)
        for number in dict.fromkeys((0, best)) if best else ():
            fresh = confirmed(config, scenario, trials[number], number, progress)
            journal.confirm(number, fresh)
            trials[number] = trials[number]._replace(fresh=fresh)
        better = best if best and fmean(trials[best].fresh) < fmean(trials[0].fresh) else 0
        remark = f"# {command_line('study', **asked(config))}: {finding(config, trials, best, better)}"
        found = {(scenario.key, config.allocator): Table(remark, as_trained(trials[better].settings))}
        write_trials(config.out / TRIALS, trials)
        write_tables(config.out / SETTINGS, found, HEADER)
        if config.adopt and better:
            config.results.mkdir(parents=True, exist_ok=True)
            write_trials(config.results / f"study-{scenario.key}-{config.allocator}.csv", trials)
            write_tables(config.file, found, HEADER)
    console = results_console()
    title = f"{config.allocator} on {scenario.name}: {finding(config, trials, best, better)}"
    print_tables(console, {title: [row(trials, k) for k in dict.fromkeys((0, best))]})
    console.print(f"Trials and settings in {config.out}; {adoption(config, better)}", soft_wrap=True)


def check(config: StudyConfig) -> None:
    """Refuse what leaves nothing to do, or could not be written."""
    if not kind_of(config.allocator).studied:
        known = ", ".join(name for name, kind in KINDS.items() if kind.studied)
        raise ValueError(
            f"no study searches the settings of --allocator {config.allocator}; give one of {known}"
        )
    check_run_seeds(config.seed, config.seeds, TrainConfig.num_envs)
    check_run_seeds(config.confirm_seed, config.confirm_seeds, TrainConfig.num_envs)
    first, last = config.confirm_seed, config.confirm_seed + config.confirm_seeds - 1
    if first < config.seed + config.seeds and config.seed <= last:
        raise ValueError(
            f"the seeds that confirm, {first} to {last}, must be fresh, and the trials have "
            f"{config.seed} to {config.seed + config.seeds - 1}; give another seed or confirm_seed"
        )
    if config.adopt:
        places = {"file": config.file, "results": config.results}
        refuse_changed(config, config.scenario, places, DEFAULTS.parents[1])
        read_tables(config.file)
        for file in (config.file, config.results / "any"):
            check_writable(file)


def asked(config: StudyConfig) -> dict[str, Any]:
    """What is to be found, without the places where it is kept."""
    return {name: value for name, value in asdict(config).items() if name not in PLACES}


def search(config: StudyConfig, scenario: Scenario, journal: TrialJournal, progress: Progress) -> list[Trial]:
    """Play the trials that are missing; those of a batch are proposed from nothing but those before it."""
    known: list[dict[str, Any]] = []
    others = (name for name, kind in KINDS.items() if name != config.allocator and kind.studied)
    for allocator in (config.allocator, *others):
        settings = as_searched(default_settings(allocator, scenario.key))
        known += [settings] if settings not in known else []
    done = journal.frozen
    bar = progress.add_task("trials", total=config.trials, completed=len(done))
    while len(done) < config.trials:
        # A study of its own for each batch, so that nothing depends on where the search was continued.
        first = len(done) - len(done) % config.trials_at_once
        last = min(config.trials, first + config.trials_at_once)
        study = make_study(config.seed + first)
        study.add_trials(done[:first])
        for settings in known[first:last]:
            study.enqueue_trial(settings)
        proposed = [study.ask(SPACE) for _ in range(first, last)][len(done) - first :]
        for trial in in_processes(
            partial(played, config, scenario), proposed, config.workers, lambda _: progress.advance(bar)
        ):
            journal.add(trial)
        write_trials(config.out / TRIALS, journal.finished)
        done = journal.frozen
    return journal.finished


def played(config: StudyConfig, scenario: Scenario, trial: optuna.Trial) -> Trial:
    """Train with the settings of a trial, one seed after another, or until it is given up."""
    torch.set_num_threads(1)
    started, settings = perf_counter(), rounded(trial.params)
    objectives: list[float] = []
    curve: list[float] = []
    given_up = False

    def record(best: float) -> None:
        curve.append(round(fmean([*objectives, best]), DECIMALS))
        trial.report(curve[-1], len(curve))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        for seed in range(config.seed, config.seed + config.seeds):
            each = training(config, settings, seed, config.total_steps)
            objectives.append(trained_objective(each, scenario, record, helpers=config.workers == 1))
    except optuna.TrialPruned:
        given_up = True
    return Trial(settings, tuple(curve), given_up, perf_counter() - started)


def trained_objective(
    config: TrainConfig, scenario: Scenario, record: Callable[[float], None], helpers: bool
) -> float:
    """Train once and keep nothing but J of the policy that would be kept.

    Args:
        config: what to train, with all its settings.
        scenario: on what.
        record: told that J so far, after each validation but the one of the untrained policy.
        helpers: whether other cores may help.
    """
    model, transform = make_learner(config, scenario, helpers)
    model.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder for what nobody reads
    selection = Selection()

    def best() -> float:
        assert selection.best is not None
        return selection.best[1]

    boundaries = Boundaries(
        selection,
        validate_every=config.validate_every,
        validate=lambda model: validation_objective(model, transform, [scenario], config.validation_episodes),
        record=lambda step, _: record(best()) if step else None,
    )
    model.learn(whole_steps(config), callback=[CriticFirst(config.critic_first), boundaries])
    return best()


def confirmed(
    config: StudyConfig, scenario: Scenario, trial: Trial, number: int, progress: Progress
) -> tuple[float, ...]:
    """J of the settings of a trial on each of the fresh seeds, from runs that can be continued."""
    runs = [
        replace(
            training(config, trial.settings, seed, config.confirm_steps),
            out=config.out / CONFIRMATION / f"trial-{number}" / f"seed-{seed}",
        )
        for seed in range(config.confirm_seed, config.confirm_seed + config.confirm_seeds)
    ]
    if config.workers == 1:
        for run in runs:
            bar = progress.add_task(f"trial {number}, fresh seed {run.seed}", total=whole_steps(run))
            with claimed(run.out, asdict(run)):
                train(run, scenario, {}, progress, bar)
    else:
        bar = progress.add_task(f"trial {number}, fresh seeds", total=len(runs))
        there = partial(train_alone, scenario, {})
        in_processes(there, runs, config.workers, lambda done: progress.update(bar, completed=done))
    return tuple(best_objective(run) for run in runs)


def best_objective(run: TrainConfig) -> float:
    """J of a finished training run in validation."""
    result = json.loads((run.out / RESULT).read_text(encoding="utf-8"))
    return round(result["best"]["objective"], DECIMALS)


def training(config: StudyConfig, settings: Mapping[str, Any], seed: int, total_steps: int) -> TrainConfig:
    """A training run with the settings of a trial."""
    return TrainConfig(
        **config.changes,
        scenario=config.scenario,
        allocator=config.allocator,
        total_steps=total_steps,
        seed=seed,
        validate_every=config.validate_every,
        validation_episodes=config.validation_episodes,
        progress=False,
        **as_trained(settings),
    )


def as_trained(searched: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a trial as training takes them: two hidden layers of one width."""
    rest = {name: value for name, value in searched.items() if name != "width"}
    return {**rest, "hidden": [searched["width"]] * 2}


def as_searched(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training as a trial has them."""
    rest = {name: value for name, value in settings.items() if name != "hidden"}
    return {**rest, "width": settings["hidden"][0]}


def finding(config: StudyConfig, trials: list[Trial], best: int, better: int) -> str:
    """What the study has found, in one line."""
    before = trials[0]
    if not best:
        return f"J {before.objective:.4f}, none of {len(trials)} trials was better than the former settings"
    return (
        f"J {before.objective:.4f} -> {trials[best].objective:.4f} in {len(trials)} trials, "
        f"{spread(before.fresh)} -> {spread(trials[best].fresh)} on {config.confirm_seeds} fresh seeds: "
        + (("adopted" if config.adopt else "better") if better else "the former settings stay")
    )


def adoption(config: StudyConfig, better: int) -> str:
    """What becomes of the settings, in words."""
    if config.adopt and better:
        return f"defaults in {config.file}, all trials in {config.results}"
    return f"{config.file} is as it was" + (", --adopt would change it" if better else "")


def row(trials: list[Trial], number: int) -> dict[str, str]:
    """A line of the printed table."""
    trial = trials[number]
    return {
        "settings": f"trial {number}" if number else "former",
        "J, trials": f"{trial.objective:.4f}",
        "J, fresh seeds": spread(trial.fresh) if trial.fresh else UNDEFINED,
        **{name.replace("_", "\n"): f"{value:g}" for name, value in trial.settings.items()},
    }


if __name__ == "__main__":
    run(main, StudyConfig)
