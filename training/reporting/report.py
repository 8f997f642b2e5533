"""Numbers of a comparison: tables, and the files that hold them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baselines import algorithm_1_of
from gpualloc_env.metrics import Metrics, mean_metrics
from training.evaluation.evaluate import Evaluation
from training.evaluation.held_out import episodes_called
from training.evaluation.statistics import Estimate, defined, interval
from training.evaluation.verdicts import difference
from training.reporting.markdown import markdown_table
from training.reporting.measures import MET, STOOD, cells, measures, number

Summary = dict[str, Any]
PAGE_WIDTH = 110
"""Letters of a table on a page, where a wider one would be squeezed."""


def ranked(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """In order of J, the best first; of equals the one that was given first."""
    return sorted(evaluations, key=lambda evaluation: evaluation.objective.mean())


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation with the lowest mean objective, the first of equals.

    One that knows the future counts only where there is no other.
    """
    fair = [evaluation for evaluation in evaluations if evaluation.kind != "privileged"]
    return ranked(fair or evaluations)[0]


def references(evaluations: Sequence[Evaluation], chosen: str | None = None) -> list[Evaluation]:
    """From whom paired differences are shown: the best baseline, or the chosen policy, and Algorithm 1.

    Without a baseline the best policy is the reference.
    """
    online = [each for each in evaluations if each.kind == "online"]
    asked = [each for each in evaluations if each.policy == chosen] or [best(online or evaluations)]
    algorithm_1 = algorithm_1_of(asked[0].scenario)
    return asked + [each for each in evaluations if each.policy == algorithm_1 and each not in asked]


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


def summary(evaluations: Sequence[Evaluation], seed: int, chosen: str | None = None) -> Summary:
    """Everything that `summary.json` holds of a scenario; a mean that is nowhere defined is None."""
    first = best(evaluations)
    scenario = first.scenario
    policies: dict[str, Any] = {}
    for evaluation in evaluations:
        agents = {
            name: _nulls(mean_metrics([episode[name] for episode in evaluation.per_agent]))
            for name in scenario.agent_names
        }
        policies[evaluation.policy] = {
            "label": evaluation.label,
            "kind": evaluation.kind,
            "objective": objective(evaluation).record(),
            "headroom_closed": defined(evaluation.headroom_closed),
            "metrics": _nulls(mean_metrics(evaluation.metrics)),
            "per_agent": agents,
        }
    known = {each.policy: paired(evaluations, each) for each in (first, *references(evaluations, chosen))}
    return {
        "scenario": scenario.name,
        "episodes": len(first.metrics),
        "seed": seed,
        "best": first.policy,
        "bound": {"mean": defined(first.bound)},
        "policies": policies,
        "paired": {
            reference: {name: value.record() for name, value in differences.items()}
            for reference, differences in known.items()
        },
    }


def _nulls(metrics: Metrics) -> dict[str, float | None]:
    return {name: defined(value) for name, value in metrics.items()}


def tied(difference: Estimate) -> bool:
    """Whether an interval of a paired difference leaves open who is better."""
    return not (difference.low > 0 or difference.high < 0)


