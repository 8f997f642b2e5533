"""What the benchmarks measured, as one dictionary and as the Markdown of the README."""

import os
from itertools import groupby

import cpuinfo
import numpy as np

from training.provenance import git_commit

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


def report(benchmarks):
    """The rows of steps per second, their reference, and all other figures.

    Args:
        benchmarks: what each of them has to say, `row` or `figure` among it.
    """
    rates = [info["reference_steps_per_s"] for info in benchmarks if "row" in info]
    return {
        "reference": {
            "name": "CartPole-v1, gym.make",
            "steps_per_s": float(np.median(rates)) if rates else None,
        },
        "rows": [info["row"] for info in benchmarks if "row" in info],
        "figures": [info["figure"] for info in benchmarks if "figure" in info],
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
    by_group = sorted(measured["figures"], key=lambda figure: figure["group"])
    for group, figures in groupby(by_group, key=lambda figure: figure["group"]):
        lines += ["", f"| {group} | | |", "|---|---|---|"]
        lines += [
            f"| {figure['name']} | {_number(figure['value'])} {figure['unit']} | {figure['note']} |"
            for figure in figures
        ]
    return "\n".join(lines) + "\n"


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
