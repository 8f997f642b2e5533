"""TensorBoard runs of a comparison: one for each policy, in order of J, and a page that begins with J.

TensorBoard opens on its time series, whose groups of cards stand in alphabetical order, the first two
open; a group is what a tag has before its first slash. So the first group of a scenario holds the results,
numbered, and no tag is without its scenario: scenarios below one directory never share a chart.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard import SummaryWriter

from baselines import algorithm_1_of
from gpualloc_env.metrics import mean_metrics
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.artifacts.training_record import TrainingRecord
from training.evaluation.evaluate import Evaluation
from training.reporting.figures import measures_card, result_card
from training.reporting.hparams import add_hparams
from training.reporting.measures import Measure, measures
from training.reporting.report import objective, page, ranked, references

ALL_AGENTS = "all agents"
REPORT = "comparison"
"""The run that holds what belongs to no single policy; all others are called as their policies."""
PIXELS_PER_INCH = 200
LINKS = (
    "See also: [the results as cards](#timeseries), [J and every curve over time by agent](#custom_scalars), "
    "[the ranking by any measure, and settings of training runs](#hparams), [figures](#images); "
    "[the paper](https://arxiv.org/abs/2512.22149)."
)
HEADLINES = ("latency_p95_s", "task_latency_p95_s", "slo_attainment", "task_slo_attainment", "cost_usd")
MEAN = "latency_mean_s"


def run_names(order: Sequence[Evaluation]) -> list[str]:
    """Names of the runs of ranked policies: TensorBoard sorts by name, so the rank comes first."""
    digits = len(str(len(order)))
    return [f"{rank:0{digits}d} {each.label}" for rank, each in enumerate(order, start=1)]


def step_curves(evaluation: Evaluation) -> dict[str, Array]:
    """Curves of each agent and of all, (T, N + 1), each a mean over the episodes, by title.

    The latency of a step is its backlog over the mean arrival rate, Σ_e backlog / Σ_e λ̄, by
    Little's law, so episodes in which an agent is nearly idle hardly count for it. It is NaN
    for an agent without any traffic.
    """
    steps = evaluation.steps
    backlog, share, served = (_with_total(steps.mean[name]) for name in ("backlog", "share", "served"))
    rate = _with_total(steps.mean_rate[None])
    return {
        "latency [s]": np.divide(backlog, rate, out=np.full_like(backlog, np.nan), where=rate > 0),
        "backlog [requests]": backlog,
        "share [GPU]": share,
        "throughput [requests per s]": served / evaluation.scenario.dt,
    }


def _with_total(values: Array) -> Array:
    return np.hstack([values, values.sum(axis=1, keepdims=True)])


def write_runs(
    directory: Path,
    evaluations: Sequence[Evaluation],
    figures: Mapping[str, Path | None],
    records: Mapping[str, TrainingRecord],
    chosen: str | None = None,
) -> None:
    """Write a run for each policy, and a run with the figures, the report and the layout of the charts.

    Args:
        directory: of all runs.
        evaluations: one for each policy.
        figures: PNG files by title; None where one could not be drawn.
        records: settings and validation curves of those that are training runs, by their policies.
        chosen: the policy from which differences are shown; by default the best baseline.
    """
    order = ranked(evaluations)
    scenario = order[0].scenario.name
    curves = _validation(order, records)
    running = _running(order, chosen)
    # TensorBoard sorts these columns by name and shows the first five: policies come before settings.
    settings = {
        name: {f"training: {key}": value for key, value in record.settings.items()}
        for name, record in records.items()
    }
    for name, evaluation in zip(run_names(order), order, strict=True):
        with SummaryWriter(str(directory / name)) as writer:
            for step, value in curves.get(evaluation.policy, ()):
                writer.add_scalar(f"{scenario}/3 J in validation by training step", value, step)
            for tag, level in running.items():
                _write_running(writer, tag, evaluation.objective - level)
            _write_curves(writer, evaluation)
            _write_summary(writer, evaluation, settings)
    with SummaryWriter(str(directory / REPORT)) as writer:
        _add_image(writer, f"{scenario}/1 J, best first", result_card(order, chosen, passed(order, records)))
        _add_image(writer, f"{scenario}/2 latency, SLO, throughput, cost", measures_card(order))
        for title, path in figures.items():
            if path is not None:
                pixels = np.round(255 * imread(path)).astype(np.uint8)
                writer.add_image(f"{scenario} figures/{title}", pixels, dataformats="HWC")
        said = "\n\n".join([page(evaluations, chosen), *passed(order, records), LINKS])
        writer.add_text(f"{scenario} report", said)
        writer.add_custom_scalars(_layout(order, running))


def passed(order: Sequence[Evaluation], records: Mapping[str, TrainingRecord]) -> list[str]:
    """When each training run passed Algorithm 1 and the best baseline in validation, a sentence each."""
    lines: list[str] = []
    for each in order:
        record = records.get(each.policy)
        if record is None:
            continue
        said: list[str] = []
        for level in dict.fromkeys((algorithm_1_of(each.scenario), record.best_level)):
            step = record.passed(level)
            if step is None:
                said.append(f"never passed {level}")
            else:
                said.append(f"passed {level} by step {step:,}" if step else f"began below {level}")
        lines.append(f"{each.label} {', '.join(said)}.")
    return lines


def _validation(
    order: Sequence[Evaluation], records: Mapping[str, TrainingRecord]
) -> dict[str, list[tuple[int, float]]]:
    """Validation curves of training runs, and as level lines J of the baselines on the same episodes.

    A baseline far above all of them, below which every run began, would make them flat, and is left out.
    """
    curves = {name: record.curve for name, record in records.items() if record.curve}
    last = max((curve[-1][0] for curve in curves.values()), default=0)
    highest = max((curve[0][1] for curve in curves.values()), default=-np.inf)
    for record in records.values():
        for name, level in record.levels.items():
            if level <= highest and any(each.policy == name for each in order):
                curves.setdefault(name, [(0, level), (last, level)])
    return curves


def _running(order: Sequence[Evaluation], chosen: str | None) -> dict[str, Array | float]:
    """What is taken off J by episode in its charts, by their tags; there are none of a single episode.

    TensorBoard leaves the farthest values out of sight, so of single points the best and the worst.
    """
    if len(order[0].metrics) == 1:
        return {}
    scenario = order[0].scenario.name
    apart = enumerate(references(order, chosen), start=5)
    return {
        f"{scenario}/4 J by episode, running mean": 0.0,
        **{
            f"{scenario}/{k} J − J of {each.label} by episode, running mean": each.objective
            for k, each in apart
        },
    }


def _write_running(writer: SummaryWriter, tag: str, values: Array) -> None:
    means = np.cumsum(values) / np.arange(1, len(values) + 1)
    for episode, mean in enumerate(means.tolist(), start=1):
        writer.add_scalar(tag, mean, episode)


def _write_curves(writer: SummaryWriter, evaluation: Evaluation) -> None:
    """Write all curves, one event a step: a value at a time takes a minute for 64 agents."""
    scenario = evaluation.scenario
    curves = step_curves(evaluation)
    names = (*scenario.agent_names, ALL_AGENTS)
    tags = [f"{scenario.name} over time: {title}/{name}" for title in curves for name in names]
    values = np.hstack(list(curves.values()))
    # Simulated time stands in for the clock, so that the horizontal axis "Relative" is in its seconds.
    start = time.time()
    assert writer.file_writer is not None
    for t, row in enumerate(values):
        points = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in zip(tags, row, strict=True)
            if not np.isnan(value)
        ]
        writer.file_writer.add_summary(Summary(value=points), t, start + t * scenario.dt)


def _write_summary(
    writer: SummaryWriter, evaluation: Evaluation, settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write what decides as numbers, and one row of the HParams table that refers to them.

    Args:
        writer: of the policy's run.
        evaluation: of the policy.
        settings: of all training runs of the comparison, by their policies.
    """
    group, mean = f"{evaluation.scenario.name} summary", mean_metrics(evaluation.metrics)
    j = objective(evaluation)
    values = {"J low": j.low, "J high": j.high}
    columns = {"J (lower is better)": j.mean}
    columns["headroom closed [%] (higher is better)"] = 100 * evaluation.headroom_closed
    for each in _by_importance(evaluation.scenario):
        columns[f"{each.title} ({each.direction})"] = each.scale * mean[each.metric]
    for name, value in {**values, **columns}.items():
        if not np.isnan(value):
            writer.add_scalar(f"{group}/{name}", value)
    row = {"policy": evaluation.label, "kind": evaluation.kind, "scenario": evaluation.scenario.name}
    every = {name: value for each in settings.values() for name, value in each.items()}
    shown = {f"{group}/{name}": value for name, value in columns.items() if not np.isnan(value)}
    add_hparams(writer, {**row, **settings.get(evaluation.policy, {})}, shown, {**row, **every})


