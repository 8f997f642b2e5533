"""The objective of every policy on every scenario as one picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from training.figure_style import STYLE
from training.report import Summary

COLOURS = "viridis_r"


def draw_heatmap(path: Path, summaries: Mapping[str, Summary]) -> None:
    """Draw J by scenario and policy as PNG, coloured by how far it lies above the best of its row."""
    names = list(dict.fromkeys(name for each in summaries.values() for name in each["policies"]))
    objective = np.array(
        [
            [
                each["policies"][name]["objective"]["mean"] if name in each["policies"] else np.nan
                for name in names
            ]
            for each in summaries.values()
        ]
    )
    best = np.nanmin(objective, axis=1, keepdims=True)
    excess = objective - best
    # 0 at the best of the row, ½ at twice its J, 1 far away: a tie looks like one in every row.
    shade = np.divide(excess, excess + abs(best), out=np.zeros_like(objective), where=excess != 0)
    with rc_context(STYLE):
        figure = Figure(figsize=(3 + 1.25 * len(names), 1.6 + 0.45 * len(summaries)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shade, cmap=colormaps[COLOURS], vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 6 else 30)
        axes.set_yticks(range(len(summaries)), list(summaries))
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        for (row, column), value in np.ndenumerate(objective):
            if np.isnan(value):
                axes.text(column, row, "does not fit", ha="center", va="center", color="grey")
                continue
            weight = "bold" if value == best[row, 0] else "normal"
            colour = "white" if shade[row, column] > 0.5 else "black"
            text = np.format_float_positional(value, precision=3, fractional=False, trim="-")
            axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight)
        axes.set_title("Objective J, lower is better; best of each scenario in bold")
        bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 0.9], fraction=0.04, pad=0.02)
        bar.ax.set_yticklabels(["best of its row", "twice the best", "ten times"])
        figure.savefig(path, dpi=130)
