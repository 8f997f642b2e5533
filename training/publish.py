"""Make every committed figure, table and number of the documentation again.

python -m training.publish --check
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.cli import run
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
STUDIES = "study-*.csv"
"""Written by `python -m training.study --adopt` itself."""
COMMAND = re.compile(r"^python -m training\.(?:[^\n\\]|\\\n)*", re.MULTILINE)


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
