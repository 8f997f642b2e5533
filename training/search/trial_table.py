"""The trials of a study as a table, one line each."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from training.files.atomic import write_atomically
from training.search.search_space import SPACE

STATES = {True: "given up", False: "complete"}
HEADER = ("trial", "state", "J", *SPACE, "seconds", "J after each validation", "J on fresh seeds")


class Trial(NamedTuple):
    """Settings of PPO that were tried."""

    settings: dict[str, float | int]
    """A value for each name of `SPACE`."""
    curve: tuple[float, ...]
    """After each validation of its runs, one run after another: the best J so far of each, averaged."""
    given_up: bool
    """Whether it was not trained to the end, being worse than others."""
    seconds: float
    """Time that it took [s]."""
    fresh: tuple[float, ...] = ()
    """J of the runs with fresh seeds, where it had some."""

    @property
    def objective(self) -> float:
        """J of the policies that its runs would keep, averaged; so far, where it was given up."""
        return self.curve[-1]


def best_of(trials: Sequence[Trial]) -> int:
    """Number of the trial with the lowest J among those that were trained to the end."""
    return min((k for k, trial in enumerate(trials) if not trial.given_up), key=lambda k: trials[k].objective)


def spread(objectives: Sequence[float]) -> str:
    """Mean and standard deviation over training seeds."""
    deviation = f" ± {stdev(objectives):.4f}" if len(objectives) > 1 else ""
    return f"{fmean(objectives):.4f}{deviation}"


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write the table, one line a trial, all at once."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    for number, trial in enumerate(trials):
        curves = (" ".join(map(str, curve)) for curve in (trial.curve, trial.fresh))
        settings = (trial.settings[name] for name in SPACE)
        writer.writerow(
            [number, STATES[trial.given_up], trial.objective, *settings, round(trial.seconds, 1), *curves]
        )
    write_atomically(path, file.getvalue().encode())


def read_trials(path: Path) -> list[Trial]:
    """The trials of a table.

    Raises:
        ValueError: the file holds something else.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if tuple(header) != HEADER:
        raise ValueError(f"{path} has other columns than a table of trials")
    return [_read(dict(zip(HEADER, row, strict=True))) for row in rows]


def _read(row: dict[str, str]) -> Trial:
    curve, fresh = (
        tuple(map(float, row[name].split())) for name in ("J after each validation", "J on fresh seeds")
    )
    settings = {name: _number(row[name]) for name in SPACE}
    return Trial(settings, curve, row["state"] == STATES[True], float(row["seconds"]), fresh)


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(text)
