"""A number for every scenario and policy as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from gpualloc_env.simulation.state import AnyArray, Array
from training.reporting.figure_style import STYLE
from training.reporting.report import Summary

COLOURS = "viridis_r"


def draw_heatmap(path: Path, summaries: Mapping[str, Summary]) -> None:
    """Draw J by scenario and policy as PNG, coloured by how far it lies above the best of its row."""
    names = list(dict.fromkeys(name for each in summaries.values() for name in each["policies"]))
    missing = {"objective": {"mean": np.nan}}
    results = [[each["policies"].get(name, missing) for name in names] for each in summaries.values()]
    objective = np.array(
        [[result["objective"]["mean"] for result in row] for row in results], dtype=np.float64
    )
    best = np.nanmin(np.where(np.isnan(objective), np.inf, objective), axis=1, keepdims=True)
    excess = objective - best
    # 0 at the best of the row, ½ at twice its J, 1 far away: a tie looks like one in every row.
    shade = np.divide(excess, excess + abs(best), out=np.zeros_like(objective), where=excess > 0)
    shade[np.isnan(objective)] = np.nan
    texts = [
        ["does not fit" if np.isnan(value) else _short(value) for value in row] for row in objective.tolist()
    ]
    draw_table(
        path,
        list(summaries),
        names,
        shade,
        texts,
        bold=objective == best,
        title="Objective J, lower is better; best of each scenario in bold",
        ticks={0.0: "best of its row", 0.5: "twice the best", 0.9: "ten times"},
    )


MOST_LETTERS = 11  # of a column's name that stands upright


def _short(value: float) -> str:
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def draw_table(
    path: Path,
    rows: Sequence[str],
    columns: Sequence[str],
    shade: Array,
    texts: Sequence[Sequence[str]],
    *,
    bold: AnyArray,
    title: str,
    ticks: Mapping[float, str],
) -> None:
    """Draw a coloured table as PNG.

    Args:
        path: where to write.
        rows: their names.
        columns: their names.
        shade: colour of each cell from 0, light, to 1, dark; NaN for none.
        texts: what stands in each cell.
        bold: whether it is bold.
        title: of the figure.
        ticks: what shades mean, for the colour bar.
    """
    with rc_context(STYLE):
        size = (max(8, 3 + 1.25 * len(columns)), 2.6 + 0.45 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shade, cmap=colormaps[COLOURS], vmin=0, vmax=1, aspect="auto")
        fits = max(len(name) for name in columns) <= MOST_LETTERS
        turn = {} if fits else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(columns)), columns, **turn)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        for row, column in np.ndindex(shade.shape):
            dark = shade[row, column]
            colour = "grey" if np.isnan(dark) else ("white" if dark > 0.5 else "black")
            weight = "bold" if bold[row, column] else "normal"
            axes.text(
                column, row, str(texts[row][column]), ha="center", va="center", color=colour, weight=weight
            )
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, ticks=list(ticks), fraction=0.04, pad=0.02)
        bar.ax.set_yticklabels(list(ticks.values()))
        figure.savefig(path, dpi=130)
