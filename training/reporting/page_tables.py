"""The tables of the README and of the pages, from the committed results."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from training.evaluation.evaluate import label
from training.evaluation.statistics import Estimate
from training.reporting.markdown import markdown_table
from training.search.trial_table import best_of, read_trials, spread

README_SCENARIOS = ("paper", "serverless", "team")
PAPER_SCENARIOS = ("paper", "paper-overload", "paper-dominance", "paper-spike")
PAPER = {"static": "static", "round-robin": "round-robin", "adaptive": "adaptive (Algorithm 1)"}
"""The paper's allocators, and how the README calls them."""
GAINS = ("serverless", "bursty", "diurnal", "workflow", "steady", "fleet")
CALLS = ("llm", "team", "magentic")
AGENTS = (2, 8, 16, 64)
"""How many of the agents of `serverless` are compared besides its own four."""


def tables_of(results: dict[str, Any], studies: list[Path]) -> dict[str, str]:
    """Every table by its name.

    Args:
        results: `leaderboard`, `calls`, `clusters`, `universal` and for so many `AGENTS` `agents-2`, …, as
            their files have them.
        studies: tables of the trials of studies.
    """
    # Where agents serve calls, the board of what has learned there.
    scenarios = results["leaderboard"]["scenarios"] | results["calls"]["scenarios"]
    clusters, universal = results["clusters"]["scenarios"], results["universal"]["scenarios"]
    tables = {
        "clusters": by_policy(clusters, headroom),
        "met": by_policy(clusters, met),
        "leaderboard": [champions(name, each) for name, each in scenarios.items()],
        "results": first_table({name: scenarios[name] for name in README_SCENARIOS}),
        "gains": [gain(name, scenarios[name]) for name in GAINS],
        "calls": [evolved(name, scenarios[name]) for name in CALLS],
        "universal": [behind(name, "universal", each) for name, each in universal.items()],
        "agents": [of_so_many(count, results[f"agents-{count}"]) for count in AGENTS],
        "studies": [studied(path) for path in studies],
        "paper": [trained_there(name, scenarios[name]) for name in PAPER_SCENARIOS],
    }
    return {name: markdown_table(rows) for name, rows in tables.items()}


def champions(scenario: str, board: dict[str, Any]) -> dict[str, str]:
    """A row: the bound, Algorithm 1, the best baseline and the best learned allocator of a scenario."""
    policies = board["policies"]
    learned = best_learned(board)
    return {
        "scenario": f"`{scenario}`",
        "bound": decimal(board["bound"]["mean"]),
        "Algorithm 1": decimal(j(policies["adaptive"])),
        "best online baseline": champion(scenario, board["best_baseline"], policies),
        "best learned allocator": champion(scenario, learned, policies),
        "learned against baseline": verdict(policies[learned]),
    }


def by_policy(boards: dict[str, Any], cell: Callable[[dict[str, Any]], str]) -> list[dict[str, str]]:
    """A row for each policy, in the order of the first scenario, and a column for each scenario."""
    names = next(iter(boards.values()))["policies"]
    return [
        {"policy": f"`{name}`", **{each: cell(board["policies"][name]) for each, board in boards.items()}}
        for name in names
    ]


def headroom(policy: dict[str, Any]) -> str:
    """J and headroom closed."""
    return f"{decimal(j(policy))} ({decimal(100 * policy['headroom_closed'], 0)} %)"


def met(policy: dict[str, Any]) -> str:
    """Per cent of the calls that met a loaded, a waking and a cold instance."""
    return " / ".join(f"{100 * policy['metrics'][f'{each}_calls']:.1f}" for each in ("hot", "woken", "cold"))


