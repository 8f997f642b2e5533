"""The page of a plan, made of its JSON alone: one file of HTML that needs no network."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from training.planning.caveats import duration
from training.reporting.figure_style import AGENT_COLOURS, POLICY_COLOURS, policy_style
from training.reporting.measures import Measure

Record = Mapping[str, Any]
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
    line: dict[str, Any]
    marker: dict[str, Any]


MOST_AGENTS = 8
"""Agents that have a colour of their own in the figure of a day."""


def page(record: Record, shown: Sequence[Measure]) -> str:
    """The whole page.

    Args:
        record: of the plan.
        shown: what of each allocator stands in the table besides.
    """
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"cell": cell, "duration": duration}
    rows = at_platform(record)
    styles = styles_of(record)
    figures = {
        "attainment": figure_html("attainment", attainment_figure(record, styles)),
        "curve": figure_html("curve", cost_figure(record, styles)),
        "day": figure_html("day", day_figure(record["day"])),
    }
    return environment.get_template("plan.html").render(
        **record,
        headline=headline(record),
        rows=rows,
        needs=needs(record),
        measures=shown,
        legend=[(name, style.line["color"], style.letter) for name, style in styles.items()],
        agents=agent_colours(record["day"]["share_gpus"]),
        figures=figures,
        plotly=Markup(get_plotlyjs()),
    )


def headline(record: Record) -> list[str]:
    """The answer in one sentence, and in the next ones what it rests on."""
    choice, asked = record["choice"], record["objective"]["attainment"]
    point = chosen(record)
    most = max(each["gpus"] for each in record["allocators"][0]["sizes"])
    held = (
        f"{percent(point['attainment'])} of all requests are within their objective; it holds "
        f"{point['gpus_held']:.2f} GPUs in the mean, for ${interval(point['usd_per_hour'])} an hour. "
        f"All of {gpus(choice['gpus'])} would be ${point['usd_per_hour_of_all_gpus']:.2f} an hour."
    )
    if choice["meets"]:
        first = f"Take {choice['label']} on {gpus(choice['gpus'])}."
    else:
        first = f"No allocator has {100 * asked:.4g} % of all requests in time on up to {gpus(most)}."
        held = f"The nearest is {choice['label']} on {gpus(choice['gpus'])}. {held}"
    said = [first, held]
    if choice["next_best"]:
        said.append(compared(record))
    if choice["bargain"]:
        said.append(bargain(choice["bargain"]))
    return said


def bargain(other: Record) -> str:
    """The allocator that may do for much less."""
    return (
        f"Where only shares held are billed, {other['label']} on {gpus(other['gpus'])} may do: "
        f"{percent(other['attainment'])} in time, ${interval(other['usd_per_hour'])} an hour."
    )


def compared(record: Record) -> str:
    """How the chosen allocator differs from the next best on as many GPUs."""
    choice = record["choice"]
    other = choice["next_best"]
    within, bill = other["attainment_difference"], other["usd_per_hour_difference"]
    verdicts = {
        (True, True): "Both differences are more than chance.",
        (True, False): "That of the bills may be chance.",
        (False, True): "That of the requests in time may be chance.",
        (False, False): "Both differences may be chance.",
    }
    return (
        f"Against {other['label']}, the next best on {gpus(choice['gpus'])}: {signed(within, 100, 'points')} "
        f"of requests in time, {signed(bill, 1, '$ an hour')}. {verdicts[apart(within), apart(bill)]}"
    )


def apart(estimate: Record) -> bool:
    """Whether an interval leaves out zero."""
    low, high = estimate["ci95"]
    return low is not None and (low > 0 or high < 0)


def signed(estimate: Record, scale: float, unit: str) -> str:
    """A difference with its sign, its interval and its unit."""
    low, high = estimate["ci95"]
    mean = f"{scale * estimate['mean']:+.2g}"
    return f"{mean} {unit}" if low is None else f"{mean} [{scale * low:+.2g}, {scale * high:+.2g}] {unit}"


def interval(estimate: Record, scale: float = 1, form: str = "{:.2f}") -> str:
    """A mean and its interval."""
    if estimate["mean"] is None:
        return "–"
    mean, (low, high) = form.format(scale * estimate["mean"]), estimate["ci95"]
    if low is None or low == high:
        return mean
    return f"{mean} [{form.format(scale * low)}, {form.format(scale * high)}]"


def cell(estimate: Record, scale: float = 1, form: str = "{:.2f}") -> Markup:
    """A mean, and its interval small below it."""
    mean, bracket, bounds = interval(estimate, scale, form).partition(" [")
    return Markup("{}<small>[{}</small>").format(mean, bounds) if bracket else Markup.escape(mean)


def percent(estimate: Record) -> str:
    """A fraction and its interval in per cent."""
    mean, bracket, bounds = interval(estimate, 100, "{:.1f}").partition(" [")
    return f"{mean} %{bracket}{bounds}"


def gpus(count: float) -> str:
    """So many GPUs, in words."""
    return f"{count:g} GPU" if count == 1 else f"{count:g} GPUs"


def chosen(record: Record) -> Record:
    """What the allocator to take gives on its platform."""
    choice = record["choice"]
    sizes = next(each["sizes"] for each in record["allocators"] if each["policy"] == choice["policy"])
    return next(each for each in sizes if each["gpus"] == choice["gpus"])


def at_platform(record: Record) -> list[Record]:
    """What each allocator gives on the platform asked for, the best first."""
    asked = record["platform"]["gpus"]
    rows = [
        {**each, **size} for each in record["allocators"] for size in each["sizes"] if size["gpus"] == asked
    ]
    return sorted(rows, key=merit)


def merit(size: Record) -> tuple[bool, float]:
    """Key by which allocators on as many GPUs are listed: those that meet the objective by their bill."""
    return not size["meets"], size["usd_per_hour"]["mean"] if size["meets"] else -size["attainment"]["mean"]


def needs(record: Record) -> list[Record]:
    """Each allocator on the fewest GPUs that meet the objective, or on the most; the least first."""
    rows: list[Record] = []
    for each in record["allocators"]:
        size = next((size for size in each["sizes"] if size["meets"]), each["sizes"][-1])
        rows.append({**each, "at": size})
    return sorted(rows, key=lambda row: (row["gpus_needed"] or np.inf, *merit(row["at"])))


def styles_of(record: Record) -> dict[str, Style]:
    """How each allocator is drawn, by its label."""
    styles: dict[str, Style] = {}
    for rank, each in enumerate(record["allocators"]):
        colour, marker = policy_style(rank)
        symbol, letter = SYMBOLS[marker]
        dash = "solid" if rank < len(POLICY_COLOURS) else "dot"
        styles[each["label"]] = Style(
            letter, {"color": colour, "width": 1.5, "dash": dash}, {"symbol": symbol, "size": 8}
        )
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


def attainment_figure(record: Record, styles: Mapping[str, Style]) -> go.Figure:
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
            name=each["label"],
            mode="lines+markers",
            line=styles[each["label"]].line,
            marker=styles[each["label"]].marker,
            hovertemplate="%{x:g} GPUs: %{y:.1f} %<extra>" + each["label"] + "</extra>",
        )
    made.add_hline(y=100 * record["objective"]["attainment"], line={"color": INK, "dash": "dash", "width": 1})
    ring(made, record["choice"]["gpus"], 100 * chosen(record)["attainment"]["mean"], "taken")
    counts = [size["gpus"] for size in record["allocators"][0]["sizes"]]
    made.update_xaxes(tickvals=counts)
    return made


def cost_figure(record: Record, styles: Mapping[str, Style]) -> go.Figure:
    """Latency against the bill, a line for each allocator through its platforms, and the knee."""
    made = figure(380, "billed for shares held [$ an hour]", "latency p95 [s]")
    for each in record["allocators"]:
        sizes = each["sizes"]
        made.add_scatter(
            x=[size["usd_per_hour"]["mean"] for size in sizes],
            y=[size["metrics"]["latency_p95_s"]["mean"] for size in sizes],
            customdata=[size["gpus"] for size in sizes],
            name=each["label"],
            mode="lines+markers",
            line=styles[each["label"]].line,
            marker=styles[each["label"]].marker,
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
            ring(made, size["usd_per_hour"]["mean"], y, f"{text}: {gpus(count)}", logarithmic=True)
    made.update_yaxes(type="log", dtick="D2", tickformat="~g")
    made.update_xaxes(rangemode="tozero")
    return made


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


def day_figure(day: Record) -> go.Figure:
    """Shares of the agents over the day, stacked, above the requests that came."""
    hours = np.array(day["start_s"]) / (3600 if day["span_s"] > 7200 else 60)
    unit = "hours" if day["span_s"] > 7200 else "minutes"
    made = figure(460, f"{unit} since the log's first request", "share [GPU]")
    shares = day["share_gpus"]
    colours = agent_colours(shares)
    rest = [values for name, values in shares.items() if name not in colours]
    for name, colour in colours.items():
        values: Iterable[float] = shares[name] if name in shares else np.sum(rest, axis=0).tolist()
        made.add_scatter(
            x=hours.tolist(),
            y=list(values),
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
        hovertemplate="%{y:.3g} calls/s<extra>arrivals</extra>",
    )
    made.update_layout(
        hovermode="x unified",
        yaxis={"domain": [0.38, 1]},
        yaxis2={"domain": [0, 0.28], "title": "calls/s", "rangemode": "tozero", "showline": True},
        xaxis={"anchor": "y2"},
    )
    return made
