"""Tune the constants of the baselines on a scenario's training seeds.

python -m training.tune --scenario serverless --policies receding-horizon --trials 60 --episodes 200
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import optuna

from baselines import baselines_of, constants_of, is_baseline, policy_for, untuned, with_constants
from baselines.tunable import ranges
from baselines.tuned import TUNED, Constants
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.policies import ALL
from training.cli import command_line, progress_bars, results_console, run, status_console
from training.evaluation.evaluate import rollout
from training.evaluation.seeds import END_OF_SEEDS, FIRST_TRAINING_SEED
from training.files.atomic import check_writable
from training.limits import Limits
from training.reporting.report import print_tables
from training.search.search_space import distributions, make_study, rounded
from training.search.tuned_file import Table, read_tables, refuse_changed, write_tables
from training.sharing import RayWorkers

HEADER = """\
# Constants of the baselines by scenario and policy, found by training.tune on training seeds.
# Above each table stand the command that found it, and J of the former constants and of these: on fresh
# episodes, and on those of the search.
"""


@dataclass(frozen=True)
class TuneConfig(Overrides, RayWorkers):
    """Tune the constants of the baselines on a scenario's training seeds."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    policies: tuple[str, ...] = (ALL,)
    """Names of baselines that have constants, in a cluster also `upper+lower`; `all` for every one of the
    scenario's."""
    trials: Annotated[int, Limits(1)] = 60
    """Constants to try for each policy, the present ones first, then the defaults."""
    episodes: Annotated[int, Limits(1)] = 200
    """Training episodes on which each trial is played; as many fresh ones compare the best constants with the
    present ones."""
    seed: int = FIRST_TRAINING_SEED
    """Seed of the first episode, the others follow it; also of the search. At least 2⁴⁰."""
    out: Path = Path("runs/tune/tuned.toml")
    """File for the constants that are found; its other tables stay as they are, and so do constants of an
    earlier search that are no worse on the fresh episodes."""
    adopt: bool = False
    """Put the constants that are better on the fresh episodes into `file` as well."""
    file: Path = TUNED
    """File whose constants are the present ones for every command; only `adopt` changes it."""


class Found(NamedTuple):
    """The best constants of a policy, and J beside that of the present ones."""

    constants: Constants
    before: float
    after: float
    fresh_before: float
    fresh_after: float

    @property
    def better(self) -> bool:
        """Whether they are better where neither they nor the present ones were chosen."""
        return self.fresh_after < self.fresh_before


def main(config: TuneConfig) -> None:
    """Search the constants of each policy, then write those that were best."""
    check(config)
    scenario = load_scenario(config.scenario, config)
    policies = tuned_policies(config, scenario)
    scenario.source()
    config = replace(config, episodes=apart(config.episodes, scenario))
    if config.ray is None:
        found = searched_here(policies, scenario, config)
    else:
        search = partial(best, scenario=scenario, config=config)
        each = config.share(search, policies, f"Policies on {scenario.name}", status_console())
        found = dict(zip(policies, each, strict=True))
    tables = {
        (scenario.key, name): Table(remark(config, name, each), each.constants)
        for name, each in found.items()
    }
    there = read_tables(config.out)
    fresh = {
        key: mean_objective(key[1], dict(there[key].constants), scenario, config, fresh=True)
        for key in tables
        if key in there
    }
    kept = [key for key, objective in fresh.items() if objective <= found[key[1]].fresh_after]
    write_tables(config.out, {key: table for key, table in tables.items() if key not in kept}, HEADER)
    adopted = {key: table for key, table in tables.items() if found[key[1]].better} if config.adopt else {}
    if adopted:
        write_tables(config.file, adopted, HEADER)
    console = results_console()
    title = f"{scenario.name}: {config.episodes} training episodes from seed {config.seed}"
    print_tables(console, {title: [row(name, each) for name, each in found.items()]})
    stay = ", where those of {} stay, no worse on fresh episodes".format(", ".join(name for _, name in kept))
    console.print(
        f"Constants in {config.out}{stay if kept else ''}; {adoption(config, found)}", soft_wrap=True
    )


def check(config: TuneConfig) -> None:
    """Refuse seeds on which policies are evaluated, and files that cannot be written."""
    if not FIRST_TRAINING_SEED <= config.seed <= END_OF_SEEDS - 2 * config.episodes:
        raise ValueError(
            f"seed must be at least 2**40 = {FIRST_TRAINING_SEED} and end below 2**64, got {config.seed}: "
            "the seeds below are for evaluation, and constants tuned on them would look too good"
        )
    if config.out.resolve() == TUNED.resolve():
        raise ValueError(f"{config.out} is changed by --adopt alone; give another --out, and --adopt with it")
    if config.adopt:
        refuse_changed(config, config.scenario, {"file": config.file}, TUNED.parent)
    for file in (config.out, *([config.file] if config.adopt else [])):
        read_tables(file)
        check_writable(file)


