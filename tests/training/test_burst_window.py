"""Which part of which episode the figure of a burst shows."""

import numpy as np

from training.burst_figure import window


def test_the_busy_window_with_the_largest_gain_is_shown():
    first, last = map(np.array, ([[1, 1, 8, 8], [8, 8, 8, 8]], [[0, 0, 8, 8], [8, 8, 2, 2]]))
    # The whole backlog is gained where hardly any is; the busy windows decide.
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, 0.75)


def test_where_nothing_is_gained_the_least_loss_among_busy_windows_is_shown():
    first, last = map(np.array, ([[1, 1, 8, 8], [8, 8, 8, 8]], [[1, 1, 16, 16], [24, 24, 12, 12]]))
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, -0.5)
