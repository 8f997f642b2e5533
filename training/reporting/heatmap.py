"""A number for every scenario and policy as one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context

from gpualloc_env.simulation.state import AnyArray, Array
from training.reporting.figure_style import STYLE, Page, save
from training.reporting.report import Summary, by_label

COLOURS = "viridis_r"


def draw_heatmap(path: Path, summaries: Mapping[str, Summary]) -> None:
    """Draw J by policy and scenario, coloured by how far it lies above the best of its column."""
    played = {scenario: by_label(each) for scenario, each in summaries.items()}
    names = list(dict.fromkeys(name for each in played.values() for name in each))
    objective = np.array(
        [[each[name]["mean"] if name in each else np.nan for each in played.values()] for name in names]
    )
    best = np.nanmin(np.where(np.isnan(objective), np.inf, objective), axis=0)
    excess = objective - best
    # 0 at the best of the column, ½ at twice its J, 1 far away: a tie looks like one in every column.
    shade = np.divide(excess, excess + abs(best), out=np.zeros_like(objective), where=excess > 0)
    shade[np.isnan(objective)] = np.nan
    texts = [["" if np.isnan(value) else _short(value) for value in row] for row in objective.tolist()]
    ticks = {0.0: "best of its column", 0.5: "twice the best", 0.9: "ten times"}
    title = "J by policy and scenario, lower is better; best of each scenario in bold"
    draw_table(path, Cells(names, list(played), shade, texts, objective == best), title, ticks)


def _short(value: float) -> str:
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


@dataclass(frozen=True)
class Cells:
    """A coloured table."""

    rows: Sequence[str]
    columns: Sequence[str]
    shade: Array
    """Colour of each cell from 0, light, to 1, dark; NaN for none."""
    texts: Sequence[Sequence[str]]
    bold: AnyArray


def draw_table(path: Path, cells: Cells, title: str, ticks: Mapping[float, str]) -> None:
    """Draw a coloured table as PNG and SVG, with what its shades mean."""
    left = 0.3 + 0.073 * max(len(name) for name in cells.rows)
    top = 0.55 + 0.037 * max(len(name) for name in cells.columns)
    with rc_context(STYLE):
        page = Page.of(10.0, top + 0.24 * len(cells.rows) + 0.6)
        page.text(0.1, 0.08, title, fontsize=11, fontweight="bold")
        axes = page.axes(left, top, 9.8 - left, 0.24 * len(cells.rows))
        image = axes.imshow(cells.shade, cmap=colormaps[COLOURS], vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(
            range(len(cells.columns)), cells.columns, rotation=30, ha="left", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(cells.rows)), cells.rows)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        for row, column in np.ndindex(cells.shade.shape):
            weight = "bold" if cells.bold[row, column] else "normal"
            colour = "white" if cells.shade[row, column] > 0.5 else "black"
            text = str(cells.texts[row][column])
            axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight, fontsize=8)
        bar = page.axes(left, page.height - 0.4, 3.5, 0.12)
        page.figure.colorbar(image, cax=bar, orientation="horizontal", ticks=list(ticks))
        bar.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
        save(page.figure, path)
