"""Hold the simulator against queueing theory, Ciw and SimPy: a table, a figure and files.

python -m training.validate --out runs/validate
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from rich.console import Console

from training.cli import results_console, run, status_console
from training.files.provenance import write_config
from training.files.staging import staged
from training.limits import Limits
from training.reporting.figure_style import attempted
from training.reporting.report import markdown_table, print_tables, write_json
from training.sharing import RayWorkers
from training.validation import closed_forms
from training.validation.checks import Check, check_record, check_rows
from training.validation.partings import (
    Parting,
    burst_cases,
    burst_rows,
    parting_record,
    step_cases,
    step_rows,
)
from training.validation.validation_figure import draw_validation

ENTRIES = ("validation.json", "validation.md", "validation.png", "validation.svg", "config.json")
SIMULATORS = ("ciw", "simpy")
QUICK_EFFORT = 0.25
Study = Callable[[int], list[Check]]


@dataclass(frozen=True)
class ValidateConfig(RayWorkers):
    """Hold the simulator against queueing theory and against Ciw and SimPy."""

    out: Path = Path("runs/validate")
    """Directory for the results; those of an earlier validation in it are replaced."""
    seed: Annotated[int, Limits(0)] = 0
    """Seed of all arrivals."""
    quick: bool = False
    """Measure with a quarter of the replications where the models part; the checks stay as they are."""


def main(config: ValidateConfig) -> None:
    """Run the checks, write the files, print the tables; exit with 1 if a check fails."""
    status = status_console()
    absent = [name for name in SIMULATORS if find_spec(name) is None]
    if absent:
        status.print(
            f"Not installed: {' and '.join(absent)}, so only the closed forms are checked; "
            "pip install '.[dev]' brings both simulators"
        )
    with staged(config.out, ENTRIES, mark="validation.json") as directory:
        results, by_burst, by_step = measured(config, status, simulators=not absent)
        checks = [check for study in results.values() for check in study]
        titled = tables(checks, by_burst, by_step)
        write_record(directory / "validation.json", checks, by_burst, by_step, config.seed)
        write_markdown(directory / "validation.md", titled)
        write_config(directory / "config.json", asdict(config))
        shown = (results["M/D/1"], results["M/D/1 by step"], by_burst, by_step)
        attempted(draw_validation, directory / "validation.png", *shown, warn=status.print)
    console = results_console()
    print_tables(console, titled)
    failed = [f"{check.name} ({check.against})" for check in checks if not check.passed]
    console.print(f"{len(checks) - len(failed)} of {len(checks)} checks pass; results in {config.out}")
    if failed:
        print(f"error: failed: {'; '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def measured(
    config: ValidateConfig, status: Console, *, simulators: bool
) -> tuple[dict[str, list[Check]], list[Parting], list[Parting]]:
    """Checks by their subject, and where the models part by burst and by step, with the simulators alone."""

    def studied(studies: Mapping[str, Study], what: str) -> dict[str, list[Check]]:
        checks = config.share(partial(checks_of, seed=config.seed), [*studies.values()], what, status)
        return dict(zip(studies, checks, strict=True))

    results = studied(closed_forms.STUDIES, "Closed forms")
    if not simulators:
        return results, [], []
    from training.validation import request_checks

    results |= studied(request_checks.STUDIES, "Ciw and SimPy")
    effort = QUICK_EFFORT if config.quick else 1.0
    parting = partial(request_checks.parting, seed=config.seed)
    by_burst = config.share(parting, burst_cases(effort), "Parting by burst", status)
    by_step = config.share(parting, step_cases(effort), "Parting by step", status)
    return results, by_burst, by_step


def checks_of(study: Study, seed: int) -> list[Check]:
    """The checks of a study."""
    return study(seed)


def tables(
    checks: Sequence[Check], by_burst: Sequence[Parting], by_step: Sequence[Parting]
) -> dict[str, list[dict[str, str]]]:
    """Rows of the printed tables by their titles."""
    titled = {"The fluid simulator against theory and against other simulators": check_rows(checks)}
    if by_burst:
        titled["Workflow, fluid against Ciw by burst and load: gap, and missing service times of a task"] = (
            burst_rows(by_burst)
        )
        titled["Workflow, fluid against Ciw by step: single tasks at ρ = 0.8"] = step_rows(by_step)
    return titled


def write_record(
    path: Path, checks: Sequence[Check], by_burst: Sequence[Parting], by_step: Sequence[Parting], seed: int
) -> None:
    """Write every check and parting as JSON."""
    data = {
        "seed": seed,
        "simulators": {name: version(name) if find_spec(name) else None for name in SIMULATORS},
        "checks": [check_record(check) for check in checks],
        "partings": [parting_record(row) for row in (*by_burst, *by_step)],
    }
    write_json(path, data)


def write_markdown(path: Path, titled: dict[str, list[dict[str, str]]]) -> None:
    """Write the tables as Markdown."""
    text = "\n\n".join(f"## {title}\n\n{markdown_table(rows)}" for title, rows in titled.items())
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main, ValidateConfig)
