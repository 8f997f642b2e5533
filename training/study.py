"""Search the settings that PPO is trained with, and keep what fresh seeds confirm.

python -m training.study --allocator ppo --scenario serverless --trials 40 --total-steps 300000 --seeds 2
"""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter
from typing import Annotated, Any

import optuna
import torch
import tyro
from rich.console import Console
from rich.progress import Progress

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.cli import fail, options
from training.evaluation.seeds import check_run_seeds
from training.files.run_directory import RESULT, claimed
from training.learning.callbacks import Boundaries, CriticFirst
from training.learning.defaults import DEFAULTS, default_settings
from training.learning.kinds import KINDS, help_text, kind_of
from training.learning.selection import Selection, validation_objective
from training.reporting.report import rich_table
from training.search.search_space import SPACE, distributions, make_study, rounded
from training.search.trial_table import Trial, read_trials, write_trials
from training.search.tuned_file import Table, read_tables, refuse_changed, write_tables
from training.train import TrainConfig, make_learner, progress_display, train

HEADER = """\
# What PPO is trained with, by scenario and allocator, found by training.study on training and validation
# seeds; a scenario without a table has that of serverless. Above each table stand the command that found
# it, and J of the former settings and of the best ones.
"""
TRIALS, CONFIRMATION = "trials.csv", "confirmation"
RESULTS = Path(__file__).with_name("results")
PLACES = ("out", "file", "results", "progress")  # they change nothing that is found
DECIMALS = 6  # of J, so that a study continued from its table goes on as if it had never stopped


@dataclass(frozen=True)
class StudyConfig(Overrides):
    """Search the settings that PPO is trained with, and keep what fresh seeds confirm."""

    allocator: Annotated[str, tyro.conf.arg(metavar="|".join(KINDS), help=help_text())] = "ppo"
    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    trials: int = 40
    """Settings to try, the present defaults first, then those of the other allocators."""
    total_steps: int = 300_000
    """Steps of experience of each run of a trial."""
    seeds: int = 2
    """Training seeds over which J of a trial is averaged."""
    seed: int = 1000
    """The first of them, and the seed of the search."""
    validate_every: int = 50_000
    """Steps between two validations of a run; after each a trial worse than the median is given up."""
    validation_episodes: int = 200
    """Episodes of a validation, the same every time, none of them held out for evaluation."""
    confirm_steps: int = 1_000_000
    """Steps of experience of each run that compares the best settings with the present defaults."""
    confirm_seeds: int = 5
    """Training seeds of that comparison."""
    confirm_seed: int = 0
    """The first of them; no trial may have had one of them."""
    out: Path = Path("runs/study")
    """Directory for the trials so far and the runs of the comparison; the same command continues it."""
    file: Path = DEFAULTS
    """File for the settings; its other tables stay as they are."""
    results: Path = RESULTS
    """Folder for the table of all trials."""
    progress: bool = True
    """Show progress bars."""


def main(config: StudyConfig) -> None:
    """Try settings, compare the best with the present ones on fresh seeds, and write the better ones."""
    torch.set_num_threads(1)
    with ExitStack() as lock:
        try:
            check(config)
            files = {"file": config.file, "results": config.results / "any"}
            refuse_changed(config, config.scenario, files, DEFAULTS.parents[1])
            scenario = load_scenario(config.scenario, config)
            scenario.source()
            read_tables(config.file)
            lock.enter_context(claimed(config.out, asked(config)))
            trials = read_trials(config.out / TRIALS)
        except (ValueError, OSError) as error:
            fail(error)
        with progress_display(config.progress) as progress:
            trials = search(config, scenario, trials, progress)
            best = min(
                (k for k, trial in enumerate(trials) if not trial.given_up), key=lambda k: trials[k].objective
            )
            for number in dict.fromkeys((0, best)) if best else ():
                fresh = confirmed(config, scenario, trials[number], number, progress)
                trials[number] = trials[number]._replace(fresh=fresh)
                write_trials(config.out / TRIALS, trials)
        adopted = best if best and fmean(trials[best].fresh) < fmean(trials[0].fresh) else 0
        settings = as_trained(trials[adopted].settings)
        remark = f"# {command(config)}: {finding(config, trials, best, adopted)}"
        table = config.results / f"study-{scenario.key}-{config.allocator}.csv"
        try:
            config.results.mkdir(parents=True, exist_ok=True)
            write_trials(table, trials)
            write_tables(config.file, {(scenario.key, config.allocator): Table(remark, settings)}, HEADER)
        except (ValueError, OSError) as error:
            fail(error)
    console = Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False)
    title = f"{config.allocator} on {scenario.name}: {finding(config, trials, best, adopted)}"
    console.print(rich_table(title, [row(trials, k) for k in dict.fromkeys((0, best))]))
    console.print(f"Settings in {config.file}, all trials in {table}")


def check(config: StudyConfig) -> None:
    """Refuse numbers that leave nothing to do."""
    kind_of(config.allocator)
    numbers = ("trials", "total_steps", "seeds", "validate_every", "validation_episodes")
    least = dict.fromkeys((*numbers, "confirm_steps", "confirm_seeds"), 1) | {"seed": 0, "confirm_seed": 0}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ValueError(f"{name} must be at least {bound}, got {getattr(config, name)}")
    check_run_seeds(config.seed, config.seeds, TrainConfig.num_envs)
    check_run_seeds(config.confirm_seed, config.confirm_seeds, TrainConfig.num_envs)
    first, last = config.confirm_seed, config.confirm_seed + config.confirm_seeds - 1
    if first < config.seed + config.seeds and config.seed <= last:
        raise ValueError(
            f"the seeds that confirm, {first} to {last}, must be fresh, and the trials have "
            f"{config.seed} to {config.seed + config.seeds - 1}; give another seed or confirm_seed"
        )


