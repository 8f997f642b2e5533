"""Numbers of a comparison: intervals, tables, and the files that hold them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table
from rich.text import Text
from scipy.stats import bootstrap

from training.evaluation.evaluate import Evaluation, Metrics

RESAMPLES = 9999
Summary = dict[str, Any]


class Estimate(NamedTuple):
    """A mean over episodes and its 95 % bootstrap interval; NaN where nothing was measured."""

    mean: float
    low: float
    high: float


def estimate(values: ArrayLike) -> Estimate:
    """Mean and 95 % BCa interval over the episodes in which the value is defined, (E,).

    The interval of one episode, or of episodes that are all alike, is the mean itself. The
    resampling is seeded, so the same values always give the same interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if sample.size == 0:
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(sample.mean())
    # Rounding alone makes equal episodes differ; there BCa divides by a variance of zero.
    if np.ptp(sample) <= 1e-12 * abs(mean):
        return Estimate(mean, mean, mean)
    result = bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=0.95,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation with the lowest mean objective, the first of equals.

    One that knows the future counts only where there is no other.
    """
    fair = [evaluation for evaluation in evaluations if evaluation.kind != "privileged"]
    return min(fair or evaluations, key=lambda evaluation: evaluation.objective.mean())


def paired(evaluations: Sequence[Evaluation], reference: Evaluation) -> dict[str, Estimate]:
    """Difference of each policy's objective from the reference's, episode by episode.

    All policies met the same arrivals, so what the traffic does to both cancels: this interval
    tells two policies apart where those of their means overlap. Positive is worse.
    """
    return {
        evaluation.policy: estimate(evaluation.objective - reference.objective) for evaluation in evaluations
    }


def mean_metrics(episodes: Sequence[Metrics]) -> Metrics:
    """Mean of every metric over the episodes in which it is defined; NaN where it never is."""
    means: Metrics = {}
    for name in episodes[0]:
        values = np.array([metrics[name] for metrics in episodes])
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means


def summary(evaluations: Sequence[Evaluation], seed: int) -> Summary:
    """Everything that `summary.json` holds of a scenario; a mean that is nowhere defined is None."""
    reference = best(evaluations)
    scenario = reference.batch.scenario
    policies: dict[str, Any] = {}
    for evaluation in evaluations:
        agents = {
            name: _nulls(mean_metrics([episode[name] for episode in evaluation.per_agent]))
            for name in scenario.agent_names
        }
        policies[evaluation.policy] = {
            "kind": evaluation.kind,
            "objective": _interval(estimate(evaluation.objective)),
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
    return {"mean": value.mean, "ci95": [value.low, value.high]}


def _nulls(metrics: Metrics) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in metrics.items()}


def tables(evaluations: Sequence[Evaluation]) -> dict[str, list[dict[str, str]]]:
    """Rows of the printed tables, one for each policy, by the title of the table."""
    reference = best(evaluations)
    differences = paired(evaluations, reference)
    results: list[dict[str, str]] = []
    estimators: list[dict[str, str]] = []
    for evaluation in evaluations:
        mean = mean_metrics(evaluation.metrics)
        difference = differences[evaluation.policy]
        name = evaluation.policy + (" (knows the future)" if evaluation.kind == "privileged" else "")
        results.append(
            {
                "policy": name,
                "objective J\n[95 % interval]": estimate_cell(estimate(evaluation.objective)),
                "J − best J, paired\n[95 % interval]": "best"
                if evaluation is reference
                else estimate_cell(difference, sign="+"),
                "latency\nmean [s]": f"{mean['latency_mean_s']:.3f}",
                "latency\np95 [s]": f"{mean['latency_p95_s']:.3f}",
                "within\nSLO [%]": f"{100 * mean['slo_attainment']:.1f}",
                "served\n[req/s]": f"{mean['throughput_rps']:.2f}",
                "cost\n[$]": f"{mean['cost_usd']:.4f}",
            }
        )
        estimators.append(
            {
                "policy": name,
                "paper\nlatency [s]": f"{mean['paper_latency_s']:.3f}",
                "Little's\nlaw [s]": f"{mean['latency_mean_s']:.3f}",
                "paper throughput\n[req/s]": f"{mean['paper_throughput_rps']:.2f}",
                "served\n[req/s]": f"{mean['throughput_rps']:.2f}",
                "paper latency\nstd dev [s]": f"{mean['paper_latency_std_s']:.2f}",
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
        cells = {
            name: estimate_cell(Estimate(objectives[name]["mean"], *objectives[name]["ci95"]))
            if name in objectives
            else ""
            for name in names
        }
        rows.append({"scenario": scenario, **cells})
    return rows


def estimate_cell(value: Estimate, sign: str = "") -> str:
    """Mean and interval as they stand in a table."""
    mean = f"{value.mean:{sign}.3f}"
    return mean if value.low == value.high else f"{mean} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
