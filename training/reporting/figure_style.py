"""Looks of the figures: colours and markers of policies, and axes that say what they mean."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import Evaluation

# Okabe and Ito's colours, and a marker beside each: policies stay apart in greyscale too.
POLICY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
POLICY_MARKERS = "osD^vPX*"
PAPER_POLICIES: tuple[str, ...] = ("static", "round-robin", "adaptive")
AGENT_COLOURS = "cividis"
OTHER_COLOUR = "#DDDDDD"
LOG_RATIO = 8.0
"""Values further apart than this are drawn on a logarithmic axis."""

STYLE: dict[Any, Any] = {
    # A name like cost_$5_vs_$6 is no formula.
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.05,
}


def attempted(
    draw: Callable[..., None], path: Path, *arguments: Any, warn: Callable[[str], object]
) -> Path | None:
    """Draw a figure; one that fails costs a warning, not the numbers that it would have shown.

    Returns:
        The path, or None where there is no figure.
    """
    try:
        draw(path, *arguments)
    except Exception as error:  # whatever a plotting library may stumble over
        path.unlink(missing_ok=True)
        warn(f"warning: without {path.name}, which could not be drawn: {error or type(error).__name__}")
        return None
    return path


def policy_styles(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Colour and marker of each policy; the paper's three look the same in every comparison."""
    styles = list(zip(POLICY_COLOURS, POLICY_MARKERS, strict=True))
    fixed = dict(zip(PAPER_POLICIES, styles, strict=False))
    present = {fixed[evaluation.policy] for evaluation in evaluations if evaluation.policy in fixed}
    free = cycle(style for style in (*styles[len(fixed) :], *fixed.values()) if style not in present)
    return [fixed.get(evaluation.policy) or next(free) for evaluation in evaluations]


def policy_handles(evaluations: Sequence[Evaluation]) -> list[Line2D]:
    """Entries of the legend that all panels share."""
    handles: list[Line2D] = []
    for evaluation, (colour, marker) in zip(evaluations, policy_styles(evaluations), strict=True):
        handles.append(
            Line2D([], [], color=colour, marker=marker, markersize=10, linestyle="", label=evaluation.label)
        )
    return handles


def spans_decades(values: Array) -> bool:
    """Whether positive values lie too far apart for a linear axis."""
    positive = values[values > 0]
    return positive.size > 1 and bool(positive.max() / positive.min() > LOG_RATIO)


def scale_latency(axes: Axes, logarithmic: bool) -> None:
    """Label the latency axis, in plain numbers also where it is logarithmic."""
    axes.set_ylabel("mean time in the system [s]" + (", log scale" if logarithmic else ""))
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")


def widen(axes: Axes, logarithmic: bool) -> None:
    """Make each linear axis span at least a quarter of its values: a tie should look like one."""
    for get, set_limits in ((axes.get_xlim, axes.set_xlim), (axes.get_ylim, axes.set_ylim)):
        low, high = get()
        if logarithmic and get == axes.get_ylim:
            continue
        middle = (low + high) / 2
        half = max((high - low) / 2, 0.125 * abs(middle))
        set_limits(middle - half, middle + half)


def label_points(axes: Axes, evaluations: Sequence[Evaluation], points: list[tuple[float, float]]) -> None:
    """Name the points in a column on the right, in their order from below, so that no names meet.

    A policy that served nothing has no point.
    """
    shown = [k for k, point in enumerate(points) if not np.isnan(point).any()]
    if not shown:
        return
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.4 * (right - left))
    fractions = axes.transAxes.inverted().transform(axes.transData.transform([points[k] for k in shown]))
    order = np.argsort(fractions[:, 1], kind="stable")
    line = 0.06  # of the axes' height
    heights = np.clip(fractions[order, 1], 0, 0.97 - line * np.arange(len(order))[::-1])
    for position in range(1, len(heights)):
        heights[position] = max(heights[position], heights[position - 1] + line)
    styles = policy_styles(evaluations)
    for position, height in zip(order, heights, strict=True):
        k = shown[position]
        axes.annotate(
            evaluations[k].label,
            (fractions[position, 0], fractions[position, 1]),
            (0.76, height),
            xycoords="axes fraction",
            va="center",
            color=styles[k][0],
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "linestyle": ":", "color": "#AAAAAA", "shrinkB": 6},
        )
