"""The page of a plan, made of its JSON alone: one file of HTML that needs no network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from training.planning.caveats import duration
from training.planning.figures import agent_colours, attainment_figure, cost_figure, day_figure, styles_of
from training.planning.record import Record, chosen
from training.reporting.measures import Measure


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
    return environment.get_template("plan.html").render(
        **record,
        headline=headline(record),
        rows=rows,
        needs=needs(record),
        measures=shown,
        legend=[(name, style.colour, style.letter) for name, style in styles.items()],
        agents=agent_colours(record["day"]["share_gpus"]),
        attainment=attainment_figure(record, styles),
        curve=cost_figure(record, styles),
        day_figure=day_figure(record["day"]),
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
        f"Rented whole: ${point['usd_per_hour_of_all_gpus']:.2f} an hour."
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
        (True, False): "The difference in the bills may be chance.",
        (False, True): "The difference in requests in time may be chance.",
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
    mean, low, high = (
        None if value is None else f"{float(f'{scale * value:.2g}'):+g}"
        for value in (estimate["mean"], *estimate["ci95"])
    )
    return f"{mean} {unit}" if low is None else f"{mean} [{low}, {high}] {unit}"


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
