"""Train on the fluid, play call by call: what a policy that suits the fluid twin of a scenario is worth.

python -m training.transfer --scenario team --out runs/transfer
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from scipy.stats import kendalltau

from baselines import Policy
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.artifacts.policies import ALL, load_policies, named, with_all
from training.cli import results_console, run, status_console
from training.evaluation.evaluate import rollout
from training.evaluation.fluid_twin import fluid_twin
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.evaluation.statistics import Estimate, interval
from training.files.provenance import write_config
from training.files.staging import staged
from training.fitting.fitted_scenario import write_scenario
from training.limits import Limits
from training.reporting.report import estimate_cell, markdown_table, print_tables, write_json
from training.sharing import RayWorkers

FILES = ("transfer.json", "transfer.md", "config.json")
COLUMNS = ("fluid", "calls", "calls, own constants")
"""The fluid twin; the calls with what suits the fluid; the calls with what suits them."""


@dataclass(frozen=True)
class TransferConfig(Overrides, RayWorkers):
    """Train on the fluid, play call by call."""

    scenario: str = "team"
    """A registered scenario whose agents serve calls, or the path of such a .toml file."""
    policies: tuple[str, ...] = (ALL,)
    """Names of baselines, exported allocators, and directories of training runs; `all` for every baseline."""
    episodes: Annotated[int, Limits(2)] = 100
    """Held-out episodes of the fluid, and of calls."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/transfer")
    """Directory for the results, and for the fluid twin as a scenario file, on which constants can be tuned
    and allocators trained; those of an earlier run in it are replaced."""


def main(config: TransferConfig) -> None:
    """Play every policy on the fluid twin and call by call, write the table and print it."""
    check_evaluation_seeds(config.seed, config.episodes)
    calls = load_scenario(config.scenario, config)
    policies = named(with_all(config.policies, calls))
    if len(policies) < 2:
        raise ValueError(
            f"policies has {', '.join(policies)} alone, and an order takes two; give another one"
        )
    # Constants are kept for the scenario as it is, whatever it is changed to.
    twin = fluid_twin(calls).with_key_of(fluid_twin(load_scenario(config.scenario)))
    contests = [
        [
            (load_policies(given, tuned_for), scenario)
            for tuned_for, scenario in ((twin, twin), (twin, calls), (calls, calls))
        ]
        for given in policies.values()
    ]
    what = f"{calls.name} and its fluid twin"
    with staged(config.out, (*FILES, f"{twin.name}.toml"), mark="transfer.json") as directory:
        columns = config.share(partial(played, config), contests, what, status_console())
        results = dict(zip(policies, columns, strict=True))
        scores = scored(results)
        rows = table(scores)
        orders = {name: kendall(results, k) for k, name in enumerate(COLUMNS) if k}
        said = "; ".join(f"{name}: {order:.2f}" for name, order in orders.items())
        said = f"Kendall's τ between the order on the fluid and that on {said}"
        write_json(directory / "transfer.json", {"kendall_tau_to_fluid": orders, "policies": record(scores)})
        (directory / "transfer.md").write_text(f"{markdown_table(rows)}\n\n{said}.\n", encoding="utf-8")
        write_scenario(directory / f"{twin.name}.toml", twin, [f"The fluid twin of {calls.name}."])
        write_config(directory / "config.json", asdict(config))
    console = results_console()
    print_tables(console, {f"J on {calls.name} and its fluid twin": rows})
    console.print(said, soft_wrap=True)
    console.print(f"Results in {config.out}")


def played(config: TransferConfig, contests: Sequence[tuple[Sequence[Policy], Scenario]]) -> list[Array]:
    """J of each episode in each column, (E,): the mean over a policy's training seeds."""
    return [
        np.mean(
            [
                objectives(rollout(policy, scenario, config.episodes, config.seed, record=False))
                for policy in policies
            ],
            axis=0,
        )
        for policies, scenario in contests
    ]


def ranks(results: dict[str, list[Array]], column: int) -> dict[str, int]:
    """Places of the policies by their mean J, from 1."""
    order = sorted(results, key=lambda name: results[name][column].mean())
    return {name: 1 + place for place, name in enumerate(order)}


def kendall(results: dict[str, list[Array]], column: int) -> float:
    """Kendall's τ between the orders of the policies on the fluid and in another column."""
    means = [[each[k].mean() for each in results.values()] for k in (0, column)]
    return float(kendalltau(*means)[0])  # pyright: ignore


def scored(results: dict[str, list[Array]]) -> dict[str, list[tuple[Estimate, int]]]:
    """Mean J and rank of each policy in each column."""
    places = [ranks(results, column) for column in range(len(COLUMNS))]
    return {
        name: [(interval(own), place[name]) for own, place in zip(each, places, strict=True)]
        for name, each in results.items()
    }


def table(scores: dict[str, list[tuple[Estimate, int]]]) -> list[dict[str, str]]:
    """A line for each policy, the best call by call first."""
    rows: list[dict[str, str]] = []
    for name, each in sorted(scores.items(), key=lambda item: item[1][1][1]):
        row = {"policy": name}
        for title, (estimate, rank) in zip(COLUMNS, each, strict=True):
            row[f"{title}: J [95 % interval]"], row[f"{title}: rank"] = estimate_cell(estimate), str(rank)
        rows.append(row)
    return rows


def record(scores: dict[str, list[tuple[Estimate, int]]]) -> dict[str, Any]:
    """What `transfer.json` holds of the policies."""
    return {
        name: {title: {**j.record(), "rank": rank} for title, (j, rank) in zip(COLUMNS, each, strict=True)}
        for name, each in scores.items()
    }


if __name__ == "__main__":
    run(main, TransferConfig)
