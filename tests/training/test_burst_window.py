"""Which part of which episode the figure of a burst shows."""

from dataclasses import replace

import numpy as np

from gpualloc_env.scenario.loading import load_scenario
from training.burst_figure import window
from training.evaluation.evaluate import evaluate


def backlogs(**by_policy):
    """Evaluations whose agents' backlogs, (E, T), are given; the first agent has all of it."""
    scenario = load_scenario("paper", steps=4)
    made = []
    for name, backlog in by_policy.items():
        run = evaluate(name, lambda view: np.full_like(view.queue, 0.25), scenario, len(backlog), 0)
        run.batch.history["backlog"] = 0.0
        run.batch.history["backlog"][:, :, 0] = backlog
        made.append(replace(run, policy=name))
    return made


def test_the_busy_window_with_the_largest_gain_is_shown():
    first, last = backlogs(first=[[1, 1, 8, 8], [8, 8, 8, 8]], last=[[0, 0, 8, 8], [8, 8, 2, 2]])
    # The whole backlog is gained where hardly any is; the busy windows decide.
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, 0.75)


def test_where_nothing_is_gained_the_least_loss_among_busy_windows_is_shown():
    first, last = backlogs(first=[[1, 1, 8, 8], [8, 8, 8, 8]], last=[[1, 1, 16, 16], [24, 24, 12, 12]])
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, -0.5)
