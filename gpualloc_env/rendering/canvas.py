"""A frame of fixed size that pygame draws: texts, boxes, curves and heat maps."""

import os
from functools import cache
from typing import Any

import numpy as np

from gpualloc_env.doors import needed
from gpualloc_env.simulation.state import AnyArray, Array

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""

WIDTH, HEIGHT = 960, 600
PAPER, PANEL, FAINT, LOADING = (255, 255, 255), (243, 244, 246), (205, 209, 216), (165, 165, 165)
INK, DIM = (31, 36, 48), (96, 103, 117)
LINE, SMALL, LARGE = 18, 17, 24
"""Height of a line of text in pixels, and sizes of the font."""


def drawing() -> Any:
    """The pygame module.

    Raises:
        NotInstalled: it is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    return needed("pygame", "render")


@cache
def _metronome() -> Any:
    return drawing().time.Clock()


class Canvas:
    """One frame, `WIDTH` × `HEIGHT` pixels; the same calls draw the same bytes."""

    def __init__(self) -> None:
        """Start with an empty frame."""
        self._pygame = drawing()
        self._pygame.font.init()
        self._surface = self._pygame.Surface((WIDTH, HEIGHT), 0, 32)
        self._surface.fill(PAPER)
        # Whoever closes pygame makes fonts invalid, so that none outlives its frame.
        self._fonts = {size: self._pygame.font.Font(None, size) for size in (SMALL, LARGE)}

    def text(
        self,
        at: tuple[float, float],
        words: str,
        colour: Colour = INK,
        *,
        size: int = SMALL,
        align: float = 0.0,
    ) -> None:
        """Write a line whose top left corner, or as far to the right as `align` says, is `at`."""
        line = self._fonts[size].render(words, True, colour)
        self._surface.blit(line, (round(at[0] - align * line.get_width()), round(at[1])))

    def fitting(self, box: Box, name: str) -> None:
        """Write a name in the middle of a box, cut before its number where it is too wide."""
        font, (left, top, width, height) = self._fonts[SMALL], box
        head, dash, number = name.rpartition("-")
        if not number.isdigit():
            head, dash, number = name, "", ""
        while head and font.size(head + dash + number)[0] > width - 3:
            head = head[:-1]
        words = head + dash + number if head else number
        if font.size(words)[0] <= width - 3 and font.get_height() <= height:
            self.text((left + width / 2, top + (height - font.get_height()) / 2 + 1), words, align=0.5)

    def box(self, box: Box, colour: Colour, *, outline: bool = False) -> None:
        """Fill a box, or draw its outline, 2 pixels wide."""
        left, top, right, bottom = _edges(box)
        place = (left, top, right - left, bottom - top)
        self._pygame.draw.rect(self._surface, colour, place, width=2 if outline else 0)

    def area(self, box: Box, values: Array, colours: AnyArray, *, line: float | None = None) -> None:
        """Fill a box below a curve of steps, the last at its right edge.

        Args:
            box: where.
            values: (t,), as fractions of its height.
            colours: (t, 3) of each step.
            line: a level to mark, as a fraction of its height.
        """
        self.box(box, PANEL)
        left, top, right, bottom = _edges(box)
        steps = _steps(right - left, len(values))
        heights = np.round((bottom - top) * np.clip(values[steps], 0.0, 1.0))
        pixels = self._pygame.surfarray.pixels3d(self._surface)[left:right, top:bottom]
        below = np.arange(bottom - top, 0, -1) <= heights[:, None]
        pixels[below] = np.repeat(colours[steps], heights.astype(int), axis=0)
        if line is not None:
            pixels[::4, round((bottom - top - 1) * (1.0 - line))] = INK

    def heat(self, box: Box, values: Array, colour: Colour) -> None:
        """Draw rows of steps, (rows, t) in [0, 1], whose colour deepens with the square root."""
        left, top, right, bottom = _edges(box)
        rows = np.arange(bottom - top) * len(values) // (bottom - top)
        levels = np.sqrt(np.clip(values, 0.0, 1.0))[rows][:, _steps(right - left, values.shape[1])].T[
            ..., None
        ]
        pixels = self._pygame.surfarray.pixels3d(self._surface)[left:right, top:bottom]
        pixels[...] = np.round((1.0 - levels) * PANEL + levels * np.array(colour))

    def pixels(self) -> AnyArray:
        """The frame, (`HEIGHT`, `WIDTH`, 3) uint8."""
        contents = bytearray(self._pygame.image.tobytes(self._surface, "RGB"))
        return np.frombuffer(contents, np.uint8).reshape(HEIGHT, WIDTH, 3)

    def show(self, frames_per_second: float) -> None:
        """Put the frame in a window, and wait until it is time for the next one."""
        pygame = self._pygame
        pygame.display.init()
        window = pygame.display.get_surface()
        if window is None:
            pygame.display.set_caption("GPUAlloc")
            window = pygame.display.set_mode((WIDTH, HEIGHT))
        window.blit(self._surface, (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        _metronome().tick(frames_per_second)


def close_window() -> None:
    """Close the window in which frames were shown."""
    drawing().display.quit()


def hue(i: int, count: int) -> Colour:
    """A colour for each of some agents, all around the circle of hues."""
    waves = np.cos(2 * np.pi * (i / count + np.array([0.0, 1 / 3, 2 / 3])))
    red, green, blue = (150 + 75 * waves).astype(int).tolist()
    return red, green, blue


def _edges(box: Box) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in whole pixels."""
    left, top, width, height = box
    return round(left), round(top), round(left + width), round(top + height)


def _steps(columns: int, count: int) -> AnyArray:
    """Of some steps that which is drawn in each column of pixels."""
    return np.arange(columns) * count // columns
