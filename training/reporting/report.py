"""Numbers of a comparison: tables, and the files that hold them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from training.evaluation.evaluate import Evaluation, Metrics, mean_metrics
from training.evaluation.statistics import Estimate, interval
from training.evaluation.verdicts import difference

Summary = dict[str, Any]
UNDEFINED = "–"
"""In tables, where a metric has no value: no request was served, say."""


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation with the lowest mean objective, the first of equals.

    One that knows the future counts only where there is no other.
    """
    fair = [evaluation for evaluation in evaluations if evaluation.kind != "privileged"]
    return min(fair or evaluations, key=lambda evaluation: evaluation.objective.mean())


def objective(evaluation: Evaluation) -> Estimate:
    """Mean J and its interval over episodes and training seeds."""
    return interval(evaluation.by_seed, varies=evaluation.scenario.varies)


def paired(evaluations: Sequence[Evaluation], reference: Evaluation) -> dict[str, Estimate]:
    """Difference of each policy's objective from the reference's, episode by episode.

    All policies met the same arrivals, so what the traffic does to both cancels: this interval
    tells two policies apart where those of their means overlap. Positive is worse.
    """
    varies = reference.scenario.varies
    return {each.policy: difference(each.by_seed, reference.by_seed, varies=varies) for each in evaluations}


def summary(evaluations: Sequence[Evaluation], seed: int) -> Summary:
    """Everything that `summary.json` holds of a scenario; a mean that is nowhere defined is None."""
    reference = best(evaluations)
    scenario = reference.scenario
    policies: dict[str, Any] = {}
    for evaluation in evaluations:
        agents = {
            name: _nulls(mean_metrics([episode[name] for episode in evaluation.per_agent]))
            for name in scenario.agent_names
        }
        policies[evaluation.policy] = {
            "kind": evaluation.kind,
            "objective": _interval(objective(evaluation)),
            "metrics": _nulls(mean_metrics(evaluation.metrics)),
            "per_agent": agents,
        }
    differences = paired(evaluations, reference)
    return {
        "scenario": scenario.name,
        "episodes": len(reference.metrics),
        "seed": seed,
        "policies": policies,
        "paired": {
            "reference": reference.policy,
            "objective_difference": {name: _interval(value) for name, value in differences.items()},
        },
    }


def _interval(value: Estimate) -> dict[str, Any]:
    mean, low, high = map(defined, value)
    return {"mean": mean, "ci95": [low, high]}


def _nulls(metrics: Metrics) -> dict[str, float | None]:
    return {name: defined(value) for name, value in metrics.items()}


def defined(value: float) -> float | None:
    """As JSON holds it: a number, or null."""
    return None if np.isnan(value) else value


def number(value: float, form: str) -> str:
    """As a table shows it: a number, or a dash."""
    return UNDEFINED if np.isnan(value) else f"{value:{form}}"


def tables(evaluations: Sequence[Evaluation]) -> dict[str, list[dict[str, str]]]:
    """Rows of the printed tables, one for each policy, by the title of the table."""
    reference = best(evaluations)
    differences = paired(evaluations, reference)
    results: list[dict[str, str]] = []
    estimators: list[dict[str, str]] = []
    for evaluation in evaluations:
        mean = mean_metrics(evaluation.metrics)
        apart = estimate_cell(differences[evaluation.policy], sign="+")
        results.append(
            {
                "policy": evaluation.label,
                "objective J\n[95 % interval]": estimate_cell(objective(evaluation)),
                "J − best J, paired\n[95 % interval]": "best" if evaluation is reference else apart,
                "latency\nmean [s]": number(mean["latency_mean_s"], ".3f"),
                "latency\np95 [s]": number(mean["latency_p95_s"], ".3f"),
                "within\nSLO [%]": number(100 * mean["slo_attainment"], ".1f"),
                "served\n[req/s]": number(mean["throughput_rps"], ".2f"),
                "cost\n[$]": number(mean["cost_usd"], ".4f"),
            }
        )
        estimators.append(
            {
                "policy": evaluation.label,
                "paper\nlatency [s]": number(mean["paper_latency_s"], ".3f"),
                "Little's\nlaw [s]": number(mean["latency_mean_s"], ".3f"),
                "paper throughput\n[req/s]": number(mean["paper_throughput_rps"], ".2f"),
                "served\n[req/s]": number(mean["throughput_rps"], ".2f"),
                "paper latency\nstd dev [s]": number(mean["paper_latency_std_s"], ".2f"),
            }
        )
    return {
        "Results (lower J is better)": results,
        "The paper's own estimators beside what was measured": estimators,
    }


def overview(summaries: Mapping[str, Summary]) -> list[dict[str, str]]:
    """J of each policy, a column each, by scenario, a row each; empty where a policy did not play."""
    names = list(dict.fromkeys(name for each in summaries.values() for name in each["policies"]))
    rows: list[dict[str, str]] = []
    for scenario, each in summaries.items():
        objectives = {name: result["objective"] for name, result in each["policies"].items()}
        cells = {name: _read_cell(objectives[name]) if name in objectives else "" for name in names}
        rows.append({"scenario": scenario, **cells})
    return rows


def _read_cell(objective: Mapping[str, Any]) -> str:
    bounds = (np.nan if bound is None else bound for bound in objective["ci95"])
    return estimate_cell(Estimate(objective["mean"], *bounds))


def estimate_cell(value: Estimate, sign: str = "") -> str:
    """Mean and interval as they stand in a table; the mean alone where there is no interval."""
    mean = number(value.mean, f"{sign}.3f")
    if not value.low < value.high:
        return mean
    return f"{mean} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def rich_table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for position, header in enumerate(rows[0]):
        table.add_column(Text(header), justify="right" if position else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.values()))
    return table


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown."""
    header = [name.replace("\n", " ") for name in rows[0]]
    lines = [header, ["---"] + ["---:"] * (len(rows[0]) - 1), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def write_episodes(path: Path, evaluations: Sequence[Evaluation], seed: int) -> None:
    """Write one CSV line for each policy and episode; a metric that is not defined stays empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["policy", "seed", *evaluations[0].metrics[0]])
        for evaluation in evaluations:
            for k, metrics in enumerate(evaluation.metrics):
                values = ["" if np.isnan(value) else value for value in metrics.values()]
                writer.writerow([evaluation.policy, seed + k, *values])


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write results as JSON; a NaN would be an error of ours."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
