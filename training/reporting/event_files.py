"""TensorBoard runs of a comparison: one for each policy, so that policies overlay in every chart."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.image import imread
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import Evaluation, mean_metrics
from training.evaluation.held_out import episodes_called
from training.reporting.report import best, markdown_table, tables

ALL_AGENTS = "all agents"
# TensorBoard opens with the first five as columns.
COLUMNS = (
    "rank",
    "objective",
    "latency_mean_s",
    "slo_attainment",
    "cost_usd",
    "latency_p95_s",
    "throughput_rps",
    "paper_latency_s",
    "paper_throughput_rps",
    "paper_latency_std_s",
)


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


def write_runs(directory: Path, evaluations: Sequence[Evaluation], figure: Path | None) -> None:
    """Write a run for each policy, and a run `comparison` with the figure and the tables.

    Args:
        directory: of all runs.
        evaluations: one for each policy; its kind is a hyperparameter in the HParams table.
        figure: the PNG; None where it could not be drawn.
    """
    ranking = sorted(evaluations, key=lambda evaluation: evaluation.objective.mean())
    for evaluation in evaluations:
        with SummaryWriter(str(directory / evaluation.policy)) as writer:
            _write_curves(writer, evaluation)
            _write_summary(writer, evaluation, rank=1 + ranking.index(evaluation))
    with SummaryWriter(str(directory / "comparison")) as writer:
        if figure is not None:
            pixels = np.round(255 * imread(figure)).astype(np.uint8)
            writer.add_image("comparison", pixels, dataformats="HWC")
        writer.add_text("comparison", page(evaluations))


def page(evaluations: Sequence[Evaluation]) -> str:
    """The tables of a comparison as a page in Markdown."""
    winner = best(evaluations)
    scenario = winner.scenario
    count = len(winner.metrics)
    parts = [f"# {scenario.name}: {count} {episodes_called(scenario, count)}", scenario.description]
    for title, rows in tables(evaluations).items():
        parts += [f"## {title}", markdown_table(rows)]
    return "\n\n".join(parts)


def _write_curves(writer: SummaryWriter, evaluation: Evaluation) -> None:
    """Write all curves, one event a step: a value at a time takes a minute for 64 agents."""
    scenario = evaluation.scenario
    curves = step_curves(evaluation)
    names = (*scenario.agent_names, ALL_AGENTS)
    tags = [f"{title}/{name}" for title in curves for name in names]
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


def _write_summary(writer: SummaryWriter, evaluation: Evaluation, rank: int) -> None:
    """Write the mean metrics, and one row of the HParams table that refers to them."""
    metrics = {"rank": float(rank), **mean_metrics(evaluation.metrics)}
    defined = {name: value for name, value in metrics.items() if not np.isnan(value)}
    for name, value in defined.items():
        writer.add_scalar(f"summary/{name}", value)
    row = {"policy": evaluation.policy, "kind": evaluation.kind}
    row |= {"scenario": evaluation.scenario.name}
    columns = {f"summary/{name}": defined[name] for name in COLUMNS if name in defined}
    # SummaryWriter.add_hparams would open a run of its own below this one, and with it a second row.
    for summary in hparams(row, columns):
        _add(writer, summary)


def _add(writer: SummaryWriter, summary: Summary, step: int = 0, walltime: float | None = None) -> None:
    assert writer.file_writer is not None
    writer.file_writer.add_summary(summary, step, walltime)
