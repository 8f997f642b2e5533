"""The four-panel figure of a comparison, after figure 2 of arXiv 2512.22149."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.transforms import ScaledTranslation

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from training.evaluation.evaluate import Evaluation
from training.evaluation.held_out import episodes_called
from training.evaluation.statistics import Estimate, interval
from training.reporting.figure_style import (
    AGENT_COLOURS,
    OTHER_COLOUR,
    STYLE,
    label_points,
    policy_handles,
    policy_styles,
    scale_latency,
    spans_decades,
    widen,
)

SHOWN_AGENTS = 8
LABEL_LETTERS = 18  # of a policy's name on a line beside its shares
SHOWN_STEPS = 120
"""More would leave a policy that moves at every step less than a few pixels a step."""


def draw(path: Path, evaluations: Sequence[Evaluation], seed: int) -> None:
    """Draw latency and throughput by agent, shares over time, and latency against cost, as PNG."""
    scenario = evaluations[0].scenario
    episodes = len(evaluations[0].metrics)
    with rc_context(STYLE):
        figure = Figure(figsize=(15, 10.5), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.15), wspace=0.06, hspace=0.06)
        latency_by_agent(figure.add_subplot(grid[0, 0]), evaluations)
        throughput_by_agent(figure.add_subplot(grid[0, 1]), evaluations)
        shares_over_time(figure, grid[1, 0], evaluations, seed)
        latency_against_cost(figure.add_subplot(grid[1, 1]), evaluations)
        span = f"{scenario.steps * scenario.dt:g} s"
        seeds = f"seed {seed}" if episodes == 1 else f"seeds {seed} to {seed + episodes - 1}"
        count = "one" if episodes == 1 else str(episodes)
        what = f"{count} {episodes_called(scenario, episodes)} of {span}, {seeds}"
        figure.legend(
            handles=policy_handles(evaluations),
            loc="outside upper center",
            ncols=len(evaluations),
            fontsize=12,
            title=f"{scenario.name}: {what}",
            title_fontproperties={"size": 15, "weight": "bold"},
        )
        figure.savefig(path, dpi=130)


def busiest(evaluations: Sequence[Evaluation]) -> AnyArray:
    """Indices of the agents shown, in their order: all, or those with the most work offered."""
    work = offered(evaluations[0]) / evaluations[0].steps.throughput
    return np.sort(np.argsort(-work, kind="stable")[:SHOWN_AGENTS])


def offered(evaluation: Evaluation) -> Array:
    """Mean rate at which requests came to each agent, (N,) [requests/s]."""
    return requests(evaluation.scenario, evaluation.steps.mean).mean(axis=0) / evaluation.scenario.dt


def requests(scenario: Scenario, steps: AnyArray) -> Array:
    """Requests that came to each agent in each of some steps, with all the visits they cause, (T, N)."""
    arrivals, visits = steps["arrivals"], scenario.visits
    return arrivals @ visits.T if visits.size else arrivals


def agent_estimates(evaluation: Evaluation, metric: str, agents: AnyArray) -> list[Estimate]:
    """Mean and interval of a metric over the episodes, for some agents."""
    scenario = evaluation.scenario
    return [
        interval(
            [episode[scenario.agent_names[i]][metric] for episode in evaluation.per_agent],
            varies=scenario.varies,
        )
        for i in agents
    ]


def estimate(evaluation: Evaluation, metric: str) -> Estimate:
    """Mean and interval of a metric over the episodes."""
    values = [episode[metric] for episode in evaluation.metrics]
    return interval(values, varies=evaluation.scenario.varies)


def latency_by_agent(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """Mean time in the system by agent: bars, or points where a logarithmic axis is needed."""
    agents = busiest(evaluations)
    estimates = [agent_estimates(evaluation, "latency_mean_s", agents) for evaluation in evaluations]
    means = np.array([[value.mean for value in row] for row in estimates])
    logarithmic = spans_decades(means)
    # The length of a bar on a logarithmic axis says nothing, so there the bars become points.
    grouped(axes, evaluations, estimates, as_points=logarithmic)
    label_agents(axes, evaluations, agents)
    scale_latency(axes, logarithmic)
    axes.set_title("(a) Latency by agent" + interval_note(evaluations))


def throughput_by_agent(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """Requests served by agent, and the rate at which they were offered."""
    agents = busiest(evaluations)
    estimates = [agent_estimates(evaluation, "throughput_rps", agents) for evaluation in evaluations]
    grouped(axes, evaluations, estimates, as_points=False)
    rates = offered(evaluations[0])[agents]
    positions = np.arange(len(agents))
    axes.hlines(
        rates, positions - 0.45, positions + 0.45, colors="black", linestyles="--", label="offered rate"
    )
    handles, labels = axes.get_legend_handles_labels()
    offered_rate = labels.index("offered rate")
    axes.legend(
        [handles[offered_rate]],
        [labels[offered_rate]],
        loc="lower right",
        bbox_to_anchor=(1, 0.985),
        borderpad=0,
    )
    label_agents(axes, evaluations, agents)
    axes.set_ylabel("requests served [requests/s]")
    axes.set_title("(b) Throughput by agent" + interval_note(evaluations))


def interval_note(evaluations: Sequence[Evaluation]) -> str:
    """What the error bars are; nothing where there are none."""
    return ", with 95 % intervals" if len(evaluations[0].metrics) > 1 else ""


def errors(value: Estimate) -> tuple[float, float]:
    """Lengths of the two halves of an error bar; zero where there is no interval."""
    below, above = np.nan_to_num([value.mean - value.low, value.high - value.mean])
    return max(float(below), 0.0), max(float(above), 0.0)


def grouped(
    axes: Axes, evaluations: Sequence[Evaluation], estimates: list[list[Estimate]], as_points: bool
) -> None:
    """One group of bars or points an agent, one bar or point a policy, each with its interval."""
    width = 0.8 / len(evaluations)
    styles = policy_styles(evaluations)
    for k, (evaluation, row) in enumerate(zip(evaluations, estimates, strict=True)):
        x = np.arange(len(row)) + (k - (len(evaluations) - 1) / 2) * width
        mean = np.array([value.mean for value in row])
        colour, marker = styles[k]
        lengths = np.array([errors(value) for value in row]).T
        if as_points:
            axes.errorbar(
                x, mean, lengths, fmt=marker, color=colour, markersize=8, capsize=3, label=evaluation.label
            )
        else:
            axes.bar(x, mean, 0.9 * width, color=colour, label=evaluation.label)
            if lengths.any():
                axes.errorbar(x, mean, lengths, fmt="none", ecolor="black", elinewidth=1, capsize=2.5)
    axes.grid(axis="y")


def label_agents(axes: Axes, evaluations: Sequence[Evaluation], agents: AnyArray) -> None:
    """Name the groups; where only some agents are shown, say so."""
    names = evaluations[0].scenario.agent_names
    rotation = 0 if len(agents) <= 5 else 20
    axes.set_xticks(np.arange(len(agents)), [names[i] for i in agents], rotation=rotation)
    axes.set_xlim(-0.5, len(agents) - 0.5)
    axes.tick_params(axis="x", length=0)
    for position in range(1, len(agents), 2):
        axes.axvspan(position - 0.5, position + 0.5, color="#F7F7F7", zorder=0)
    if len(agents) < len(names):
        axes.set_xlabel(f"the {len(agents)} busiest of {len(names)} agents")


def shares_over_time(
    figure: Figure, place: SubplotSpec, evaluations: Sequence[Evaluation], seed: int
) -> None:
    """The demand and every policy's shares in the first episode, one row of stacked areas each."""
    scenario, steps = evaluations[0].scenario, evaluations[0].steps
    demand = requests(scenario, steps.first) / steps.agents["throughput"] / scenario.dt  # (T, N) [GPU]
    window = busy_window(demand)
    rows = place.subgridspec(1 + len(evaluations), 1, hspace=0.0).subplots(sharex=True, squeeze=False)[:, 0]
    agents = busiest(evaluations)
    stack(rows[0], demand, agents, scenario, window)
    rows[0].set_ylabel("demand", rotation=0, ha="right", va="center")
    part = "" if window == slice(0, len(demand)) else ", around the peak"
    rows[0].set_title(f"(c) Shares over time [GPU], seed {seed}{part}")
    for k, (axes, evaluation) in enumerate(zip(rows[1:], evaluations, strict=True)):
        stack(axes, evaluation.steps.first["share"], agents, scenario, window)
        axes.set_ylim(0, scenario.platform.gpus)
        axes.set_yticks([0, scenario.platform.gpus])
        axes.set_ylabel(
            fill(evaluation.label, LABEL_LETTERS, break_long_words=False),
            rotation=0,
            ha="right",
            va="center",
            color=policy_styles(evaluations)[k][0],
        )
        axes.yaxis.label.set_fontweight("bold")
    rows[-1].set_xlabel("time [s]")
    below_label = rows[-1].transAxes + ScaledTranslation(0, -42 / 72, figure.dpi_scale_trans)
    handles, labels = rows[0].get_legend_handles_labels()
    rows[-1].legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below_label,
        ncols=5,
        fontsize="small" if len(labels) > 5 else None,
        handlelength=1.5,
        columnspacing=1.2,
    )


