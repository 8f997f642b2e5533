"""A cluster: a table of text, and a frame that shows which model stands where."""

import numpy as np

from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.rendering.canvas import (
    DIM,
    FAINT,
    HEIGHT,
    LINE,
    LOADING,
    PANEL,
    PAPER,
    WIDTH,
    Box,
    Canvas,
    Colour,
    hue,
)
from gpualloc_env.rendering.pool import MARGIN, MOST_CURVES, QUEUE, last_minute, write_header
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.residency import EVENTS

TOP, BOTTOM, GAP, LABEL = 56, 440, 8, 24
MOST_IN_ROW, MOST_CALLS = 4, 100


def render_text(view: ClusterView, names: tuple[str, ...]) -> str:
    """One line for each GPU: its node, the models that it holds with their shares, and those asleep there."""
    lines = ["node  GPU  memory  models: share, + while loading; (asleep on the node)"]
    used = 1 - view.free_mb / view.memory_mb
    for k, number in enumerate(view.node.tolist()):
        standing = [
            f"{names[i]} {view.share[i, k]:.2f}{'+' if view.loading[i, k] > 0 else ''}"
            for i in np.flatnonzero(view.resident[:, k])
        ]
        first = k == 0 or number != view.node[k - 1]
        asleep = [names[i] for i in np.flatnonzero(view.asleep[:, k])] if first else []
        lines.append(
            f"{number:4d} {k:4d} {used[k]:7.0%}  {', '.join(standing)}"
            + (f"  ({', '.join(asleep)})" if asleep else "")
        )
    return "\n".join(lines)


def cluster_frame(batch: ClusterBatch) -> Canvas:
    """The first cluster of a batch that records: its nodes, and the calls of each agent below them."""
    canvas, nodes = Canvas(), len(batch.scenario.nodes)
    write_header(canvas, batch)
    across = min(nodes, MOST_IN_ROW)
    down = -(-nodes // across)
    width, height = (WIDTH - 2 * MARGIN + GAP) / across, (BOTTOM - TOP) / down
    for number in range(nodes):
        row, column = divmod(number, across)
        place = (MARGIN + column * width, TOP + row * height, width - GAP, height - GAP)
        _node(canvas, batch, number, place)
    legend = (
        "GPUs: memory above (pale: no share), shares below (grey: loading)    red outline: just fallen asleep"
    )
    canvas.text((MARGIN, BOTTOM - 4), legend, DIM)
    _calls(canvas, batch)
    return canvas


def _node(canvas: Canvas, batch: ClusterBatch, number: int, box: Box) -> None:
    """Its GPUs, one below the other, and the models asleep in its host memory."""
    view, names, (left, top, width, height) = batch.cluster_view_of(0), batch.scenario.agent_names, box
    gpus = np.flatnonzero(view.node == number).tolist()
    canvas.box(box, PANEL)
    kind = batch.scenario.nodes[number].gpu
    canvas.text((left + 6, top + 4), f"node {number}{f': {kind}' if kind else ''}")
    each = (height - 2 * LINE - 10) / (len(gpus) + 0.6)
    for line, k in enumerate(gpus):
        place = (left + LABEL, top + LINE + 6 + line * each, width - LABEL - 6, each - 5)
        canvas.text((left + 6, place[1] + 2), str(k), DIM)
        _gpu(canvas, view, k, names, place)
    host = batch.scenario.nodes[number].host_memory_mb
    top += LINE + 6 + len(gpus) * each
    canvas.text((left + 6, top), "asleep in host memory", DIM)
    place = (left + LABEL, top + LINE, width - LABEL - 6, box[1] + height - top - LINE - 6)
    canvas.box(place, FAINT)
    fell = batch.cluster.hosts[0].reshape(len(names), -1)[:, number]["since"] == batch.clock[0] - 1
    at = place[0]
    for i in np.flatnonzero(view.asleep[:, gpus[0]]).tolist():
        block = (at, place[1], place[2] * view.model_mb[i] / host, place[3])
        _model(canvas, block, names[i], _lighter(hue(i, len(names))))
        if fell[i]:
            canvas.box(block, QUEUE, outline=True)
        at += block[2]


def _gpu(canvas: Canvas, view: ClusterView, k: int, names: tuple[str, ...], box: Box) -> None:
    """A block for each resident model, light without a share, and the shares below, grey while they load."""
    left, top, width, height = box
    memory = 0.65 * height
    canvas.box((left, top, width, memory), FAINT)
    canvas.box((left, top + memory + 2, width, height - memory - 2), PAPER)
    at = given = left
    for i in np.flatnonzero(view.resident[:, k]).tolist():
        colour, share = hue(i, len(names)), width * min(1.0, view.share[i, k])
        block = (at, top, width * view.need_mb[i] / view.memory_mb[k], memory)
        _model(canvas, block, names[i], colour if share else _lighter(colour))
        canvas.box(
            (given, top + memory + 2, share, height - memory - 2), LOADING if view.loading[i, k] else colour
        )
        at, given = at + block[2], given + share


def _model(canvas: Canvas, box: Box, name: str, colour: Colour) -> None:
    """A block of memory, set apart from the next one by a pixel."""
    left, top, width, height = box
    canvas.box((left, top, width - 1, height), colour)
    canvas.fitting(box, name)


def _lighter(colour: Colour) -> Colour:
    red, green, blue = (round(0.35 * part + 0.65 * 255) for part in colour)
    return red, green, blue


def _calls(canvas: Canvas, batch: ClusterBatch) -> None:
    """Calls at each agent, now and in the last minute, and what happened to instances."""
    names, queue, bottom = batch.scenario.agent_names, batch.view.agents.queue[0], HEIGHT - LINE - 6
    (_, _, column), _ = last_minute(batch, batch.view.agents)
    top, half = BOTTOM + 2 * LINE + 4, WIDTH / 2 - MARGIN
    canvas.text(
        (MARGIN, BOTTOM + LINE + 2), f"calls now: {queue.sum():.0f} (log scale to {MOST_CALLS} of an agent)"
    )
    canvas.text((WIDTH / 2 + GAP, BOTTOM + LINE + 2), f"{column.title} of the last minute, now at the right")
    each, few = half / len(names), len(names) <= MOST_CURVES
    floor = bottom - (LINE if few else 0)
    levels = np.minimum(1.0, np.log1p(queue) / np.log1p(MOST_CALLS))
    for i, name in enumerate(names):
        tall = (floor - top) * float(levels[i])
        canvas.box((MARGIN + i * each, floor - tall, each - 1, tall), hue(i, len(names)))
        if few:
            canvas.fitting((MARGIN + i * each, floor + 1, each, LINE), name)
    canvas.heat((WIDTH / 2 + GAP, top, half - GAP, bottom - top), column.levels.T, QUEUE)
    now, so_far = batch.cluster.counts[0], batch.cluster.totals[0]
    counts = (f"{event.replace('_', ' ')} {now[event]:.0f} / {so_far[event]:.0f}" for event in EVENTS)
    canvas.text((MARGIN, bottom + 3), f"this step / so far:  {'    '.join(counts)}", DIM)
