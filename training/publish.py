"""Make every committed figure, table and number of the documentation again.

python -m training.publish --check
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated

from training.cli import run
from training.limits import Limits
from training.reporting.markdown import markdown_table
from training.reporting.page_tables import AGENTS, tables_of
from training.reporting.published import filled, numbered
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
    **{f"runs/agents-{count}": {"summary.json": f"agents-{count}.json"} for count in AGENTS},
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
TIMED = "runs/curves/"
"""How the `--out` of commands begins whose results tell how long they took."""
STUDIES = "study-*.csv"
"""Written by `python -m training.study --adopt` itself."""
READ = re.compile(r"runs/.*|.*\.(csv|jsonl|toml)")
"""Words of a command that name what it reads, or its `--out`."""
COMMAND = re.compile(r"^python -m training\.(?:[^\n\\]|\\\n)*", re.MULTILINE)


@dataclass(frozen=True)
class PublishConfig:
    """Make every committed figure, table and number of the documentation again."""

    check: bool = False
    """Run nothing: fail where a page differs from the committed results, or a result has no command."""
    only: tuple[str, ...] = ()
    """The results to make, by the `--out` that the pages have; default: all. What their commands read is made
    first where it is not there; a log that they replay must be in the working directory."""
    jobs: Annotated[int, Limits(1)] = 1
    """Commands that run side by side; those that are timed run alone."""


def main(config: PublishConfig) -> None:
    """Run the commands and keep their results, then write tables and numbers into the pages; or check."""
    shown = commands_by_out(pages())
    unknown = sorted(set(config.only) - set(MADE))
    if unknown:
        raise ValueError(f"no results are made by --out {unknown[0]}; give some of {', '.join(MADE)}")
    if config.check:
        problems = [*misplaced(shown), *differing()]
        if problems:
            print(*(f"error: {problem}" for problem in problems), sep="\n", file=sys.stderr)
            sys.exit(1)
        print(f"{len(pages())} pages agree with the results in {RESULTS.relative_to(ROOT)}")
        return
    commands = {out: min(each) for out, each in shown.items() if len(each) == 1}
    make_all(needs(config.only or list(MADE), commands), commands, config.jobs)
    for page, text in published().items():
        page.write_text(text, encoding="utf-8")


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
    for page, text in published().items():
        there, made = page.read_text(encoding="utf-8").split("\n"), text.split("\n")
        for number, (old, new) in enumerate(zip(there, made, strict=False), start=1):
            if old != new:
                place = f"{page.relative_to(ROOT)}, line {number}"
                yield f"{place}: {old!r} should be {new!r}; run python -m training.publish"
                break


def needs(outs: Sequence[str], commands: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """By the `--out` of each command to run, those of the commands that make what it reads and is not there.

    Args:
        outs: whose results are asked for.
        commands: the one command for each `--out`, as words.

    Raises:
        ValueError: the pages do not show one command for an `--out`, or something is not there to be read.
    """
    found: dict[str, list[str]] = {}
    waiting = list(reversed(outs))
    while waiting:
        out = waiting.pop()
        if out in found:
            continue
        if out not in commands:
            raise ValueError(
                f"the pages do not show one command with --out {out}; show the one that is meant"
            )
        found[out] = []
        for path in commands[out]:
            if path == out or not READ.fullmatch(path) or Path(path).exists():
                continue
            makers = [each for each in commands if f"{path}/".startswith(f"{each}/")]
            if not makers:
                raise ValueError(
                    f"{path}, which the command with --out {out} reads, is not there; copy it there"
                )
            found[out].append(max(makers, key=len))
        waiting += found[out]
    return found


def make_all(needed: Mapping[str, Sequence[str]], commands: Mapping[str, tuple[str, ...]], jobs: int) -> None:
    """Run commands, so many at a time, each after those that it needs, and alone if it is timed.

    Raises:
        CycleError: one needs itself.
        CalledProcessError: one fails; those that run beside it come to their end.
    """
    order = TopologicalSorter(needed)
    order.prepare()
    running: dict[Future[None], str] = {}
    begun = 0
    with ThreadPoolExecutor(jobs) as pool:
        ready: list[str] = []
        while order.is_active():
            ready += order.get_ready()
            while ready and len(running) < jobs:
                if running and any(each.startswith(TIMED) for each in (ready[0], *running.values())):
                    break
                out, begun = ready.pop(0), begun + 1
                print(f"{begun} of {len(needed)}: {shlex.join(commands[out])}", flush=True)
                running[pool.submit(make, out, commands)] = out
            for each in wait(running, return_when=FIRST_COMPLETED).done:
                each.result()
                order.done(running.pop(each))


def make(out: str, commands: Mapping[str, tuple[str, ...]]) -> None:
    """Run the command of an `--out` and keep its results."""
    subprocess.run([sys.executable, *commands[out][1:]], check=True)
    source = Path(out)
    for made, kept in MADE.get(out, {}).items():
        shutil.copyfile((source if source.is_dir() else source.parent) / made, RESULTS / kept)


def tables() -> dict[str, str]:
    """The tables of the committed results, by name."""
    results = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in (
            *("leaderboard", "calls", "clusters", "universal", "tiers", "tiers-small"),
            *(f"agents-{count}" for count in AGENTS),
        )
    }
    made = tables_of(results, sorted(RESULTS.glob(STUDIES)))
    return made | {
        name: markdown_table(tiers_table(results[name]["rows"])) for name in ("tiers", "tiers-small")
    }


def published() -> dict[Path, str]:
    """Every page with the tables and numbers of the committed results."""
    made = tables()
    return {
        page: numbered(
            filled(page.read_text(encoding="utf-8"), made), RESULTS, page=str(page.relative_to(ROOT))
        )
        for page in pages()
    }


if __name__ == "__main__":
    run(main, PublishConfig)
