"""Show what a longer keep-alive buys in a cluster: what calls meet, against the memory that it takes.

python -m training.tiers --scenario cluster-fleet --load 0.05 --steps 1800 --out runs/tiers
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from gpualloc_env.metrics import Metrics, mean_metrics
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.contestants import Contestant, evaluation_of
from training.artifacts.policies import load_policies
from training.cli import results_console, run, status_console
from training.evaluation.held_out import count_episodes, episodes_called, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.files.provenance import write_config
from training.files.staging import staged
from training.limits import Limits
from training.reporting.markdown import markdown_table
from training.reporting.measures import MET, STOOD, cells, number
from training.reporting.report import print_tables, write_json
from training.sharing import RayWorkers

FILES = ("tiers.json", "tiers.md", "config.json")
MEMORY = tuple(each for each in STOOD if each.metric.endswith("memory_held"))


@dataclass(frozen=True)
class TiersConfig(Overrides, RayWorkers):
    """Show what a longer keep-alive buys in a cluster."""

    scenario: str = "cluster-fleet"
    """A registered scenario with nodes, or the path of such a .toml file."""
    policies: tuple[str, ...] = ("lru", "autoscaler")
    """Names of baselines of a cluster, or functions of your own as `module:name`."""
    sleep_after_s: Annotated[tuple[float, ...], Limits(0, 10**9)] = (0.0, 30.0, 120.0, 600.0)
    """Idle times after which a model leaves its GPU [s]."""
    keep_alive_s: Annotated[tuple[float, ...], Limits(0, 10**9)] = (60.0, 300.0, 1800.0)
    """Idle times after which it is gone from its host, too [s]."""
    episodes: Annotated[int, Limits(1)] = 20
    """Held-out episodes that are played with each pair of them; of a log, at most its windows."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 10000
    """Seed of the first episode; the others follow it."""
    out: Path = Path("runs/tiers")
    """Directory for the results; those of an earlier run in it are replaced."""


def main(config: TiersConfig) -> None:
    """Play every policy with every pair of times on the same episodes, write the table and print it."""
    check_evaluation_seeds(config.seed, config.episodes)
    scenario = held_out_scenario(config.scenario, config)
    if not scenario.nodes:
        raise ValueError(
            f"scenario {scenario.name!r} has no nodes, so no model sleeps; give one of a cluster"
        )
    episodes = count_episodes(config.episodes, scenario)
    for name in config.policies:
        load_policies(name, scenario)
    # Where a model is gone before it would leave its GPU, the longer time changes nothing.
    pairs = sorted({(min(pair), pair[1]) for pair in product(config.sleep_after_s, config.keep_alive_s)})
    tasks = [*product(config.policies, pairs)]
    with staged(config.out, FILES, mark="tiers.json") as directory:
        play = partial(result, scenario, episodes, config.seed)
        played = config.share(play, tasks, scenario.name, status_console())
        rows = table(played)
        record = {"scenario": scenario.name, "episodes": episodes, "rows": played}
        write_json(directory / "tiers.json", record)
        (directory / "tiers.md").write_text(markdown_table(rows) + "\n", encoding="utf-8")
        write_config(directory / "config.json", asdict(config))
    console = results_console()
    print_tables(console, {f"{scenario.name}: {episodes} {episodes_called(scenario, episodes)}": rows})
    console.print(f"Results in {config.out}")


def result(
    scenario: Scenario, episodes: int, seed: int, task: tuple[str, tuple[float, float]]
) -> dict[str, Any]:
    """Mean metrics of a policy with an idle time before sleep and one before the end [s]."""
    name, pair = task
    times = dict(zip(("sleep_after_s", "keep_alive_s"), pair, strict=True))
    changed = load_scenario(scenario, frictions=times)
    played = evaluation_of(changed, episodes, seed, Contestant.of(name, name, changed))
    return {"policy": name, **times, "metrics": mean_metrics(played.metrics)}


def table(played: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line for each policy and pair of times."""
    rows: list[dict[str, str]] = []
    for each in played:
        metrics: Metrics = each["metrics"]
        asked = {
            "policy": each["policy"],
            "leaves its GPU\nafter [s]": f"{each['sleep_after_s']:g}",
            "gone\nafter [s]": f"{each['keep_alive_s']:g}",
            "J": number(metrics["objective"], ".3f"),
        }
        rows.append(asked | cells((*MET, *MEMORY), metrics))
    return rows


if __name__ == "__main__":
    run(main, TiersConfig)
