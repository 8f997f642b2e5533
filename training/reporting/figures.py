"""The figure of a comparison: who is best, by how much, at whose expense, and what each does over time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from training.evaluation.evaluate import Evaluation
from training.evaluation.held_out import episodes_called
from training.evaluation.statistics import Estimate, interval
from training.reporting.figure_style import (
    AGENT_COLOURS,
    OTHER_COLOUR,
    STYLE,
    Page,
    few_ticks,
    policy_style,
    save,
    shortened,
    spans_decades,
    spread,
)
from training.reporting.measures import COST, headline_latency, measures
from training.reporting.report import (
    estimate_cell,
    objective,
    paired,
    ranked,
    ranks,
    references,
    verdict_lines,
)

WIDTH, ROW, GAP, HEAD = 10.0, 0.2, 0.22, 0.42  # [inch]
LETTER = 0.073  # of a name [inch]
# TensorBoard shows the picture of a card some 440 pixels wide and 200 high.
CARD_WIDTH, CARD_ROW, LINE = 4.4, 0.155, 0.14  # [inch]
CARD_LETTERS, CARD_NAME, MOST_ON_CARD = 72, 24, 6
MOST_LETTERS = 40
MOST_GROUPS = 8
"""Agents beside each other; more are put together by kind."""
SHOWN_STEPS = 120
"""More would leave a policy that moves at every step less than a few pixels a step."""


@dataclass(frozen=True)
class Panel:
    """One quantity of every policy, in a row of panels that share the policies' names."""

    title: str
    estimates: list[Estimate]
    signed: bool = False
    """A difference, with a line at zero."""
    bound: float = np.nan
    """What none can undercut: a dotted line."""


def draw(path: Path, evaluations: Sequence[Evaluation], seed: int, chosen: str | None = None) -> None:
    """Draw a comparison as PNG and SVG; arguments as in `comparison`."""
    save(comparison(evaluations, seed, chosen), path)


def comparison(evaluations: Sequence[Evaluation], seed: int, chosen: str | None = None) -> Figure:
    """J and paired differences; latency by agent; latency against cost; shares over time.

    Args:
        evaluations: one for each policy.
        seed: of the first episode.
        chosen: the policy from which differences are drawn; by default the best baseline.
    """
    order = ranked(evaluations)
    rows = ROW * len(order)
    tall = max(2.3, 0.18 * len(order) + 0.5)
    strip = 0.3
    heights = (0.4, HEAD + rows + 0.4, HEAD + 0.1 + rows + 0.4, 0.65 + tall, 0.9 + strip * (1 + len(order)))
    tops = np.cumsum((0.05, *heights))
    with rc_context(STYLE):
        page = Page.of(WIDTH, float(tops[-1]) + 0.1)
        page.text(0.1, 0.08, title(order, seed), fontsize=12, fontweight="bold")
        panel_row(page, tops[1], order, decisive(order, chosen))
        page.text(0.1, tops[2], "Mean latency [s] by agent", fontweight="bold")
        panel_row(page, tops[2] + 0.1, order, by_agent(order))
        page.text(0.1, tops[3], "Latency against cost; dashed: nobody is better in both", fontweight="bold")
        left = names_width(order)
        latency_against_cost(page.axes(left, tops[3] + 0.38, WIDTH - left - 0.2, tall - 0.27), order)
        shares_over_time(page, tops[4], order, seed, strip)
        return page.figure


def on_card(order: Sequence[Evaluation]) -> Sequence[Evaluation]:
    """The policies on a card of TensorBoard, which is as low as a few lines: the best ones."""
    return order[:MOST_ON_CARD]