def _by_importance(scenario: Scenario) -> list[Measure]:
    """What HParams ranks by; it shows the first three at once: latency, SLO, cost."""
    first = [each for each in measures(scenario) if each.metric in HEADLINES]
    others = [each for each in measures(scenario) if each not in first and not each.metric.endswith(MEAN)]
    return [*first, *others]


def _layout(order: Sequence[Evaluation], running: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """Charts of the tab of custom scalars: what belongs together, a category each."""
    name = order[0].scenario.name
    charts = {
        re.sub(r"^.*?/\d ", "", tag).removesuffix(" by episode, running mean"): [
            "Multiline",
            [f"^{re.escape(tag)}$"],
        ]
        for tag in running
    }
    groups = {f"{name}: J by episode, running mean": charts} if charts else {}
    for title in step_curves(order[0]):
        start = re.escape(f"{name} over time: {title}/")
        groups[f"{name}: {title}"] = {
            agent: ["Multiline", [f"^{start}{re.escape(agent)}$"]]
            for agent in (ALL_AGENTS, *order[0].scenario.agent_names)
        }
    return groups


def _add_image(writer: SummaryWriter, tag: str, figure: Figure) -> None:
    figure.set_dpi(PIXELS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    writer.add_image(tag, np.asarray(canvas.buffer_rgba())[:, :, :3], dataformats="HWC")
