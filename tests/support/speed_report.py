"""What the benchmarks measured, as one dictionary and as the Markdown of the README."""

import os

import cpuinfo
import numpy as np

from training.files.provenance import git_commit

COLUMNS = (
    "",
    "scenario",
    "environments",
    "agents",
    "threads",
    "× CartPole-v1",
    "middle half",
    "steps/s",
    "ns per agent and step",
    "bytes per environment",
)
FIRST = ("Algorithm 1", "Training", "Memory bandwidth", "First use, in a new interpreter")
"""Groups of figures that stand first, beside the table of steps."""


def report(results):
    """The rows of steps per second, their reference, and all other figures.

    Args:
        results: of each benchmark a `row` and the reference's steps per second, or a `figure`.
    """
    rates = [result["reference_steps_per_s"] for result in results if "row" in result]
    return {
        "reference": {
            "name": "CartPole-v1, gym.make",
            "steps_per_s": float(np.median(rates)) if rates else None,
        },
        "rows": [result["row"] for result in results if "row" in result],
        "figures": [result["figure"] for result in results if "figure" in result],
        "machine": {"cpu": cpuinfo.get_cpu_info().get("brand_raw"), "cores": os.cpu_count()},
        "git_commit": git_commit(),
    }


def markdown(measured):
    """A table of the rows, and one of each group of figures."""
    machine, reference = measured["machine"], measured["reference"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores."]
    if measured["rows"]:
        lines += [
            f"{reference['name']}: {reference['steps_per_s']:,.0f} steps/s in the median of all rounds.",
            "",
            _line(COLUMNS),
            "|" + "---|" * len(COLUMNS),
            *map(_row, measured["rows"]),
        ]
    groups = dict.fromkeys([*FIRST, *(figure["group"] for figure in measured["figures"])])
    for group in groups:
        figures = [figure for figure in measured["figures"] if figure["group"] == group]
        if not figures:
            continue
        lines += ["", f"| {group} | | |", "|---|---|---|"]
        lines += [
            f"| {figure['name']} | {_number(figure['value'])} {figure['unit']} | {figure['note']} |"
            for figure in figures
        ]
    return "\n".join(lines) + "\n"


DECISIONS = "One decision of an exported allocator for four agents"


def of_the_page(measured):
    """The tables of the benchmarks page by their marks, those that were measured as a whole."""
    groups = {figure["group"] for figure in measured["figures"]}
    tables = {}
    for mark, wanted, rows in (
        ("make bench", FIRST, measured["rows"]),
        ("make bench: decisions", (DECISIONS,), []),
    ):
        if groups.issuperset(wanted) and (rows or mark != "make bench"):
            figures = [figure for figure in measured["figures"] if figure["group"] in wanted]
            tables[mark] = markdown({**measured, "rows": rows, "figures": figures})
    return tables


def _row(row):
    low, high = map(_number, row["ratio_quartiles"])
    return _line(
        (
            row["name"],
            f"`{row['scenario']}`" if row["scenario"] else "",
            f"{row['num_envs']:,}",
            f"{row['agents']:,}" if row["agents"] else "",
            str(row["threads"]),
            _number(row["ratio"]),
            f"{low} to {high}" if row["rounds"] > 1 else "one round",
            f"{row['steps_per_s']:,.0f}",
            _number(row["ns_per_agent_step"]) if row["ns_per_agent_step"] else "",
            f"{row['bytes_per_env']:,}" if row["bytes_per_env"] else "",
        )
    )


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _number(value):
    """Three significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