def result_card(order: Sequence[Evaluation], chosen: str | None, said: Sequence[str]) -> Figure:
    """J, differences from the reference and what follows from them, on a card of TensorBoard.

    Args:
        order: the policies, the best first.
        chosen: as in `comparison`.
        said: more sentences.
    """
    lines = [part for line in (*verdict_lines(order, chosen), *said) for part in wrap(line, CARD_LETTERS)]
    shown, reference = on_card(order), references(order, chosen)[0]
    apart = paired(order, reference)
    foot = 0.3 + CARD_ROW * len(shown) + 0.28
    with rc_context({**STYLE, "font.size": 8}):
        page = Page.of(CARD_WIDTH, foot + LINE * len(lines))
        left = 0.25 + 0.068 * (4 + min(CARD_NAME, max(len(each.label) for each in shown)))
        write_names(page, 0.3, shown, CARD_ROW, right=left, letters=CARD_NAME)
        page.text(left + 0.15, 0.05, "J [95 %]", fontweight="bold")
        for k, each in enumerate(shown):
            page.text(left + 0.15, 0.3 + (k + 0.5) * CARD_ROW, estimate_cell(objective(each)), va="center")
        axes = page.axes(left + 1.55, 0.3, CARD_WIDTH - left - 1.75, CARD_ROW * len(shown))
        forest(axes, Panel("", [apart[each.policy] for each in shown], signed=True))
        head = shortened(f"J − {reference.label}", 20)
        page.text(CARD_WIDTH - 0.05, 0.05, head, ha="right", fontweight="bold")
        for k, line in enumerate(lines):
            page.text(0.1, foot + LINE * k, line)
        return page.figure


def measures_card(order: Sequence[Evaluation]) -> Figure:
    """What decides besides J, by rank, on a card of TensorBoard."""
    shown = on_card(order)
    panels = [
        Panel(each.title.replace(" [", "\n["), [each.estimate(policy) for policy in shown])
        for each in measures(order[0].scenario)
        if each.metric not in ("latency_mean_s", "task_latency_mean_s")
    ]
    with rc_context({**STYLE, "font.size": 8}):
        height = CARD_ROW * len(shown) + 0.4
        page = Page.of(CARD_WIDTH, HEAD + height + 0.3)
        width = (CARD_WIDTH - 0.4) / len(panels)
        for k, panel in enumerate(panels):
            axes = page.axes(0.35 + k * width, HEAD, width - GAP, height)
            forest(axes, panel)
            axes.set_title(panel.title, fontsize=8 if len(panels) <= 4 else 7)
        for k in range(len(shown)):
            middle = HEAD + (k + 0.5) * height / len(shown)
            page.text(0.1, middle, str(k + 1), va="center", color=policy_style(k)[0])
        return page.figure


def title(order: Sequence[Evaluation], seed: int) -> str:
    """What was played."""
    scenario, count = order[0].scenario, len(order[0].metrics)
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    what = f"{'one' if count == 1 else count} {episodes_called(scenario, count)}"
    intervals = ", 95 % intervals" if count > 1 else ""
    return f"{scenario.name}: {what} of {scenario.steps * scenario.dt:g} s, {seeds}{intervals}"


def decisive(order: Sequence[Evaluation], chosen: str | None) -> list[Panel]:
    """J, differences from the reference, and what else decides."""
    reference = references(order, chosen)[0]
    apart = paired(order, reference)
    others = [each for each in measures(order[0].scenario) if each.metric != "throughput_rps"]
    bound = order[0].bound
    if bound <= 0 < min(each.objective.mean() for each in order):
        bound = np.nan  # The others may have a logarithmic scale, which has no place for it.
    head = "J\nlower is better" if np.isnan(bound) else f"J, lower is better\ndotted: bound {bound:.3g}"
    return [
        Panel(head, [objective(each) for each in order], bound=bound),
        Panel(f"J − J of\n{reference.label}", [apart[each.policy] for each in order], signed=True),
        *(
            Panel(each.title.replace(" [", "\n["), [each.estimate(policy) for policy in order])
            for each in others[-5:]
        ),
    ]


def groups(scenario: Scenario, work: Array) -> dict[str, AnyArray]:
    """Indices of agents by name; by kind, `nlp` for `nlp-1` to `nlp-16`, where there are many.

    Of many kinds those with the most work, (N,), are kept, and the rest are put together.
    """
    names = scenario.agent_names
    if len(names) <= MOST_GROUPS:
        return {name: np.array([i]) for i, name in enumerate(names)}
    kinds = [re.sub(r"[-_. ]?\d+$", "", name) or name for name in names]
    total = {kind: sum(w for w, each in zip(work, kinds, strict=True) if each == kind) for kind in kinds}
    kept = sorted(total, key=lambda kind: -total[kind])[: MOST_GROUPS if len(total) <= MOST_GROUPS else -1]
    kept = kept[: MOST_GROUPS - 1] if len(total) > MOST_GROUPS else kept
    found = {kind: np.flatnonzero([each == kind for each in kinds]) for kind in total if kind in kept}
    rest = np.flatnonzero([each not in kept for each in kinds])
    return {**found, **({"others": rest} if rest.size else {})}


