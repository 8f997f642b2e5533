"""Make every committed figure, table and number of the documentation again.

python -m training.publish --check
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training.cli import run
from training.evaluation.evaluate import label
from training.evaluation.statistics import Estimate
from training.reporting.markdown import markdown_table
from training.reporting.published import filled, numbered
from training.search.trial_table import best_of, read_trials, spread
from training.tiers import table as tiers_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "training" / "results"


def figure(made: str, kept: str | None = None) -> dict[str, str]:
    """A figure by what it is called where it is made."""
    return {f"{made}.{form}": f"{kept or made}.{form}" for form in ("png", "svg")}


MADE: dict[str, dict[str, str]] = {
    "runs/serverless": {"summary.json": "serverless.json", **figure("comparison", "serverless")},
    "runs/paper": {"summary.json": "paper.json"},
    "runs/team": {"summary.json": "team.json", **figure("task", "team-task")},
    "runs/leaderboard": {
        **{f"leaderboard.{form}": f"leaderboard.{form}" for form in ("json", "csv", "md")},
        **figure("headroom"),
        **figure("power"),
        **figure("profiles"),
    },
    "runs/calls": {f"leaderboard.{form}": f"calls.{form}" for form in ("json", "md")},
    "runs/universal": {"summary.json": "universal.json"},
    "runs/clusters": {f"leaderboard.{form}": f"clusters.{form}" for form in ("json", "md")},
    "runs/tiers": {"tiers.json": "tiers.json"},
    "runs/tiers-small": {"tiers.json": "tiers-small.json"},
    "runs/all": figure("heatmap"),
    "runs/generalisation": figure("heatmap", "generalisation"),
    "runs/trace": {"summary.json": "azure-code.json", **figure("comparison", "azure-code")},
    "runs/validate": figure("validation"),
    "runs/transfer": {f"transfer.{form}": f"fluid-and-calls.{form}" for form in ("json", "md")},
    "burst.png": figure("burst"),
    "learning-curves.png": {"learning-curves.json": "learning-curves.json", **figure("learning-curves")},
}
"""Files of `training/results/` by those that a command writes, by the command's `--out`."""
STUDIES = "study-*.csv"
"""Written by `python -m training.study --adopt` itself."""
COMMAND = re.compile(r"^python -m training\.(?:[^\n\\]|\\\n)*", re.MULTILINE)
README_SCENARIOS = ("paper", "serverless", "team")
PAPER_SCENARIOS = ("paper", "paper-overload", "paper-dominance", "paper-spike")
PAPER = {"static": "static", "round-robin": "round-robin", "adaptive": "adaptive (Algorithm 1)"}
"""The paper's allocators, and how the README calls them."""
GAINS = ("serverless", "bursty", "diurnal", "workflow", "steady", "fleet")
CALLS = ("llm", "team", "magentic")


@dataclass(frozen=True)
class PublishConfig:
    """Make every committed figure, table and number of the documentation again."""

    check: bool = False
    """Run nothing: fail where a page differs from the committed results, or a result has no command."""
    only: tuple[str, ...] = ()
    """The commands to run, by their `--out` as the pages have it; default: all. Those that replay a log
    need it in the working directory."""


def main(config: PublishConfig) -> None:
    """Run the commands and keep their results, then write tables and numbers into the pages; or check."""
    commands = commands_by_out(pages())
    unknown = sorted(set(config.only) - set(MADE))
    if unknown:
        raise ValueError(f"no results are made by --out {unknown[0]}; give some of {', '.join(MADE)}")
    if config.check:
        problems = [*misplaced(commands), *differing()]
        if problems:
            print(*(f"error: {problem}" for problem in problems), sep="\n", file=sys.stderr)
            sys.exit(1)
        print(f"{len(pages())} pages agree with the results in {RESULTS.relative_to(ROOT)}")
        return
    for out in config.only or MADE:
        make(out, commands)
    for page in pages():
        page.write_text(published(page), encoding="utf-8")