def busy_window(demand: Array) -> slice:
    """Steps to show: the whole episode, or `SHOWN_STEPS` of it around the busiest stretch."""
    steps = len(demand)
    if steps <= SHOWN_STEPS:
        return slice(0, steps)
    total = np.concatenate([[0.0], demand.sum(axis=1).cumsum()])
    start = int(np.argmax(total[SHOWN_STEPS:] - total[:-SHOWN_STEPS]))
    return slice(start, start + SHOWN_STEPS)


def stack(axes: Axes, values: Array, agents: AnyArray, scenario: Scenario, window: slice) -> None:
    """Stack (T, N) values of the agents shown, and the rest in grey, as steps."""
    names = [scenario.agent_names[i] for i in agents]
    colours = [*colormaps[AGENT_COLOURS](np.linspace(0.05, 0.95, len(agents)))]
    layers = [*values[window, agents].T]
    if len(agents) < values.shape[1]:
        names.append("others")
        colours.append(OTHER_COLOUR)
        layers.append(np.delete(values[window], agents, axis=1).sum(axis=1))
    edges = scenario.dt * np.arange(window.start, window.stop + 1)
    layers = [np.append(layer, layer[-1]) for layer in layers]
    axes.stackplot(edges, layers, colors=colours, labels=names, step="post", linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", nbins=2)


def latency_against_cost(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """Mean time in the system against the price of a thousand served requests; lower left is better."""
    points: list[tuple[Estimate, Estimate]] = []
    for evaluation, (colour, marker) in zip(evaluations, policy_styles(evaluations), strict=True):
        cost, latency = estimate(evaluation, "cost_usd_per_1k"), estimate(evaluation, "latency_mean_s")
        points.append((cost, latency))
        axes.errorbar(
            cost.mean,
            latency.mean,
            xerr=np.array([errors(cost)]).T,
            yerr=np.array([errors(latency)]).T,
            fmt=marker,
            color=colour,
            markersize=10,
            capsize=3,
        )
    logarithmic = spans_decades(np.array([latency.mean for _, latency in points]))
    axes.margins(0.15)
    axes.grid()
    axes.set_xlabel("cost [$ per 1000 requests served]")
    scale_latency(axes, logarithmic)
    widen(axes, logarithmic)
    label_points(axes, evaluations, [(cost.mean, latency.mean) for cost, latency in points])
    axes.set_title("(d) Latency against cost" + interval_note(evaluations))