def grouped(evaluation: Evaluation) -> dict[str, AnyArray]:
    """The groups of a comparison, by the work that was offered in it."""
    steps = evaluation.steps
    return groups(
        evaluation.scenario, requests(evaluation.scenario, steps.mean).sum(axis=0) / steps.throughput
    )


def by_agent(order: Sequence[Evaluation]) -> list[Panel]:
    """Mean latency of each agent or kind of agents, weighted by their requests."""
    names = order[0].scenario.agent_names
    panels: list[Panel] = []
    for name, members in grouped(order[0]).items():
        estimates: list[Estimate] = []
        for each in order:
            values: list[float] = []
            for episode in each.per_agent:
                own = [episode[names[i]] for i in members]
                came = np.array([agent["arrived"] for agent in own])
                latency = np.nan_to_num([agent["latency_mean_s"] for agent in own])
                values.append(float(latency @ came / came.sum()) if came.sum() > 0 else np.nan)
            estimates.append(interval(values, varies=each.scenario.varies))
        panels.append(Panel(name if len(members) == 1 else f"{name} ({len(members)})", estimates))
    return panels


def requests(scenario: Scenario, steps: AnyArray) -> Array:
    """Requests that came to each agent in each of some steps, with all the visits they cause, (T, N)."""
    arrivals, visits = steps["arrivals"], scenario.visits
    return arrivals @ visits.T if visits.size else arrivals


def shown_name(evaluation: Evaluation, letters: int = MOST_LETTERS) -> str:
    """Its name, without the number of seeds where that is too long, and without its middle if need be."""
    name = evaluation.label
    return name if len(name) <= letters else shortened(evaluation.policy, letters)


def names_width(order: Sequence[Evaluation]) -> float:
    """How much the names take at the left of a row [inch]."""
    return 0.35 + LETTER * (4 + max(len(shown_name(each)) for each in order))


def write_names(
    page: Page, top: float, order: Sequence[Evaluation], step: float, *, right: float, letters: int
) -> None:
    """Ranks and names, in the colours of their policies, a line each.

    Args:
        page: where.
        top: of the first line [inch].
        order: the policies, the best first.
        step: between two lines [inch].
        right: where names end [inch].
        letters: that a name may have.
    """
    rank = ranks(order)
    for k, each in enumerate(order):
        colour, _ = policy_style(k)
        middle = top + (k + 0.5) * step
        page.text(0.1, middle, rank[each.policy], va="center", color="#555555")
        weight = "bold" if k == 0 else "normal"
        page.text(
            right, middle, shown_name(each, letters), va="center", ha="right", color=colour, fontweight=weight
        )


def panel_row(page: Page, top: float, order: Sequence[Evaluation], panels: Sequence[Panel]) -> None:
    """The names of the policies, and a panel of each quantity beside each other."""
    left, height = names_width(order), ROW * len(order)
    write_names(page, top + HEAD, order, ROW, right=left - 0.15, letters=MOST_LETTERS)
    weights = np.array([1.4 if panel.title.startswith("J") else 1.0 for panel in panels])
    widths = (page.width - left - 0.15) * weights / weights.sum()
    for place, width, panel in zip(left + np.cumsum(widths) - widths, widths, panels, strict=True):
        axes = page.axes(place, top + HEAD, width - GAP, height)
        forest(axes, panel)
        letters = int((width - 0.05) / 0.072)
        lines = (shortened(line, letters) for line in panel.title.split("\n"))
        axes.set_title("\n".join(lines), fontsize=8)