def pages() -> list[Path]:
    """The README and the pages of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_by_out(files: Sequence[Path]) -> dict[str, set[tuple[str, ...]]]:
    """The commands that the pages show, as words, by their `--out`."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for page in files:
        for command in COMMAND.findall(page.read_text(encoding="utf-8")):
            words = tuple(shlex.split(command.replace("\\\n", " ")))
            if "--out" in words[:-1]:
                found.setdefault(words[words.index("--out") + 1], set()).add(words)
    return found


def misplaced(commands: dict[str, set[tuple[str, ...]]]) -> Iterator[str]:
    """Results without the one command that makes them, and files that no command makes."""
    for out in MADE:
        count = len(commands.get(out, ()))
        if count != 1:
            yield f"the pages show {count} different commands with --out {out}; show the one that is meant"
    known = {name for made in MADE.values() for name in made.values()}
    for path in sorted(set(RESULTS.iterdir()) - set(RESULTS.glob(STUDIES))):
        if path.name not in known:
            yield f"no command is known to make {path.relative_to(ROOT)}"
    for name in sorted(known):
        if not (RESULTS / name).exists():
            yield f"{(RESULTS / name).relative_to(ROOT)} is missing"


def differing() -> Iterator[str]:
    """The first line of each page that differs from the results."""
    for page in pages():
        there, made = page.read_text(encoding="utf-8").split("\n"), published(page).split("\n")
        for number, (old, new) in enumerate(zip(there, made, strict=False), start=1):
            if old != new:
                place = f"{page.relative_to(ROOT)}, line {number}"
                yield f"{place}: {old!r} should be {new!r}; run python -m training.publish"
                break


def make(out: str, commands: dict[str, set[tuple[str, ...]]]) -> None:
    """Run the command of an `--out` and keep its results."""
    problems = [problem for problem in misplaced(commands) if f"--out {out};" in problem]
    if problems:
        raise ValueError(problems[0])
    (words,) = commands[out]
    print(shlex.join(words), flush=True)
    subprocess.run([sys.executable, *words[1:]], check=True)
    source = Path(out)
    for made, kept in MADE[out].items():
        shutil.copyfile((source if source.is_dir() else source.parent) / made, RESULTS / kept)


def published(page: Path) -> str:
    """A page with the tables and numbers of the committed results."""
    scenarios, calls, clusters, tiers, small, universal = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("leaderboard", "calls", "clusters", "tiers", "tiers-small", "universal")
    )
    # Where agents serve calls, the board of what has learned there.
    scenarios, clusters = scenarios["scenarios"] | calls["scenarios"], clusters["scenarios"]
    tables = {
        "clusters": markdown_table(by_policy(clusters, headroom)),
        "met": markdown_table(by_policy(clusters, met)),
        "tiers": markdown_table(tiers_table(tiers["rows"])),
        "tiers-small": markdown_table(tiers_table(small["rows"])),
        "leaderboard": markdown_table([champions(name, each) for name, each in scenarios.items()]),
        "results": markdown_table(first_table({name: scenarios[name] for name in README_SCENARIOS})),
        "gains": markdown_table([gain(name, scenarios[name]) for name in GAINS]),
        "calls": markdown_table([evolved(name, scenarios[name]) for name in CALLS]),
        "universal": markdown_table(
            [behind(name, "universal", each) for name, each in universal["scenarios"].items()]
        ),
        "studies": markdown_table([studied(path) for path in sorted(RESULTS.glob(STUDIES))]),
        "paper": markdown_table([trained_there(name, scenarios[name]) for name in PAPER_SCENARIOS]),
    }
    text = filled(page.read_text(encoding="utf-8"), tables)
    return numbered(text, RESULTS, page=str(page.relative_to(ROOT)))


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


if __name__ == "__main__":
    run(main, PublishConfig)
