"""Which part of which episode the figure of a burst shows."""

import numpy as np
import pytest

from gpualloc_env import load_scenario
from training import burst_figure
from training.burst_figure import BurstFigureConfig, window
from training.limits import check_limits


def test_the_busy_window_with_the_largest_gain_is_shown():
    first, last = map(np.array, ([[1, 1, 8, 8], [8, 8, 8, 8]], [[0, 0, 8, 8], [8, 8, 2, 2]]))
    # The whole backlog is gained where hardly any is; the busy windows decide.
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, 0.75)


def test_where_nothing_is_gained_the_least_loss_among_busy_windows_is_shown():
    first, last = map(np.array, ([[1, 1, 8, 8], [8, 8, 8, 8]], [[1, 1, 16, 16], [24, 24, 12, 12]]))
    episode, start, gain = window(first, last, 2)
    assert (episode, start) == (1, 2) and np.isclose(gain, -0.5)


@pytest.mark.parametrize(
    ("name", "policies", "gpus"), [("fleet", ("static",), 8), ("cluster-small", ("lru",), 4)]
)
def test_the_axis_of_shares_ends_at_all_gpus(name, policies, gpus, tmp_path, monkeypatch):
    scenario, figures = load_scenario(name), []
    assert (scenario.num_gpus or scenario.platform.gpus) == gpus
    monkeypatch.setattr(burst_figure, "save", lambda figure, path: figures.append(figure))
    burst_figure.main(
        BurstFigureConfig(policies, scenario=name, episodes=2, steps=9, out=tmp_path / "burst.png")
    )
    shares = figures[0].axes[1]
    assert shares.get_ylabel() == "GPU" and shares.get_ylim() == (0, gpus)


def test_a_window_has_an_end(tmp_path):
    with pytest.raises(ValueError, match="seconds must be at most 1000000000, got inf"):
        check_limits(BurstFigureConfig(("static",), seconds=np.inf, out=tmp_path / "burst.png"))
