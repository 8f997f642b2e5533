"""TensorBoard runs of a comparison: one for each policy, in order of J, and a page that begins with J.

TensorBoard opens on its time series, whose groups of cards stand in alphabetical order, the first two
open; a group is what a tag has before its first slash. So the first group of a scenario holds the results,
numbered, and no tag is without its scenario: scenarios below one directory never share a chart.
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from gpualloc_env.metrics import mean_metrics
from gpualloc_env.simulation.state import Array
from training.artifacts.training_record import TrainingRecord
from training.evaluation.evaluate import Evaluation
from training.reporting.figures import measures_card, result_card
from training.reporting.measures import measures
from training.reporting.report import objective, page, ranked, references

ALL_AGENTS = "all agents"
REPORT = "comparison"
"""The run that holds what belongs to no single policy; all others are called as their policies."""
PIXELS_PER_INCH = 200


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
    apart = {each.label: each.objective for each in references(order, chosen)}
    for name, evaluation in zip(run_names(order), order, strict=True):
        with SummaryWriter(str(directory / name)) as writer:
            for step, value in curves.get(evaluation.policy, ()):
                writer.add_scalar(f"{scenario}/3 J in validation by training step", value, step)
            _write_running(writer, f"{scenario}/4 J by episode, running mean", evaluation.objective)
            for k, (reference, level) in enumerate(apart.items(), start=5):
                tag = f"{scenario}/{k} J − J of {reference} by episode, running mean"
                _write_running(writer, tag, evaluation.objective - level)
            _write_curves(writer, evaluation)
            record = records.get(evaluation.policy)
            _write_summary(writer, evaluation, {} if record is None else record.settings)
    with SummaryWriter(str(directory / REPORT)) as writer:
        _add_image(writer, f"{scenario}/1 J, best first", result_card(order, chosen, passed(order, records)))
        _add_image(writer, f"{scenario}/2 latency, SLO, throughput, cost", measures_card(order))
        for title, path in figures.items():
            if path is not None:
                pixels = np.round(255 * imread(path)).astype(np.uint8)
                writer.add_image(f"{scenario} figures/{title}", pixels, dataformats="HWC")
        said = "\n\n".join(passed(order, records))
        writer.add_text(f"{scenario} report", f"{page(evaluations, chosen)}\n\n{said}")
        writer.add_custom_scalars(_layout(order))


def passed(order: Sequence[Evaluation], records: Mapping[str, TrainingRecord]) -> list[str]:
    """When each training run passed Algorithm 1 and the best baseline in validation, a sentence each."""
    lines: list[str] = []
    for each in order:
        record = records.get(each.policy)
        if record is None:
            continue
        for level in ("adaptive", record.best_level):
            step = record.passed(level)
            when = "never passed" if step is None else f"passed {level} by step {step:,}"
            lines.append(f"{each.label} {when}{'' if step is not None else ' ' + str(level)}.")
    return list(dict.fromkeys(lines))


def _validation(
    order: Sequence[Evaluation], records: Mapping[str, TrainingRecord]
) -> dict[str, list[tuple[int, float]]]:
    """Validation curves of training runs, and as level lines J of the baselines on the same episodes."""
    curves = {name: record.curve for name, record in records.items() if record.curve}
    last = max((curve[-1][0] for curve in curves.values()), default=0)
    for record in records.values():
        for name, level in record.levels.items():
            if curves and any(each.policy == name for each in order):
                curves.setdefault(name, [(0, level), (last, level)])
    return curves


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
    for t, row in enumerate(values):
        points = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in zip(tags, row, strict=True)
            if not np.isnan(value)
        ]
        _add(writer, Summary(value=points), step=t, walltime=start + t * scenario.dt)


def _write_summary(writer: SummaryWriter, evaluation: Evaluation, settings: Mapping[str, Any]) -> None:
    """Write what decides as numbers, and one row of the HParams table that refers to them."""
    group, mean = f"{evaluation.scenario.name} summary", mean_metrics(evaluation.metrics)
    j = objective(evaluation)
    values = {"J (lower is better)": j.mean, "J low": j.low, "J high": j.high}
    values["headroom closed [%] (higher is better)"] = 100 * evaluation.headroom_closed
    for each in measures(evaluation.scenario):
        values[f"{each.title} ({each.direction})"] = each.scale * mean[each.metric]
    defined = {f"{group}/{name}": value for name, value in values.items() if not np.isnan(value)}
    for tag, value in defined.items():
        writer.add_scalar(tag, value)
    row = {"policy": evaluation.label, "kind": evaluation.kind, "scenario": evaluation.scenario.name}
    columns = {tag: value for tag, value in defined.items() if "better" in tag and " mean [s]" not in tag}
    add_hparams(writer, {**row, **settings}, columns)


def add_hparams(writer: SummaryWriter, row: Mapping[str, Any], columns: Mapping[str, float]) -> None:
    """Add a row to the HParams table.

    `SummaryWriter.add_hparams` would open a run of its own below this one, and with it a second row.
    """
    kept = (bool, int, float)
    cells = {name: value if isinstance(value, kept) else str(value) for name, value in row.items()}
    for summary in hparams(cells, dict(columns)):
        _add(writer, summary)


def _layout(order: Sequence[Evaluation]) -> dict[str, dict[str, list[Any]]]:
    """Charts of the tab of custom scalars: what belongs together, a category each."""
    name = order[0].scenario.name
    tags = {"J": rf"^{re.escape(name)}/4 ", "J, differences": rf"^{re.escape(name)}/[56] "}
    groups = {f"{name}: J by episode": {title: ["Multiline", [tag]] for title, tag in tags.items()}}
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


def _add(writer: SummaryWriter, summary: Summary, step: int = 0, walltime: float | None = None) -> None:
    assert writer.file_writer is not None
    writer.file_writer.add_summary(summary, step, walltime)