def forest(axes: Axes, panel: Panel) -> None:
    """An estimate and its interval a policy, the best at the top."""
    means = np.array([value.mean for value in panel.estimates])
    intervals = np.array(panel.estimates)[:, 1:]
    if np.isnan(panel.bound):
        scale(axes, means, intervals, panel.signed)
    else:
        scale(axes, np.append(means, panel.bound), intervals, panel.signed)
        axes.axvline(panel.bound, color="#555555", linewidth=1, linestyle=":")
    for k, value in enumerate(panel.estimates):
        colour, marker = policy_style(k)
        if value.low < value.high:
            axes.plot([value.low, value.high], [k, k], color=colour, linewidth=1.6)
        axes.plot(value.mean, k, marker=marker, color=colour, markersize=5.5, linestyle="", clip_on=False)
        if k % 2:
            axes.axhspan(k - 0.5, k + 0.5, color="#F5F5F5", zorder=0)
    axes.set_ylim(len(means) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def scale(axes: Axes, means: Array, bounds: Array, signed: bool) -> None:
    """Limits and few ticks: logarithmic where positive means span decades, a tie as a tie otherwise."""
    values = np.append(means, bounds)
    values = values[np.isfinite(values)]
    if not values.size:
        values = np.zeros(1)
    sizes = np.abs(means[np.isfinite(means) & (means != 0)])
    low, high = float(values.min()), float(values.max())
    if signed:
        axes.axvline(0, color="#888888", linewidth=1)
        low, high = min(low, 0.0), max(high, 0.0)
    if spans_decades(sizes) and (signed or low > 0 or (means > 0).all()):
        floor = float(sizes.min())
        if signed:
            axes.set_xscale("symlog", linthresh=floor, linscale=0.5)
            ticks = [0.0, *(10.0 ** np.floor(np.log10([high])) if high > 0 else [])]
            ticks += [-(10.0 ** np.floor(np.log10(-low)))] if -low > 10 * floor else []
            margin = 1.6
            axes.set_xlim(low * margin - 0.1 * floor, high * margin + 0.1 * floor)
        else:
            axes.set_xscale("log")
            low = max(low, floor / 4)
            axes.set_xlim(low / 1.3, high * 1.3)
            ticks = few_ticks(low / 1.3, high * 1.3, logarithmic=True)
    else:
        middle = (low + high) / 2
        half = max(0.55 * (high - low), 0.0 if signed else 0.1 * abs(middle)) or 1.0
        axes.set_xlim(middle - half, middle + half)
        ticks = few_ticks(middle - half, middle + half, logarithmic=False)
    ticks = apart(axes, ticks)
    axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axes.minorticks_off()


def apart(axes: Axes, ticks: Sequence[float]) -> list[float]:
    """The ticks whose labels do not meet, nor those of the next panel, those nearest to zero first."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    width = axes.get_position().width * figure.get_figwidth()
    kept: dict[float, tuple[float, float]] = {}
    for tick in sorted(ticks, key=abs):
        place = width * float(axes.transAxes.inverted().transform(axes.transData.transform((tick, 0)))[0])
        half = 0.035 * len(f"{tick:.4g}") + 0.03  # [inch]
        inside = place - half >= -GAP / 2 and place + half <= width + GAP / 2
        if inside and all(place + half <= low or place - half >= high for low, high in kept.values()):
            kept[tick] = (place - half, place + half)
    return sorted(kept)


def latency_against_cost(axes: Axes, order: Sequence[Evaluation]) -> None:
    """Latency against cost, the front of those that nobody beats in both, and a name at every point."""
    latency = headline_latency(order[0].scenario)
    points = [(COST.estimate(each), latency.estimate(each)) for each in order]
    served = [k for k, (cost, wait) in enumerate(points) if not np.isnan([cost.mean, wait.mean]).any()]
    means = np.array([(points[k][0].mean, points[k][1].mean) for k in served]).reshape(-1, 2)
    logarithmic = spans_decades(means[:, 1])
    for k in served:
        colour, marker = policy_style(k)
        cost, wait = points[k]
        for estimate, xs, ys in (
            (cost, [cost.low, cost.high], [wait.mean] * 2),
            (wait, [cost.mean] * 2, [wait.low, wait.high]),
        ):
            if estimate.low < estimate.high:
                axes.plot(xs, ys, color=colour, linewidth=1, alpha=0.6)
        axes.plot(cost.mean, wait.mean, marker=marker, color=colour, markersize=7, linestyle="", zorder=3)
    axes.set_xlabel(f"{COST.name} [{COST.unit} an episode]")
    axes.set_ylabel(latency.title + (", log scale" if logarithmic else ""))
    axes.grid()
    if not served:
        return
    beaten = [((means <= point).all(axis=1) & (means < point).any(axis=1)).any() for point in means]
    front = means[~np.array(beaten)]
    axes.plot(*front[np.lexsort(front.T)].T, color="#888888", linestyle="--", linewidth=1, zorder=1)
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(means[:, 1].min() / 1.6, means[:, 1].max() * 1.6)
        ticks = few_ticks(*axes.get_ylim(), logarithmic=True, count=5)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    else:  # a tie looks like one
        low, high = axes.get_ylim()
        half = max(0.5 * (high - low), 0.06 * abs(low + high))
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    low, high = means[:, 0].min(), means[:, 0].max()
    room = max(high - low, 0.1 * high, 1e-9)
    axes.set_xlim(low - 0.15 * room, high + 1.1 * room)
    axes.set_xticks(few_ticks(low - 0.15 * room, high + 0.15 * room, logarithmic=False, count=5))
    name_points(axes, means, [(shown_name(order[k]), policy_style(k)[0]) for k in served])


LEADER = {"relpos": (0, 0.5), "arrowstyle": "-", "linestyle": ":", "color": "#AAAAAA", "shrinkB": 5}


def name_points(axes: Axes, points: Array, names: Sequence[tuple[str, str]]) -> None:
    """Name (K, 2) points in a column on the right, in their order from below, so that no names meet."""
    fractions = axes.transAxes.inverted().transform(axes.transData.transform(points))
    order = np.lexsort((-np.arange(len(points)), fractions[:, 1]))
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    line = 0.165 / (axes.get_position().height * figure.get_figheight())
    column = float(fractions[:, 0].max()) + 0.06
    for k, height in zip(order, spread(fractions[order, 1], line, 0.98), strict=True):
        name, colour = names[k]
        axes.annotate(
            name,
            (fractions[k, 0], fractions[k, 1]),
            (column, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=colour,
            arrowprops=LEADER,
        )


def shares_over_time(page: Page, top: float, order: Sequence[Evaluation], seed: int, strip: float) -> None:
    """The demand and every policy's shares in the first episode, a strip of stacked areas each."""
    scenario, steps = order[0].scenario, order[0].steps
    demand = requests(scenario, steps.first) / steps.agents["throughput"] / scenario.dt  # (T, N) [GPU]
    window = busy_window(demand)
    members = grouped(order[0])
    colours = [*colormaps[AGENT_COLOURS](np.linspace(0.05, 0.95, len(members)))]
    if "others" in members:
        colours[-1] = OTHER_COLOUR
    part = "" if window == slice(0, len(demand)) else ", around the peak"
    page.text(0.1, top, f"Shares over time [GPU], seed {seed}{part}", fontweight="bold")
    left = names_width(order)
    legend(page, left, top + 0.24, list(members), colours)
    top += 0.5
    write_names(page, top + strip, order, strip, right=left - 0.15, letters=MOST_LETTERS)
    page.text(left - 0.15, top + strip / 2, "demand", va="center", ha="right")
    for k, values in enumerate([demand, *(each.steps.first["share"] for each in order)]):
        axes = page.axes(left, top + k * strip, WIDTH - left - 0.45, strip - 0.05)
        edges = scenario.dt * np.arange(window.start, window.stop + 1)
        layers = [values[window, own].sum(axis=1) for own in members.values()]
        layers = [np.append(layer, layer[-1]) for layer in layers]
        axes.stackplot(edges, layers, colors=colours, step="post", linewidth=0)
        gpus = scenario.num_gpus or scenario.platform.gpus
        highest = gpus if k else max(float(demand[window].sum(axis=1).max()), 1e-9)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, highest))
        axes.yaxis.tick_right()
        axes.set_yticks([highest], [f"{highest:.3g}"])
        axes.tick_params(length=0, labelbottom=k == len(order))
        axes.spines["left"].set_visible(False)
        if k == len(order):
            axes.set_xlabel("time [s]")


def legend(page: Page, left: float, top: float, names: Sequence[str], colours: Sequence[Any]) -> None:
    """Names of the agents behind their colours, in one line."""
    width = (WIDTH - left) / max(len(names), 1)
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        page.text(left + k * width, top, "■", color=colour)
        letters = int((width - 0.25) / LETTER)
        page.text(left + k * width + 0.16, top, shortened(name, letters))


def busy_window(demand: Array) -> slice:
    """Steps to show: the whole episode, or `SHOWN_STEPS` of it around the busiest stretch."""
    steps = len(demand)
    if steps <= SHOWN_STEPS:
        return slice(0, steps)
    total = np.concatenate([[0.0], demand.sum(axis=1).cumsum()])
    start = int(np.argmax(total[SHOWN_STEPS:] - total[:-SHOWN_STEPS]))
    return slice(start, start + SHOWN_STEPS)