def apart(episodes: int, scenario: Scenario) -> int:
    """So many episodes, or fewer of a log, such that the fresh ones are other windows than the search's.

    Raises:
        ValueError: the log has one window.
    """
    if scenario.trace is None:
        return episodes
    windows = scenario.windows.episodes
    if windows < 2:
        raise ValueError(
            f"{scenario.trace.path} has one window of {scenario.steps * scenario.dt:g} s to tune on, and "
            "fresh episodes need another; ask for fewer steps"
        )
    return min(episodes, windows // 2)


def tuned_policies(config: TuneConfig, scenario: Scenario) -> list[str]:
    """The names of the policies to tune; those that cannot be tuned are refused."""
    known = baselines_of(scenario)
    tunable = [name for name, policy in known.items() if ranges(policy)]
    policies = [each for given in config.policies for each in (tunable if given == ALL else [given])]
    if not policies:
        raise ValueError(f"no policies to tune; give some of {', '.join(tunable)}")
    for name in policies:
        it_is_known = name in known or (bool(scenario.nodes) and is_baseline(name) and "+" in name)
        if not (it_is_known and ranges(untuned(name, known))):
            fault = "has no constants" if it_is_known else "is unknown"
            raise ValueError(f"policy {name!r} {fault}; give some of {', '.join(tunable)}")
        if policies.count(name) > 1:
            raise ValueError(f"policy {name!r} is given more than once; give each policy once")
    return policies


def searched_here(policies: Sequence[str], scenario: Scenario, config: TuneConfig) -> dict[str, Found]:
    """The best constants of each policy, one after another, with a bar that counts trials."""
    found: dict[str, Found] = {}
    with progress_bars(status_console(), counted=True) as progress:
        for name in policies:
            task = progress.add_task(f"{name} on {scenario.name}", total=config.trials)
            found[name] = best(name, scenario, config, lambda task=task: progress.advance(task))
    return found


def best(
    name: str, scenario: Scenario, config: TuneConfig, after_trial: Callable[[], None] = lambda: None
) -> Found:
    """The best constants of a policy in a search, played beside the present ones on fresh episodes."""
    study = search(name, scenario, config, after_trial)
    constants: Constants = study.best_trial.user_attrs["constants"]
    pair = [
        mean_objective(name, each, scenario, config, fresh=True)
        for each in (present(name, scenario), constants)
    ]
    before, after = study.trials[0].value, study.best_trial.value
    assert before is not None and after is not None
    return Found(constants, before, after, *pair)


def search(
    name: str, scenario: Scenario, config: TuneConfig, after_trial: Callable[[], None]
) -> optuna.Study:
    """Try constants by a tree-structured Parzen estimator, the present ones first; minimise the mean J.

    Every trial plays the same episodes, so trials differ by their constants alone. The same
    seed leads to the same study.
    """
    declared = untuned(name, baselines_of(scenario))
    study, searched = make_study(config.seed), distributions(ranges(declared))
    study.enqueue_trial(present(name, scenario))
    study.enqueue_trial(constants_of(declared), skip_if_exists=True)
    for _ in range(config.trials):
        trial = study.ask(searched)
        constants = rounded(trial.params)
        trial.set_user_attr("constants", constants)
        study.tell(trial, mean_objective(name, constants, scenario, config))
        after_trial()
    return study


def present(name: str, scenario: Scenario) -> Constants:
    """The constants that a policy has now on a scenario."""
    return constants_of(policy_for(name, scenario))


def mean_objective(
    name: str, constants: Constants, scenario: Scenario, config: TuneConfig, *, fresh: bool = False
) -> float:
    """Mean J of a policy with some constants on the episodes of the search, or on fresh ones after them."""
    seed = config.seed + config.episodes if fresh else config.seed
    policy = with_constants(untuned(name, baselines_of(scenario)), constants)
    return float(objectives(rollout(policy, scenario, config.episodes, seed, record=False)).mean())


def remark(config: TuneConfig, name: str, found: Found) -> str:
    """The line above the constants: the command that finds them again, and what it has found."""
    given = {"scenario": config.scenario, **config.changes, "policies": name, "trials": config.trials}
    command = command_line("tune", **given, episodes=config.episodes, seed=config.seed)
    fresh = f"fresh episodes {found.fresh_before:.4f} -> {found.fresh_after:.4f}"
    return f"# {command}: {fresh}, J {found.before:.4f} -> {found.after:.4f}"


def row(name: str, found: Found) -> dict[str, str]:
    """A line of the printed table."""
    return {
        "policy": name,
        "J, present": f"{found.before:.4f}",
        "J, best": f"{found.after:.4f}",
        "fresh episodes\nJ, present": f"{found.fresh_before:.4f}",
        "fresh episodes\nJ, best": f"{found.fresh_after:.4f}",
        "constants": ", ".join(f"{key} = {value:g}" for key, value in found.constants.items()),
    }


def adoption(config: TuneConfig, found: Mapping[str, Found]) -> str:
    """What becomes of the constants, in words."""
    better = ", ".join(name for name, each in found.items() if each.better) or "none"
    if config.adopt:
        return f"adopted in {config.file}: {better}"
    return f"better on fresh episodes: {better}; {config.file} is as it was, --adopt would change it"


if __name__ == "__main__":
    run(main, TuneConfig)
