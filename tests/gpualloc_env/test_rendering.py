import copy
import itertools
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordVideo

from gpualloc_env import CLUSTERS
from gpualloc_env.rendering.canvas import HEIGHT, LOADING, PANEL, WIDTH
from gpualloc_env.rendering.pool import BOTTOM, COLUMN, NAMES, PLOT, SHARE, TOP, last_minute

pygame = pytest.importorskip("pygame")


def made(scenario="serverless", render_mode="rgb_array", **options):
    prefix = "GPUCluster" if scenario in CLUSTERS else "GPUAlloc"
    return gym.make(f"{prefix}-v0", scenario=scenario, render_mode=render_mode, **options)


def frames(env, seed, steps=3):
    env.reset(seed=seed)
    shown = [env.render()]
    for action in np.random.default_rng(0).random((steps, *env.action_space.shape)):
        env.step(action)
        shown.append(env.render())
    return np.stack(shown)


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("paper", {"agents": 2}),
        ("team", {}),
        ("serverless", {"agents": 13}),
        ("fleet", {}),
        *((name, {}) for name in CLUSTERS),
    ],
)
def test_a_frame_has_one_size_and_depends_on_the_episode_alone(scenario, options):
    ours = frames(made(scenario, **options), 5)
    assert ours.shape == (4, HEIGHT, WIDTH, 3) and ours.dtype == np.uint8
    assert np.array_equal(ours, frames(made(scenario, **options), 5))
    assert all((before != after).any() for before, after in itertools.pairwise(ours))


@pytest.mark.parametrize("scenario", ["serverless", "llm"])
def test_a_frame_shows_what_arrived_last(scenario):
    env = made(scenario).unwrapped
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.full(4, 0.25))
        (arrivals, _, _), _ = last_minute(env._batch, env.view)
        assert arrivals.now.tolist() == pytest.approx((env.view.inflow / env.scenario.dt).tolist())


def share_plot(frame, agent, agents=4):
    """The bottom right corner of an agent's curve of shares, (height, width, 3): its last ten pixels."""
    height = (BOTTOM - TOP) / agents
    top, right = round(TOP + agent * height), NAMES + COLUMN + PLOT
    return frame[top : round(top + height - 5), right - 10 : right]


def test_the_curve_of_shares_is_as_high_as_the_share_and_grey_while_the_model_loads():
    env = made()
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.array([0.5, 0.0, 0.25, 0.0]))
    half, none, quarter, _ = (share_plot(env.render(), agent) for agent in range(4))
    parts = [(plot == SHARE).all(axis=-1).mean() for plot in (half, none, quarter)]
    assert parts == pytest.approx(
        [0.5, 0.0, 0.25], abs=0.02
    )  # the dots of the minimum share take a few pixels
    assert ((none == PANEL).all(axis=-1)).mean() > 0.95
    for _ in range(3):  # of the four seconds that it takes to load
        env.step(np.array([0.5, 0.5, 0.0, 0.0]))
    loading = share_plot(env.render(), 1)[:, -3:]
    assert (loading == LOADING).all(axis=-1).any() and not (loading == SHARE).all(axis=-1).any()


@pytest.mark.parametrize("scenario", ["serverless", "cluster-small"])
def test_gymnasium_finds_nothing_wrong_with_any_mode(scenario, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(made(scenario, steps=5).unwrapped)


def test_a_window_shows_each_step_by_itself_and_is_closed_with_the_environment(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = made(render_mode="human").unwrapped
    silent = made().unwrapped
    env.metadata = {**env.metadata, "render_fps": 1000}
    for one in (env, silent):
        one.reset(seed=1)
        one.step(np.full(4, 0.2))
    window = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    assert np.array_equal(window, silent.render())
    other = copy.deepcopy(env)
    assert np.array_equal(other.step(np.full(4, 0.1))[0], env.step(np.full(4, 0.1))[0])
    env.close()
    assert not pygame.display.get_init()


def test_a_clip_is_recorded(tmp_path):
    pytest.importorskip("moviepy")
    env = RecordVideo(made(steps=3), str(tmp_path / "clips"), episode_trigger=lambda _: True)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.full(4, 0.2))
    env.close()
    (clip,) = tmp_path.glob("clips/*.mp4")
    assert clip.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("mode", ["human", "rgb_array"])
def test_where_nothing_can_draw_the_error_says_what_to_install(mode, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(
        DependencyNotInstalled, match=r"pygame is not installed: pip install 'gpualloc-env\[render\]'"
    ):
        made(render_mode=mode)


def test_an_unknown_mode_is_refused_with_the_known_ones():
    from gpualloc_env.env import GPUAllocEnv

    with pytest.raises(ValueError, match="'human', 'rgb_array', 'ansi' or None, got 'svg'"):
        GPUAllocEnv(render_mode="svg")
