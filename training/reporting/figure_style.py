"""Looks of the figures: one style, and places on a page in inches."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gpualloc_env.simulation.state import Array

# TensorBoard gives its runs these colours, in this order. In a figure every policy has its name and a marker
# of its own besides, so that nothing hangs on telling colours apart.
POLICY_COLOURS = ("#425066", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a")
POLICY_MARKERS = "osD^vPX*<>"
AGENT_COLOURS = "cividis"
OTHER_COLOUR = "#DDDDDD"
LOG_RATIO = 8.0
"""Values further apart than this are drawn on a logarithmic axis."""

STYLE: dict[Any, Any] = {
    # A name like cost_$5_vs_$6 is no formula.
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
}
PIXELS_PER_INCH = 160


def check_figure(out: Path) -> None:
    """Refuse a figure that could not be written, before anything is played."""
    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix[1:].lower() not in known:
        raise ValueError(
            f"--out {out} must be a figure's name, such as figure.png; its end one of {', '.join(known)}"
        )
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, and as SVG beside it."""
    figure.savefig(path, dpi=PIXELS_PER_INCH)
    # The same figure is the same file.
    with rc_context({"svg.hashsalt": "gpualloc"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


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
        path.with_suffix(".svg").unlink(missing_ok=True)
        warn(f"warning: without {path.name}, which could not be drawn: {error or type(error).__name__}")
        return None
    return path


def policy_style(rank: int) -> tuple[str, str]:
    """Colour and marker of the policy of a rank, 0 for the best."""
    return POLICY_COLOURS[rank % len(POLICY_COLOURS)], POLICY_MARKERS[rank % len(POLICY_MARKERS)]


@dataclass(frozen=True)
class Page:
    """A figure on which axes are placed in inches from the top left."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def of(cls, width: float, height: float) -> "Page":
        """An empty page."""
        return cls(Figure(figsize=(width, height)), width, height)

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Axes at a place."""
        place = (left, self.height - top - height, width, height)
        scale = (self.width, self.height) * 2
        return self.figure.add_axes(tuple(np.divide(place, scale)), **options)

    def text(self, left: float, top: float, text: str, **options: Any) -> None:
        """A text whose top left corner is at a place."""
        place = (left / self.width, 1 - top / self.height)
        self.figure.text(*place, text, **{"va": "top", **options})


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters, its middle left out where it has more."""
    if len(text) <= letters:
        return text
    end = max(letters, 3) // 2
    return f"{text[: max(letters, 3) - end - 1]}…{text[-end:]}"


def spans_decades(values: Array) -> bool:
    """Whether positive values lie too far apart for a linear axis."""
    positive = values[values > 0]
    return positive.size > 1 and bool(positive.max() / positive.min() > LOG_RATIO)


def few_ticks(low: float, high: float, logarithmic: bool, count: int = 3) -> list[float]:
    """Round values for the ticks of an axis, at most so many."""
    if not logarithmic:
        ticks = MaxNLocator(count - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in ticks if low <= tick <= high]
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 2:
            break
    return ticks[:: -(-len(ticks) // count)] if ticks else []


def spread(heights: Array, apart: float, most: float) -> Array:
    """Move heights, in increasing order, so that neighbours are so far apart and none is above `most`."""
    moved = np.clip(heights, 0, most - apart * np.arange(len(heights))[::-1])
    for position in range(1, len(moved)):
        moved[position] = max(moved[position], moved[position - 1] + apart)
    return moved