def ranks(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Rank of each policy by J; those that tie with the best bear its mark: `1`, `2=`, `3`."""
    first = best(evaluations)
    apart = paired(evaluations, first)
    return {
        each.policy: f"{k}{'=' if each is not first and tied(apart[each.policy]) else ''}"
        for k, each in enumerate(ranked(evaluations), start=1)
    }


def tables(evaluations: Sequence[Evaluation], chosen: str | None = None) -> dict[str, list[dict[str, str]]]:
    """Rows of the printed tables, a policy each, the best first, by the title of the table."""
    scenario, order, rank = evaluations[0].scenario, ranked(evaluations), ranks(evaluations)
    apart = {each.label: paired(evaluations, each) for each in references(evaluations, chosen)}
    results: list[dict[str, str]] = []
    estimators: list[dict[str, str]] = []
    tiers: list[dict[str, str]] = []
    for evaluation in order:
        mean = mean_metrics(evaluation.metrics)
        key = {"#": rank[evaluation.policy], "policy": evaluation.label}
        row = {**key, "J\n[95 % interval]": estimate_cell(objective(evaluation))}
        for name, differences in apart.items():
            own = "" if name == evaluation.label else estimate_cell(differences[evaluation.policy], "+")
            row[f"J − J of {name}\n[paired interval]"] = own
        if not np.isnan(evaluation.headroom_closed):
            row["headroom\nclosed"] = percent(evaluation.headroom_closed)
        results.append(row | cells(measures(scenario), mean))
        estimators.append(
            {
                **key,
                "paper\nlatency [s]": number(mean["paper_latency_s"], ".3f"),
                "Little's\nlaw [s]": number(mean["latency_mean_s"], ".3f"),
                "throughput\n[req/s]": number(mean["paper_throughput_rps"], ".2f"),
                "served\n[req/s]": number(mean["throughput_rps"], ".2f"),
                "std dev\n[s]": number(mean["paper_latency_std_s"], ".2f"),
            }
        )
        if scenario.nodes:
            tiers.append(key | cells((*MET, *STOOD), mean))
    count = len(order[0].metrics)
    title = f"{scenario.name}: {count} {episodes_called(scenario, count)}, best J (lowest) first"
    if not np.isnan(order[0].bound):
        title += f", bound {order[0].bound:.3f}"
    if any(value.endswith("=") for value in rank.values()):
        title += "; = ties with the best"
    shown = {title: results}
    if scenario.service == "fluid":
        shown["The paper's own estimators beside what was measured"] = estimators
    if tiers:
        shown["What calls met, and what stood where"] = tiers
    return shown


def percent(fraction: float) -> str:
    """As a table shows it: per cent, or nothing."""
    return "" if np.isnan(fraction) else f"{100 * fraction:.0f} %"


def overview(summaries: Mapping[str, Summary]) -> list[dict[str, str]]:
    """J of each policy, a column each, by scenario, a row each; empty where a policy did not play."""
    played = {scenario: by_label(each) for scenario, each in summaries.items()}
    names = list(dict.fromkeys(name for objectives in played.values() for name in objectives))
    rows: list[dict[str, str]] = []
    for scenario, objectives in played.items():
        cells = {name: _read_cell(objectives[name]) if name in objectives else "" for name in names}
        rows.append({"scenario": scenario, **cells})
    return rows


def by_label(summary: Summary) -> dict[str, dict[str, Any]]:
    """J and its interval by what each policy is called."""
    return {each["label"]: each["objective"] for each in summary["policies"].values()}


def _read_cell(objective: Mapping[str, Any]) -> str:
    bounds = (np.nan if bound is None else bound for bound in objective["ci95"])
    return estimate_cell(Estimate(objective["mean"], *bounds))


def estimate_cell(value: Estimate, sign: str = "") -> str:
    """Mean and interval as they stand in a table; the mean alone where there is no interval.

    Three decimals, fewer of large numbers and more of small differences.
    """
    size = max(abs(value.mean), 1e-9)
    decimals = int(np.clip(3 - np.floor(np.log10(size)), 1, 4 if sign else 3)) if np.isfinite(size) else 3
    mean = number(value.mean, f"{sign}.{decimals}f")
    if not value.low < value.high:
        return mean
    return f"{mean} [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"


def _keys(rows: Sequence[Mapping[str, str]]) -> int:
    """How many first columns name a row."""
    return 2 if next(iter(rows[0])) == "#" else 1


def parted(rows: Sequence[Mapping[str, str]], width: int) -> list[list[str]]:
    """The headers of each part of a table that is no wider than `width` letters; its keys are in all."""
    headers, keys = list(rows[0]), _keys(rows)
    letters = {
        header: max(
            len(line) for text in (header, *(row[header] for row in rows)) for line in text.split("\n")
        )
        for header in headers
    }
    room = width - sum(letters[header] + GAP for header in headers[:keys])
    parts: list[list[str]] = [[]]
    for header in headers[keys:]:
        if parts[-1] and sum(letters[each] + GAP for each in (*parts[-1], header)) > room + GAP:
            parts.append([])
        parts[-1].append(header)
    return [[*headers[:keys], *part] for part in parts]


GAP = 2  # letters between two columns: a pad and the box's own
LEAN: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}


def print_tables(console: Console, titled: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Print tables by their titles, each in as many parts as fit into the terminal: no cell is split."""
    for title, rows in titled.items():
        for k, headers in enumerate(parted(rows, console.width)):
            console.print(_rich_table("" if k else title, headers, rows), "", sep="\n")


def _rich_table(title: str, headers: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    keys = _keys(rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, **LEAN)
    for position, header in enumerate(headers):
        right = position >= keys or header == "#"
        table.add_column(Text(header), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[header]) for header in headers), style="bold" if row.get("#") == "1" else "")
    return table


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a printed table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(name.replace("\n", " ") for name in rows[0])
        writer.writerows(row.values() for row in rows)


def page(evaluations: Sequence[Evaluation], chosen: str | None = None) -> str:
    """A comparison in Markdown: what came out, and the tables."""
    scenario = evaluations[0].scenario
    parts = [f"# {scenario.name}", scenario.description, *verdict_lines(evaluations, chosen)]
    for title, rows in tables(evaluations, chosen).items():
        parts.append(f"## {title}")
        for headers in parted(rows, PAGE_WIDTH):
            parts.append(markdown_table([{name: row[name] for name in headers} for row in rows]))
    return "\n\n".join(parts) + "\n"


def verdict_lines(evaluations: Sequence[Evaluation], chosen: str | None = None) -> list[str]:
    """Which policy is best, by how much, and whether that is certain, a sentence each."""
    first = best(evaluations)
    lines = [f"{first.label} is best: J = {estimate_cell(objective(first))}."]
    others = [each for each in references(evaluations, chosen) if each is not first]
    for other in others or [each for each in ranked(evaluations) if each is not first][:1]:
        apart = paired(evaluations, other)[first.policy]
        bounds = f" [{-apart.high:.3g}, {-apart.low:.3g}]" if apart.low < apart.high else ""
        certain = "not certain, the interval holds zero" if tied(apart) else "certain at 95 %"
        lines.append(f"{-apart.mean:.3g}{bounds} below {other.label}: {certain}.")
    if not np.isnan(first.headroom_closed):
        closed = percent(first.headroom_closed)
        lines.append(f"It closes {closed} of the headroom from Algorithm 1 to the bound {first.bound:.3f}.")
    return lines


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