def first_table(boards: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The README's: J of the paper's allocators, of the best others and the bound, by scenario."""
    names = {scenario: (board["best_baseline"], best_learned(board)) for scenario, board in boards.items()}

    def row(title: str, number: Callable[[str], str]) -> dict[str, str]:
        return {"J": title, **{f"`{scenario}`": number(scenario) for scenario in boards}}

    def objective(scenario: str, name: str) -> str:
        return decimal(j(boards[scenario]["policies"][name]))

    return [
        *(row(title, partial(objective, name=name)) for name, title in PAPER.items()),
        row("best other baseline", lambda each: f"{names[each][0]} {objective(each, names[each][0])}"),
        row("best learned, five training seeds", lambda each: f"**{objective(each, names[each][1])}**"),
        row("learned against that baseline", lambda each: verdict(boards[each]["policies"][names[each][1]])),
        row("lower bound", lambda each: decimal(boards[each]["bound"]["mean"])),
    ]


def best_learned(board: dict[str, Any]) -> str:
    """The learned policy with the lowest J."""
    policies = board["policies"]
    learned = [name for name, policy in policies.items() if policy["kind"] == "learned"]
    return min(learned, key=lambda name: j(policies[name]))


def champion(scenario: str, name: str, policies: dict[str, Any]) -> str:
    """Name, J and headroom closed; a policy that was trained on the scenario does without its name."""
    policy = policies[name]
    called = label(name.removesuffix(f"-{scenario}"), policy["kind"], policy["training_seeds"])
    return f"{called} {headroom(policy)}"


def verdict(policy: dict[str, Any]) -> str:
    """Whether it wins against the best baseline, and by how much."""
    apart = policy["difference_to_best_baseline"]
    given, lower = policy["against_best_baseline"], apart["mean"] < 0
    said = "**wins** by" if given == "wins" else "loses by" if given == "loses" else "ties:"
    size = below(apart) if lower else interval_text(Estimate(apart["mean"], *apart["interval"]))
    return f"{said} {size}" + ("" if given != "ties" else " lower" if lower else " higher")


def gain(scenario: str, board: dict[str, Any]) -> dict[str, str]:
    """A row: what the residual allocator that was trained on a scenario gains there on the best baseline."""
    policies = board["policies"]
    own = policies[f"ppo-residual-{scenario}"]
    return {
        "scenario": f"`{scenario}`",
        "Algorithm 1": decimal(j(policies["adaptive"])),
        "`receding-horizon`": decimal(j(policies["receding-horizon"])),
        "`ppo-residual` trained there": decimal(j(own)),
        "gain, 95 % interval": below(own["difference_to_best_baseline"]),
    }


def evolved(scenario: str, board: dict[str, Any]) -> dict[str, str]:
    """A row: what the linear corrections that evolved on a scenario of calls gain on the best baseline."""
    policies, best = board["policies"], board["best_baseline"]
    own = policies[f"linear-residual-{scenario}"]
    apart = own["difference_to_best_baseline"]
    return {
        "scenario": f"`{scenario}`",
        "Algorithm 1": decimal(j(policies["adaptive"])),
        "best baseline": f"`{best}` {decimal(j(policies[best]))}",
        "`linear-residual` evolved there": decimal(j(own)),
        "lower by, 95 % interval": below(apart),
        "in per cent": decimal(-100 * apart["mean"] / abs(j(policies[best])), 1),
        "lower bound": decimal(board["bound"]["mean"]),
    }


def of_so_many(count: int, played: dict[str, Any]) -> dict[str, str]:
    """A row: J of every policy of a comparison among so many agents."""
    means = {name: policy["objective"]["mean"] for name, policy in played["policies"].items()}
    return {"agents": str(count)} | {f"`{name}`": decimal(mean) for name, mean in means.items()}


def behind(scenario: str, allocator: str, played: dict[str, Any]) -> dict[str, str]:
    """A row of a comparison: how far an allocator is behind the best baseline of a scenario."""
    policies = {name: each["objective"]["mean"] for name, each in played["policies"].items()}
    best = min((name for name in policies if name != allocator), key=policies.__getitem__)
    apart = played["paired"][best][allocator]
    return {
        "scenario": f"`{scenario}`",
        "Algorithm 1": decimal(policies["adaptive"]),
        "best baseline": f"`{best}` {decimal(policies[best])}",
        f"`{allocator}`": decimal(policies[allocator]),
        "higher by, 95 % interval": interval_text(Estimate(apart["mean"], *apart["ci95"])),
        "in per cent": decimal(100 * apart["mean"] / abs(policies[best]), 1),
    }


def trained_there(scenario: str, board: dict[str, Any]) -> dict[str, str]:
    """A row: the paper's allocators, the best baseline, and PPO that was trained on the scenario."""
    policies, best = board["policies"], board["best_baseline"]
    own = j(policies[f"ppo-{scenario}"])
    return {
        "scenario": f"`{scenario}`",
        **{title: decimal(j(policies[name])) for name, title in PAPER.items()},
        "best baseline": f"{best} {decimal(j(policies[best]))}",
        "PPO, five training seeds": f"{decimal(own)} (+{100 * (own / j(policies[best]) - 1):.2f} %)",
        "lower bound": decimal(board["bound"]["mean"]),
    }


def studied(table: Path) -> dict[str, str]:
    """A row: what a study of the settings of PPO has found."""
    trials = read_trials(table)
    best = best_of(trials)
    return {
        "study": f"`{table.stem.removeprefix('study-')}`",
        "trials": str(len(trials)),
        "J of the settings before": f"{trials[0].objective:.4f}",
        "J of the best trial": f"{trials[best].objective:.4f}",
        "before, fresh seeds": spread(trials[0].fresh),
        "the best, fresh seeds": spread(trials[best].fresh),
    }


def j(policy: dict[str, Any]) -> float:
    """Mean J of a policy of a leaderboard."""
    return policy["objective"]["mean"]


def below(apart: dict[str, Any]) -> str:
    """How far J lies below that of the reference."""
    low, high = apart["interval"]
    return interval_text(Estimate(-apart["mean"], -high, -low))


def interval_text(value: Estimate) -> str:
    """A difference with its interval."""
    digits = 3 if abs(value.mean) >= 0.01 else 4
    bounds = f" [{decimal(value.low, digits)}, {decimal(value.high, digits)}]"
    return decimal(value.mean, digits) + (bounds if value.low < value.high else "")


def decimal(value: float, digits: int = 3) -> str:
    """As the pages write numbers."""
    return f"{value:.{digits}f}".replace("-", "−")
