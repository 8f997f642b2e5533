"""Tune the constants of the baselines on a scenario's training seeds.

python -m training.tune --scenario serverless --policies receding-horizon --trials 60 --episodes 200
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import tyro
from rich.console import Console
from rich.progress import Progress

from baselines import DEFAULTS, with_constants
from baselines.tunable import ranges
from baselines.tuned import TUNED, Constants
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.cli import fail, options
from training.evaluation.evaluate import rollout
from training.evaluation.seeds import END_OF_SEEDS, FIRST_TRAINING_SEED
from training.reporting.report import rich_table
from training.search.search_space import distributions, make_study, rounded
from training.search.tuned_file import Table, refuse_changed, write_tables

HEADER = """\
# Constants of the baselines by scenario and policy, found by training.tune on training seeds.
# Above each table stand the command that found it, and J on its episodes of the defaults and of these.
"""
TUNABLE = tuple(name for name, policy in DEFAULTS.items() if ranges(policy))


@dataclass(frozen=True)
class TuneConfig(Overrides):
    """Tune the constants of the baselines on a scenario's training seeds."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    policies: tuple[str, ...] = TUNABLE
    """Names of baselines that have constants."""
    trials: int = 60
    """Constants to try for each policy, the defaults first."""
    episodes: int = 200
    """Training episodes on which each trial is played."""
    seed: int = FIRST_TRAINING_SEED
    """Seed of the first episode, the others follow it; also of the search. At least 2⁴⁰."""
    out: Path = TUNED
    """File for the constants; its other tables stay as they are. Give another one for a changed scenario."""


def main(config: TuneConfig) -> None:
    """Search the constants of each policy, then write those that were best."""
    console = Console(width=None if sys.stdout.isatty() else 130, markup=False, highlight=False)
    status = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        check(config)
        refuse_changed(config, config.scenario, {"out": config.out}, TUNED.parent)
        scenario = load_scenario(config.scenario, config)
        scenario.source()
        found: dict[tuple[str, str], Table] = {}
        rows: list[dict[str, str]] = []
        with Progress(console=status) as progress:
            for name in config.policies:
                task = progress.add_task(f"{name} on {scenario.name}", total=config.trials)
                study = search(name, scenario, config, lambda task=task: progress.advance(task))
                best, before = study.best_trial, study.trials[0]
                constants: Constants = best.user_attrs["constants"]
                remark = f"# {command(config, name)}: J {before.value:.4f} -> {best.value:.4f}"
                found[scenario.key, name] = Table(remark, constants)
                text = ", ".join(f"{key} = {value:g}" for key, value in constants.items())
                rows.append(
                    {
                        "policy": name,
                        "J, defaults": f"{before.value:.4f}",
                        "J, tuned": f"{best.value:.4f}",
                        "constants": text,
                    }
                )
        write_tables(config.out, found, HEADER)
    except (ValueError, OSError) as error:
        fail(error)
    title = f"{scenario.name}: {config.episodes} training episodes from seed {config.seed}"
    console.print(rich_table(title, rows))
    console.print(f"Constants in {config.out}")


def check(config: TuneConfig) -> None:
    """Refuse what cannot be tuned, and seeds on which policies are evaluated."""
    if not config.policies:
        raise ValueError(f"no policies to tune; give some of {', '.join(TUNABLE)}")
    for name in config.policies:
        if name not in TUNABLE:
            known = "has no constants" if name in DEFAULTS else "is unknown"
            raise ValueError(f"policy {name!r} {known}; give some of {', '.join(TUNABLE)}")
        if config.policies.count(name) > 1:
            raise ValueError(f"policy {name!r} is given more than once; give each policy once")
    for name in ("trials", "episodes"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not FIRST_TRAINING_SEED <= config.seed <= END_OF_SEEDS - config.episodes:
        raise ValueError(
            f"seed must be at least 2**40 = {FIRST_TRAINING_SEED} and end below 2**64, got {config.seed}: "
            "the seeds below are for evaluation, and constants tuned on them would look too good"
        )


def search(name: str, scenario: Scenario, config: TuneConfig, after_trial: Any) -> optuna.Study:
    """Try constants by a tree-structured Parzen estimator, the defaults first; minimise the mean J.

    Every trial plays the same episodes, so trials differ by their constants alone. The same
    seed leads to the same study.
    """
    policy, study = DEFAULTS[name], make_study(config.seed)
    searched = distributions(ranges(policy))
    study.enqueue_trial({key: getattr(policy, key) for key in searched})
    for _ in range(config.trials):
        trial = study.ask(searched)
        constants = rounded(trial.params)
        trial.set_user_attr("constants", constants)
        batch = rollout(
            with_constants(policy, constants), scenario, config.episodes, config.seed, record=False
        )
        study.tell(trial, float(objectives(batch).mean()))
        after_trial()
    return study


def command(config: TuneConfig, name: str) -> str:
    """The command that finds the constants of one policy again."""
    given = {"scenario": config.scenario, **config.changes, "policies": name, "trials": config.trials}
    words = options({**given, "episodes": config.episodes, "seed": config.seed})
    return shlex.join(["python", "-m", "training.tune", *words])


if __name__ == "__main__":
    main(tyro.cli(TuneConfig))
