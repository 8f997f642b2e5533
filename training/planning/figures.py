"""Figures of a plan for its page, made of its JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.io import to_html

from training.planning.record import Record, chosen
from training.reporting.figure_style import AGENT_COLOURS, POLICY_COLOURS, policy_style, spans_decades

INK = "#1f2933"
SYMBOLS = {
    "o": ("circle", "●"),
    "s": ("square", "■"),
    "D": ("diamond", "◆"),
    "^": ("triangle-up", "▲"),
    "v": ("triangle-down", "▼"),
    "P": ("cross", "✚"),
    "X": ("x", "✖"),
    "*": ("star", "★"),
    "<": ("triangle-left", "◀"),
    ">": ("triangle-right", "▶"),
}
"""Plotly's names of the markers, and letters like them."""


class Style(NamedTuple):
    """How an allocator is drawn."""

    letter: str  # like its marker, for legends
    colour: str
    trace: dict[str, Any]  # Plotly's name, mode, line and marker


MOST_AGENTS = 8
"""Agents that have a colour of their own in the figure of a day."""


def styles_of(record: Record) -> dict[str, Style]:
    """How each allocator is drawn, by its label."""
    styles: dict[str, Style] = {}
    for rank, each in enumerate(record["allocators"]):
        colour, marker = policy_style(rank)
        symbol, letter = SYMBOLS[marker]
        dash = "solid" if rank < len(POLICY_COLOURS) else "dot"
        line = {"color": colour, "width": 1.5, "dash": dash}
        trace = {"name": each["label"], "line": line, "marker": {"symbol": symbol, "size": 8}}
        styles[each["label"]] = Style(letter, colour, {**trace, "mode": "lines+markers"})
    return styles


def figure(height: int, x: str, y: str) -> go.Figure:
    """An empty figure in the page's style, with names of its axes."""
    made = go.Figure()
    made.update_layout(
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        showlegend=False,
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        hovermode="closest",
    )
    made.update_xaxes(title=x, title_standoff=8, showline=True, linecolor="#9aa5b1", automargin=True)
    made.update_yaxes(title=y, title_standoff=6, showline=True, linecolor="#9aa5b1", automargin=True)
    return made


def figure_html(name: str, made: go.Figure) -> Markup:
    """The figure as a part of the page."""
    config = {"responsive": True, "displayModeBar": False}
    return Markup(to_html(made, config=config, include_plotlyjs=False, full_html=False, div_id=name))


def attainment_figure(record: Record, styles: Mapping[str, Style]) -> Markup:
    """Fraction of the requests in time against GPUs, a line for each allocator, and the one asked for."""
    made = figure(380, "GPUs", "requests within their objective [%]")
    for each in record["allocators"]:
        sizes = each["sizes"]
        means = np.array([100 * size["attainment"]["mean"] for size in sizes])
        bounds = np.array([size["attainment"]["ci95"] for size in sizes], dtype=float) * 100
        low, high = np.where(np.isnan(bounds.T), means, bounds.T)
        made.add_scatter(
            x=[size["gpus"] for size in sizes],
            y=means.tolist(),
            error_y={
                "array": (high - means).tolist(),
                "arrayminus": (means - low).tolist(),
                "thickness": 1,
                "width": 2,
            },
            **styles[each["label"]].trace,
            hovertemplate="%{x:g} GPUs: %{y:.1f} %<extra>" + each["label"] + "</extra>",
        )
    made.add_hline(y=100 * record["objective"]["attainment"], line={"color": INK, "dash": "dash", "width": 1})
    ring(made, record["choice"]["gpus"], 100 * chosen(record)["attainment"]["mean"], "taken")
    counts = [size["gpus"] for size in record["allocators"][0]["sizes"]]
    made.update_xaxes(tickvals=counts)
    return figure_html("attainment", made)


