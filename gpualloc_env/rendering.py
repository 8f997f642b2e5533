"""Pictures of a single environment: a table of text, and an image of bars."""

import numpy as np

from gpualloc_env.simulation.observation import View
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
