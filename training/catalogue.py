"""Fit the catalogue of language models to measured times, and write it into the package.

python -m training.catalogue
"""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from gpualloc_env.scenario.models import DATA, MODELS, PUBLISHED_NAMES
from training.cli import results_console, run
from training.files.atomic import write_atomically
from training.fitting.catalogue_fit import Fitted, Line, fit, fit_starts, read_passes
from training.reporting.report import print_tables

TIMES, STARTS = "llm_times.csv", "llm_starts.csv"


@dataclass(frozen=True)
class CatalogueConfig:
    """Fit the catalogue of language models to measured times."""

    out: Path = DATA
    """Folder to write the tables to; by default the package's own."""


def main(config: CatalogueConfig) -> None:
    """Fit, print each line with its largest residual, and write both tables."""
    config.out.mkdir(parents=True, exist_ok=True)
    fits = [fit(passes) for passes in read_passes()]
    times = [time_row(each) for each in fits if each.model in PUBLISHED_NAMES]
    starts = [start_row(quantity, each) for quantity, each in fit_starts().items()]
    for name, rows in ((TIMES, times), (STARTS, starts)):
        print_tables(results_console(), {name: rows})
        file = StringIO(newline="")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(config.out / name, file.getvalue().encode())


def time_row(fitted: Fitted) -> dict[str, str]:
    """A row of the table of times, in seconds; residuals are the largest distances from the lines."""
    return {
        "gpu": fitted.gpu,
        "model": PUBLISHED_NAMES[fitted.model],
        "iteration_s": number(fitted.decode.intercept),
        "iteration_s_per_call": number(fitted.decode.slope),
        "decode_residual_s": number(fitted.decode.residual),
        "prefill_s_per_token": number(fitted.prefill.slope),
        "prefill_residual_s": number(fitted.prefill.residual),
    }


def start_row(quantity: str, fitted: Line) -> dict[str, str]:
    """A row of the table of starts: seconds over billions of parameters."""
    return {
        "quantity": quantity,
        "seconds": number(fitted.intercept),
        "seconds_per_billion": number(fitted.slope),
        "residual_s": number(fitted.residual),
    }


def number(value: float) -> str:
    """Four digits, more than the measurements have."""
    return f"{value:.4g}"


if __name__ == "__main__":
    assert set(PUBLISHED_NAMES.values()) == set(MODELS)
    run(main, CatalogueConfig)
