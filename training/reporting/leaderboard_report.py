"""Tables and files of a leaderboard."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from gpualloc_env.simulation.state import Array
from training.evaluation.headroom import headrooms
from training.evaluation.statistics import Estimate, defined, interval
from training.evaluation.verdicts import ONE_EPISODE, Entry, Verdict, best_online, verdict
from training.reporting.markdown import markdown_table
from training.reporting.measures import MET, cells, number
from training.reporting.report import estimate_cell, percent

CSV_METRICS = ("latency_p95_s", "cost_usd", "slo_attainment")
CSV_HEADER = (
    *("scenario", "policy", "kind", "objective", "low", "high", "bound", "headroom_closed"),
    *CSV_METRICS,
    *("against_adaptive", "against_best_baseline"),
)
MARKS: dict[Verdict, str] = {"wins": "+", "ties": "=", "loses": "−"}


@dataclass(frozen=True)
class Row:
    """A policy on a scenario, as every table and file shows it."""

    entry: Entry
    objective: Estimate
    headroom_closed: float
    against_adaptive: Verdict
    against_best_baseline: Verdict
    difference_to_adaptive: Estimate
    difference_to_best_baseline: Estimate


class Board:
    """One scenario: the bound of each of its episodes, and what every policy did on them."""

    def __init__(
        self, bounds: Array, entries: Sequence[Entry], algorithm_1: str = "adaptive", varies: bool = True
    ) -> None:
        """Keep the (E,) bounds and the entries, of which one is the paper's Algorithm 1.

        Args:
            bounds: of the episodes.
            entries: of the policies.
            algorithm_1: the name of that entry.
            varies: whether episodes differ by chance; where all are alike one of them says everything.

        Raises:
            ValueError: an episode in which a policy has a lower J than the bound, which is then none.
        """
        objectives = {entry.name: entry.objective for entry in entries}
        self.headroom_closed = headrooms(bounds, objectives, algorithm_1)
        self.bounds, self.varies = bounds, varies
        self.entries = list(entries)
        self.bound = float(bounds.mean())
        self.adaptive = next(entry for entry in entries if entry.name == algorithm_1)
        self.best_baseline = best_online(entries)
        references = {self.adaptive.name, self.best_baseline.name}
        self.comparisons = sum(entry.name != name for entry in entries for name in references)

    @cached_property
    def rows(self) -> list[Row]:
        """Every policy, the best first."""
        rows: list[Row] = []
        for entry in sorted(self.entries, key=lambda entry: entry.mean):
            against_adaptive, to_adaptive = self._verdict(entry, self.adaptive)
            against_best, to_best = self._verdict(entry, self.best_baseline)
            rows.append(
                Row(
                    entry,
                    interval(entry.objective, varies=self.varies),
                    self.headroom_closed[entry.name],
                    against_adaptive,
                    against_best,
                    to_adaptive,
                    to_best,
                )
            )
        return rows

    def _verdict(self, entry: Entry, reference: Entry) -> tuple[Verdict, Estimate]:
        return verdict(entry, reference, self.comparisons, varies=self.varies)


def boards_json(boards: Mapping[str, Board]) -> dict[str, Any]:
    """Everything that `leaderboard.json` holds; a share of no headroom is None."""
    scenarios: dict[str, Any] = {}
    for name, board in boards.items():
        policies: dict[str, Any] = {}
        for row in board.rows:
            policies[row.entry.name] = {
                "kind": row.entry.kind,
                "objective": row.objective.record(),
                "headroom_closed": defined(row.headroom_closed),
                "against_adaptive": row.against_adaptive,
                "against_best_baseline": row.against_best_baseline,
                "difference_to_adaptive": row.difference_to_adaptive.record("interval"),
                "difference_to_best_baseline": row.difference_to_best_baseline.record("interval"),
                "training_seeds": len(row.entry.objective) if row.entry.kind == "learned" else 0,
                "interquartile_mean": row.entry.interquartile_mean,
                "metrics": {name: defined(value) for name, value in row.entry.metrics.items()},
            }
        scenarios[name] = {
            "bound": {"mean": board.bound},
            "episodes": len(board.bounds),
            "best_baseline": board.best_baseline.name,
            "comparisons": board.comparisons,
            "policies": policies,
        }
    return {"scenarios": scenarios}


def rows_by_scenario(boards: Mapping[str, Board]) -> dict[str, list[dict[str, str]]]:
    """The table of each scenario by its title."""
    titled: dict[str, list[dict[str, str]]] = {}
    for name, board in boards.items():
        title = f"{name}: {_episodes(board)}, bound {board.bound:.3f}"
        titled[title] = [
            {
                "#": str(rank),
                "policy": row.entry.label,
                "kind": row.entry.kind,
                "objective J\n[95 % interval]": estimate_cell(row.objective),
                "headroom\nclosed": percent(row.headroom_closed),
                "p95\n[s]": number(row.entry.metrics["latency_p95_s"], ".3f"),
                "cost\n[$]": number(row.entry.metrics["cost_usd"], ".4f"),
                "within\nSLO [%]": number(100 * row.entry.metrics["slo_attainment"], ".1f"),
                **cells(MET if "hot_calls" in row.entry.metrics else (), row.entry.metrics),
                f"against\n{board.adaptive.label}": row.against_adaptive,
                f"against\n{board.best_baseline.label}": row.against_best_baseline,
            }
            for rank, row in enumerate(board.rows, start=1)
        ]
    return titled


def _episodes(board: Board) -> str:
    count = len(board.bounds)
    if count > 1:
        return f"{count} episodes"
    return "one episode" if board.varies else "one episode, all are alike"


def summary_rows(boards: Mapping[str, Board]) -> list[dict[str, str]]:
    """One row for each scenario: the bound, Algorithm 1, the best baseline and the best learned policy."""
    rows: list[dict[str, str]] = []
    learned = any(entry.kind == "learned" for board in boards.values() for entry in board.entries)
    for name, board in boards.items():
        row = {
            "scenario": name,
            "bound": f"{board.bound:.3f}",
            "Algorithm 1": f"{board.adaptive.mean:.3f}",
            "best online baseline": _champion(board, "online"),
        }
        if learned:
            row["best learned policy"] = _champion(board, "learned")
            row["learned against baseline"] = next(
                (each.against_best_baseline for each in board.rows if each.entry.kind == "learned"), ""
            )
        rows.append(row)
    return rows


def _champion(board: Board, kind: str) -> str:
    """Name, J and headroom closed of the best policy of a kind."""
    row = next((row for row in board.rows if row.entry.kind == kind), None)
    if row is None:
        return ""
    closed = percent(row.headroom_closed)
    return f"{row.entry.label} {row.entry.mean:.3f}" + (f" ({closed})" if closed else "")


def notes(boards: Mapping[str, Board]) -> list[str]:
    """What a reader must know of scenarios whose verdicts say nothing."""
    single = [name for name, board in boards.items() if board.varies and len(board.bounds) == 1]
    return [f"{', '.join(single)}: {ONE_EPISODE}."] if single else []


def write_csv(path: Path, boards: Mapping[str, Board]) -> None:
    """Write one line for each scenario and policy."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        for name, board in boards.items():
            for row in board.rows:
                numbers = [*row.objective, board.bound, row.headroom_closed]
                numbers += [row.entry.metrics[metric] for metric in CSV_METRICS]
                writer.writerow(
                    [name, row.entry.name, row.entry.kind]
                    + ["" if isnan(value) else value for value in numbers]
                    + [row.against_adaptive, row.against_best_baseline]
                )


def write_markdown(path: Path, boards: Mapping[str, Board], seed: int) -> None:
    """Write the summary and the table of each scenario."""
    parts = [
        "# Leaderboard",
        f"Objective J, lower is better, on held-out episodes with seeds from {seed} on, the same for every "
        "policy. Headroom closed: (J of Algorithm 1 − J) / (J of Algorithm 1 − bound). A verdict is the "
        "paired difference of J, its 95 % interval corrected for all comparisons of its table.",
        *notes(boards),
        markdown_table(summary_rows(boards)),
    ]
    for title, rows in rows_by_scenario(boards).items():
        parts += [f"## {title}", markdown_table(rows)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
