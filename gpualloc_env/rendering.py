"""Pictures of a single environment: a table of text, and an image of bars."""

import numpy as np

from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray

WIDTH, ROW_HEIGHT, GAP = 480, 40, 10
BACKGROUND, SHARE_COLOUR, QUEUE_COLOUR, LOADING_COLOUR = (
    (250, 250, 250),
    (42, 111, 187),
    (214, 96, 77),
    (170,) * 3,
)


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


def render_rgb(view: View) -> AnyArray:
    """An image, (H, W, 3) uint8: for each agent a bar of its share above a bar of its queue.

    The share's bar is grey while the model loads. The queue's bar is x / (1 + x) of the seconds
    that one whole GPU would need to serve it.
    """
    count = len(view.queue)
    image = np.full((count * (ROW_HEIGHT + GAP) + GAP, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    seconds = view.queue / view.throughput
    for i in range(count):
        top = GAP + i * (ROW_HEIGHT + GAP)
        middle = top + ROW_HEIGHT // 2
        share = int(WIDTH * view.share[i] / view.max_share)
        queue = int(WIDTH * seconds[i] / (1 + seconds[i]))
        image[top:middle, :share] = LOADING_COLOUR if view.loading[i] > 0 else SHARE_COLOUR
        image[middle : top + ROW_HEIGHT, :queue] = QUEUE_COLOUR
    return image


def render_cluster_text(view: ClusterView, names: tuple[str, ...]) -> str:
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


def _colour(i: int, agents: int) -> tuple[int, int, int]:
    """A colour for each agent, all around the circle of hues."""
    waves = np.cos(2 * np.pi * (i / agents + np.array([0.0, 1 / 3, 2 / 3])))
    red, green, blue = (140 + 80 * waves).astype(int).tolist()
    return red, green, blue


def render_cluster_rgb(view: ClusterView) -> AnyArray:
    """An image, (H, W, 3) uint8: a row for each GPU, the models in its memory by colour.

    A block is as wide as the part of the memory that the model takes. Its lower part is filled as far as its
    share goes, grey while it loads; nodes are set apart by a gap.
    """
    agents, gpus = view.share.shape
    apart = np.concatenate(([0], np.cumsum(np.diff(view.node) > 0)))
    image = np.full((gpus * (ROW_HEIGHT + GAP) + (1 + apart[-1]) * GAP, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    for k in range(gpus):
        top, left = GAP + k * (ROW_HEIGHT + GAP) + apart[k] * GAP, 0.0
        for i in np.flatnonzero(view.resident[:, k]).tolist():
            width = WIDTH * view.need_mb[i] / view.memory_mb[k]
            block = slice(round(left), round(left + width))
            image[top : top + ROW_HEIGHT // 2, block] = _colour(i, agents)
            filled = slice(block.start, round(left + width * min(1.0, view.share[i, k])))
            image[top + ROW_HEIGHT // 2 : top + ROW_HEIGHT, filled] = (
                LOADING_COLOUR if view.loading[i, k] > 0 else SHARE_COLOUR
            )
            left += width
    return image