def cost_figure(record: Record, styles: Mapping[str, Style]) -> Markup:
    """Latency against the bill, a line for each allocator through its platforms, and the knee."""
    made = figure(380, "billed for shares held [$ an hour]", "latency p95 [s]")
    all_sizes = [size for each in record["allocators"] for size in each["sizes"]]
    latencies = np.array([size["metrics"]["latency_p95_s"]["mean"] for size in all_sizes], dtype=float)
    logarithmic = spans_decades(latencies)
    for each in record["allocators"]:
        sizes = each["sizes"]
        made.add_scatter(
            x=[size["usd_per_hour"]["mean"] for size in sizes],
            y=[size["metrics"]["latency_p95_s"]["mean"] for size in sizes],
            customdata=[size["gpus"] for size in sizes],
            **styles[each["label"]].trace,
            hovertemplate="%{customdata:g} GPUs: $%{x:.2f} an hour, p95 %{y:.3g} s<extra>"
            + each["label"]
            + "</extra>",
        )
    own = next(each for each in record["allocators"] if each["policy"] == record["choice"]["policy"])
    at = {size["gpus"]: size for size in own["sizes"]}
    places = {record["choice"]["gpus"]: "taken"}
    if own["knee_gpus"] is not None:
        same = own["knee_gpus"] in places
        places[own["knee_gpus"]] = "taken, the knee" if same else "knee"
    for count, text in places.items():
        size = at[count]
        y = size["metrics"]["latency_p95_s"]["mean"]
        if y is not None and y > 0:
            ring(made, size["usd_per_hour"]["mean"], y, f"{text}: {count:g} GPU", logarithmic=logarithmic)
    if logarithmic:
        made.update_yaxes(type="log", dtick="D2", tickformat="~g")
    else:
        made.update_yaxes(rangemode="tozero")
    made.update_xaxes(rangemode="tozero")
    return figure_html("curve", made)


def ring(made: go.Figure, x: float, y: float, text: str, *, logarithmic: bool = False) -> None:
    """Mark a point with a ring and a word."""
    made.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"symbol": "circle-open", "size": 18, "color": INK, "line": {"width": 2}},
        hoverinfo="skip",
        cliponaxis=False,
    )
    made.add_annotation(
        x=x,
        y=np.log10(y) if logarithmic else y,
        text=f"<b>{text}</b>",
        ax=0,
        ay=34,
        arrowcolor=INK,
        bgcolor="rgba(255,255,255,0.85)",
        standoff=9,
    )


def agent_colours(shares: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Colours of the agents that hold most, in their own order, and of all others together."""
    largest = sorted(shares, key=lambda name: -sum(shares[name]))[:MOST_AGENTS]
    names = [name for name in shares if name in largest]
    colours = colormaps[AGENT_COLOURS](np.linspace(0.05, 0.95, len(names)))
    others = {} if len(shares) <= MOST_AGENTS else {"others": "#c4c4c4"}
    return {**{name: to_hex(colour) for name, colour in zip(names, colours, strict=True)}, **others}


def day_figure(day: Record) -> Markup:
    """Shares of the agents over the day, stacked, above the requests that came."""
    hours = np.array(day["start_s"]) / (3600 if day["span_s"] > 7200 else 60)
    unit = "hours" if day["span_s"] > 7200 else "minutes"
    made = figure(460, f"{unit} since the log's first request", "share [GPU]")
    shares = day["share_gpus"]
    colours = agent_colours(shares)
    rest = [values for name, values in shares.items() if name not in colours]
    for name, colour in colours.items():
        values = shares[name] if name in shares else np.sum(rest, axis=0).tolist()
        made.add_scatter(
            x=hours.tolist(),
            y=values,
            name=name,
            stackgroup="share",
            mode="lines",
            line={"width": 0, "shape": "hv"},
            fillcolor=colour,
            hovertemplate=f"%{{y:.2f}} GPU<extra>{name}</extra>",
        )
    made.add_scatter(
        x=hours.tolist(),
        y=day["requests_rps"],
        yaxis="y2",
        line={"width": 1, "color": INK, "shape": "hv"},
        hovertemplate="%{y:.3g} arrivals/s<extra></extra>",
    )
    made.update_layout(
        hovermode="x unified",
        yaxis={"domain": [0.38, 1]},
        yaxis2={"domain": [0, 0.28], "title": "arrivals/s", "rangemode": "tozero", "showline": True},
        xaxis={"anchor": "y2"},
    )
    return figure_html("day", made)
