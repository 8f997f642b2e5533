"""The figure of a validation: waits against theory, error against the step, and where fluid and Ciw part."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from gpualloc_env.simulation.state import Array
from training.evaluation.statistics import Estimate
from training.reporting.figure_style import AGENT_COLOURS, POLICY_COLOURS, POLICY_MARKERS, STYLE, save
from training.validation.checks import Check
from training.validation.closed_forms import (
    LOADS,
    STEP_LENGTHS,
    STEP_LOAD,
    pollaczek_khinchine,
    slotted_wait,
)
from training.validation.partings import Parting
from training.validation.workflow_network import TASK_SERVICE_S

THEORY, FLUID, REQUESTS = "#444444", POLICY_COLOURS[0], POLICY_COLOURS[4]
BAND = "#EFEFEF"


def draw_validation(
    path: Path,
    waits: Sequence[Check],
    waits_by_step: Sequence[Check],
    by_burst: Sequence[Parting],
    by_step: Sequence[Parting],
) -> None:
    """Draw the panels as PNG; those of the partings only where these were measured."""
    rows = 2 if by_burst else 1
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 4.8 * rows), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False)
        wait_by_load(axes[0, 0], waits)
        error_by_step(axes[0, 1], waits_by_step)
        if by_burst:
            gap_by_burst(axes[1, 0], by_burst)
            time_by_step(axes[1, 1], by_step)
        save(figure, path)


def wait_by_load(axes: Axes, waits: Sequence[Check]) -> None:
    """Measured waits of M/D/1 on Pollaczek and Khinchine's curve."""
    loads = np.linspace(0, 0.93, 200)
    axes.plot(loads, [pollaczek_khinchine(load) for load in loads], color=THEORY, label="Pollaczek-Khinchine")
    points(axes, LOADS, [check.measured for check in waits], FLUID, "o", "fluid")
    for load, check in zip(LOADS, waits, strict=True):
        half_width = 50 * (check.difference.high - check.difference.low)
        axes.annotate(
            f"{100 * check.difference.mean:+.2f} % ± {half_width:.2f}",
            (load, check.measured.mean),
            (-9, 5),
            textcoords="offset points",
            ha="right",
            color=FLUID,
        )
    finish(axes, "(a) Mean wait in M/D/1", "load ρ", "mean wait [service times]")
    axes.set_xlim(0, 0.95)
    axes.set_ylim(0, 6)
    axes.legend(loc="upper left")


def error_by_step(axes: Axes, waits: Sequence[Check]) -> None:
    """What the step adds to the wait, measured and by the exact formula, in per cent of the wait."""
    fine, coarse = np.arange(0.3, 1.01, 0.05), np.arange(1.1, 2.6, 0.1)
    steps = np.unique(np.concatenate([[1 / 3], np.round(fine, 2), np.round(coarse, 1), np.arange(3, 11)]))
    wait = pollaczek_khinchine(STEP_LOAD)
    formula = [100 * (slotted_wait(STEP_LOAD, float(step)) / wait - 1) for step in steps]
    axes.plot(steps, formula, color=THEORY, label="slotted M/D/1, exact")
    errors = [Estimate(*(100 * (value / wait - 1) for value in check.measured)) for check in waits]
    points(axes, STEP_LENGTHS, errors, FLUID, "o", "fluid")
    axes.axhline(0, color=THEORY, linewidth=0.8, linestyle=":")
    finish(
        axes,
        f"(b) What the step adds to that wait, ρ = {STEP_LOAD}",
        "step dt [service times], log scale",
        "error of the mean wait [%], symlog scale",
    )
    plain_logarithm(axes, axes.xaxis, (0.3, 0.5, 1, 2, 5, 10))
    # Zero wherever a service is a whole number of steps, far above the wait where a step is many services.
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.6)
    axes.yaxis.set_major_locator(FixedLocator((0, 1, 3, 10, 30, 100, 300)))
    axes.set_ylim(-1, 400)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper left")


def gap_by_burst(axes: Axes, partings: Sequence[Parting]) -> None:
    """The fluid's task time less Ciw's, in per cent, by the size of a burst and the load."""
    axes.axhspan(-3, 3, color=BAND, zorder=0)
    axes.annotate("within 3 %", (10, 0), va="center", ha="center")
    loads = sorted({row.case.load for row in partings})
    colours = colormaps[AGENT_COLOURS](np.linspace(0.0, 0.85, len(loads)))
    for k, load in enumerate(loads):
        rows = [row for row in partings if row.case.load == load]
        x = [row.case.burst * 1.09 ** (k - (len(loads) - 1) / 2) for row in rows]
        gaps = [Estimate(*(100 * value for value in row.gap)) for row in rows]
        label = f"ρ = {load}" if load else "one burst alone"
        axes.plot(x, [gap.mean for gap in gaps], color=colours[k], linewidth=1, alpha=0.6)
        points(axes, x, gaps, colours[k], POLICY_MARKERS[k], label)
    finish(
        axes,
        "(c) Workflow: the fluid's task time against Ciw's",
        "tasks in a burst, log scale",
        "(fluid − Ciw) / Ciw [%]",
    )
    plain_logarithm(axes, axes.xaxis, (1, 10, 100, 1000))
    axes.legend(loc="lower right")


def time_by_step(axes: Axes, partings: Sequence[Parting]) -> None:
    """Task times of single tasks by the fluid's step, beside Ciw's, which knows no step."""
    steps = [row.case.dt / TASK_SERVICE_S for row in partings]
    requests = partings[0].requests
    low, high = requests.low / TASK_SERVICE_S, requests.high / TASK_SERVICE_S
    axes.axhspan(low, high, color=REQUESTS, alpha=0.2, linewidth=0)
    axes.axhline(requests.mean / TASK_SERVICE_S, color=REQUESTS, label="Ciw, request by request")
    fluid = [Estimate(*(value / TASK_SERVICE_S for value in row.fluid)) for row in partings]
    axes.plot(steps, [value.mean for value in fluid], color=FLUID, linewidth=1, alpha=0.6)
    points(axes, steps, fluid, FLUID, "o", "fluid")
    finish(
        axes,
        f"(d) Workflow: single tasks at ρ = {partings[0].case.load}",
        "step dt [service times of a task], log scale",
        "mean task time [service times of a task], log scale",
    )
    plain_logarithm(axes, axes.xaxis, (0.01, 0.1, 1, 5))
    plain_logarithm(axes, axes.yaxis, (0.5, 1, 2, 5, 10))
    axes.legend(loc="upper left")


def points(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    colour: str | Array,
    marker: str,
    label: str,
) -> None:
    """Means with their intervals."""
    mean, low, high = np.array(estimates).T
    errors = np.maximum(np.nan_to_num([mean - low, high - mean]), 0.0)
    axes.errorbar(x, mean, errors, fmt=marker, color=colour, markersize=7, capsize=3, label=label)


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, axes and grid."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid()


def plain_logarithm(axes: Axes, axis: Axis, ticks: Sequence[float]) -> None:
    """Make one of the axes logarithmic, with these ticks in plain numbers."""
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