def asked(config: StudyConfig) -> dict[str, Any]:
    """What is to be found, without the places where it is kept."""
    return {name: value for name, value in asdict(config).items() if name not in PLACES}


def search(config: StudyConfig, scenario: Scenario, trials: list[Trial], progress: Progress) -> list[Trial]:
    """Play the trials that are missing; each is proposed from nothing but those before it."""
    trials = list(trials)
    bar = progress.add_task("trials", total=config.trials, completed=len(trials))
    others = [allocator for allocator in KINDS if allocator != config.allocator]
    known: list[dict[str, Any]] = []
    for allocator in (config.allocator, *others):
        settings = as_searched(default_settings(allocator, scenario.key))
        known += [settings] if settings not in known else []
    while len(trials) < config.trials:
        study = make_study(config.seed + len(trials))
        study.add_trials([trial.frozen() for trial in trials])
        if len(trials) < len(known):
            study.enqueue_trial(known[len(trials)])
        trials.append(played(study.ask(distributions(SPACE)), config, scenario))
        write_trials(config.out / TRIALS, trials)
        progress.update(bar, completed=len(trials))
    return trials


def played(trial: optuna.Trial, config: StudyConfig, scenario: Scenario) -> Trial:
    """Train with the settings of a trial, one seed after another, or until it is given up."""
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
            run = training(config, settings, seed, config.total_steps)
            objectives.append(trained_objective(run, scenario, record))
    except optuna.TrialPruned:
        given_up = True
    return Trial(settings, tuple(curve), given_up, perf_counter() - started)


def trained_objective(config: TrainConfig, scenario: Scenario, record: Callable[[float], None]) -> float:
    """Train once and keep nothing but J of the policy that would be kept.

    Args:
        config: what to train, with all its settings.
        scenario: on what.
        record: told that J so far, after each validation but the one of the untrained policy.
    """
    model, transform = make_learner(config, scenario)
    selection = Selection()

    def best() -> float:
        assert selection.best is not None
        return selection.best[1]

    boundaries = Boundaries(
        selection,
        checkpoint_every=0,
        validate_every=config.validate_every,
        patience=0,
        validate=lambda model: validation_objective(model, transform, scenario, config.validation_episodes),
        record=lambda step, _: record(best()) if step else None,
        keep=lambda _: None,
        show=lambda _: None,
    )
    model.learn(config.total_steps, callback=[CriticFirst(config.critic_updates), boundaries])
    return best()


def confirmed(
    config: StudyConfig, scenario: Scenario, trial: Trial, number: int, progress: Progress
) -> tuple[float, ...]:
    """J of the settings of a trial on each of the fresh seeds, from runs that can be continued."""
    found: list[float] = []
    for seed in range(config.confirm_seed, config.confirm_seed + config.confirm_seeds):
        out = config.out / CONFIRMATION / f"trial-{number}" / f"seed-{seed}"
        run = replace(training(config, trial.settings, seed, config.confirm_steps), out=out)
        bar = progress.add_task(f"trial {number}, fresh seed {seed}", total=config.confirm_steps)
        with ExitStack() as lock:
            try:
                lock.enter_context(claimed(out, asdict(run)))
            except (ValueError, OSError) as error:
                fail(error)
            train(run, scenario, progress, bar)
        result = json.loads((out / RESULT).read_text(encoding="utf-8"))
        found.append(round(result["best"]["objective"], DECIMALS))
    return tuple(found)


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


def command(config: StudyConfig) -> str:
    """The command that repeats the study."""
    return shlex.join(["python", "-m", "training.study", *options(asked(config))])


def finding(config: StudyConfig, trials: list[Trial], best: int, adopted: int) -> str:
    """What the study has found, in one line."""
    before = trials[0]
    if not best:
        return f"J {before.objective:.4f}, none of {len(trials)} trials was better than the former settings"
    return (
        f"J {before.objective:.4f} -> {trials[best].objective:.4f} in {len(trials)} trials, "
        f"{spread(before.fresh)} -> {spread(trials[best].fresh)} on {config.confirm_seeds} fresh seeds: "
        + ("adopted" if adopted else "the former settings stay")
    )


def spread(objectives: tuple[float, ...]) -> str:
    """Mean and standard deviation over training seeds."""
    deviation = f" ± {stdev(objectives):.4f}" if len(objectives) > 1 else ""
    return f"{fmean(objectives):.4f}{deviation}"


def row(trials: list[Trial], number: int) -> dict[str, str]:
    """A line of the printed table."""
    trial = trials[number]
    return {
        "settings": f"trial {number}" if number else "former",
        "J, trials": f"{trial.objective:.4f}",
        "J, fresh seeds": spread(trial.fresh) if trial.fresh else "",
        **{name.replace("_", "\n"): f"{value:g}" for name, value in trial.settings.items()},
    }


if __name__ == "__main__":
    main(tyro.cli(StudyConfig))
