"""One pool of GPUs: a table of text, and the last minute of every agent as a frame."""

from typing import NamedTuple

import numpy as np

from gpualloc_env.batch import Batch
from gpualloc_env.rendering.canvas import DIM, HEIGHT, LARGE, LINE, LOADING, WIDTH, Canvas, Colour
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array

MARGIN, TOP, BOTTOM = 12, 66, HEIGHT - 48
NAMES, COLUMN, PLOT = 156, 266, 190
"""Where the columns begin, how wide each of them is, and the curves in it."""
WINDOW_S, MOST_CURVES = 60.0, 12
ARRIVALS, SHARE, QUEUE = (84, 150, 130), (42, 111, 187), (214, 96, 77)
FULL_QUEUE_S = 100.0


def render_text(view: View, names: tuple[str, ...]) -> str:
    """One line for each agent: share held, requests waiting, age of the oldest, model state."""
    width = max(len(name) for name in names)
    lines = [f"{'agent':<{width}}  share [GPU]                   queue  oldest [s]  model"]
    for i, name in enumerate(names):
        bar = "#" * round(20 * view.share[i] / view.max_share)
        model = "warm" if view.loading[i] == 0 else f"cold, {view.loading[i]:.1f} s to load"
        lines.append(
            f"{name:<{width}}  {view.share[i]:5.3f} {bar:<20}  {view.queue[i]:8.1f}  "
            f"{view.oldest_age[i]:10.1f}  {model}"
        )
    return "\n".join(lines)


class Column(NamedTuple):
    """A quantity of every agent in the last minute."""

    title: str
    scale: str  # what the full height, or the full colour, means
    colour: Colour
    levels: Array  # (t, N) in [0, 1]
    now: Array  # (N,)
    digits: int


def pool_frame(batch: Batch) -> Canvas:
    """The first environment of a batch that records: a curve an agent, or heat maps where there are many."""
    canvas, names = Canvas(), batch.scenario.agent_names
    write_header(canvas, batch)
    columns, loading = last_minute(batch, batch.view)
    for number, column in enumerate(columns):
        left = NAMES + number * COLUMN
        canvas.text((left, TOP - LINE - 2), column.title)
        canvas.text((left, BOTTOM + 3), f"−{len(column.levels) * batch.scenario.dt:g} s", DIM)
        canvas.text((left + PLOT, BOTTOM + 3), "now", DIM, align=1.0)
        canvas.text((left, BOTTOM + 3 + LINE), column.scale, DIM)
    if len(names) > MOST_CURVES:
        _heat_maps(canvas, names, columns)
    else:
        _curves(canvas, batch, columns, loading)
        canvas.text((MARGIN, BOTTOM + 3), "grey: loading", DIM)
        canvas.text((MARGIN, BOTTOM + 3 + LINE), "dotted: minimum", DIM)
    return canvas


def write_header(canvas: Canvas, batch: Batch) -> None:
    """Name, clock, and J of the episode so far with what it is made of."""
    scenario, clock = batch.scenario, int(batch.clock[0])
    mean = (
        batch.totals[0]["reward"],
        *(batch.totals[0][term] for term in ("cost", "throughput", "latency", "task")),
    )
    reward, cost, throughput, latency, task = (float(value) / max(1, clock) for value in mean)
    gpus = scenario.num_gpus or scenario.platform.gpus
    canvas.text((MARGIN, 9), scenario.name, size=LARGE)
    until = f"t = {clock * scenario.dt:.1f} s of {scenario.steps * scenario.dt:g} s"
    canvas.text((WIDTH - MARGIN, 9), until, size=LARGE, align=1.0)
    canvas.text((WIDTH / 2, 9), f"J so far {0.0 - reward:.3f}", size=LARGE, align=0.5)
    parts = [
        f"latency {latency:.2f} s",
        f"{cost:.0%} of {gpus:g} GPU held",
        f"{throughput:.0%} of the offered rate served",
    ]
    if scenario.service == "requests":
        parts.insert(1, f"task {task:.1f} s")
    canvas.text((WIDTH / 2, 30), "   ".join(parts), DIM, align=0.5)


def last_minute(batch: Batch, view: View) -> tuple[tuple[Column, Column, Column], AnyArray]:
    """Arrivals, shares and queues of the last minute, and where a share only loaded a model, (t, N) bool."""
    scenario, clock = batch.scenario, int(batch.clock[0])
    steps = max(1, round(WINDOW_S / scenario.dt))
    first = max(0, clock - steps)
    done = batch.history[0, first:clock]
    missing = ((steps - len(done), 0), (0, 0))
    share, queue, capacity = (np.pad(done[name], missing) for name in ("share", "queue", "capacity"))
    # Requests of a fluid arrive at the start of a step, calls during one.
    came = batch.inflows[first : clock + (scenario.service == "fluid"), 0]
    inflow = np.pad(came, missing)[-steps:] / scenario.dt
    throughput, most = view.throughput[0], view.max_share
    unit = "calls" if scenario.service == "requests" else "requests"
    columns = (
        Column(
            f"arrivals [{unit}/s]", "full: what one GPU serves", ARRIVALS, inflow / throughput, inflow[-1], 1
        ),
        Column("share [GPU]", f"full: {most:g} GPU", SHARE, share / most, share[-1], 2),
        Column(
            f"queue after service [{unit}]",
            f"full: {FULL_QUEUE_S:g} s of one GPU, log scale",
            QUEUE,
            np.log1p(queue / throughput) / np.log1p(FULL_QUEUE_S),
            queue[-1],
            0,
        ),
    )
    return columns, (share > 0.0) & (capacity == 0.0)


def _curves(canvas: Canvas, batch: Batch, columns: tuple[Column, ...], loading: AnyArray) -> None:
    view, height = batch.view, (BOTTOM - TOP) / batch.num_agents
    for i, name in enumerate(batch.scenario.agent_names):
        top = TOP + i * height
        canvas.text((MARGIN, top), name)
        wait = float(view.loading[0, i])
        canvas.text((MARGIN, top + LINE - 2), f"cold, {wait:.1f} s to load" if wait else "warm", DIM)
        for number, column in enumerate(columns):
            left = NAMES + number * COLUMN
            colours = np.tile(np.array(column.colour, np.uint8), (len(loading), 1))
            least = None
            if column.colour == SHARE:
                colours[loading[:, i]] = LOADING
                least = float(view.min_share[0, i]) / view.max_share
            canvas.area((left, top, PLOT, height - 5), column.levels[:, i], colours, line=least)
            canvas.text((left + PLOT + 8, top), f"{column.now[i]:.{column.digits}f}")


def _heat_maps(canvas: Canvas, names: tuple[str, ...], columns: tuple[Column, ...]) -> None:
    height = (BOTTOM - TOP) / len(names)
    apart = int(np.ceil((LINE - 4) / height))
    for i in range(0, len(names), apart):
        canvas.text((MARGIN, TOP + (i + 0.5) * height - 6), names[i])
    for number, column in enumerate(columns):
        left = NAMES + number * COLUMN
        canvas.heat((left, TOP, PLOT, BOTTOM - TOP), column.levels.T, column.colour)
        for line, words in enumerate(("in all", f"{column.now.sum():.{column.digits}f}")):
            canvas.text((left + PLOT + 8, TOP + line * LINE), words)
