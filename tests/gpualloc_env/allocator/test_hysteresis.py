"""Shares that follow those on the simplex with hysteresis."""

import numpy as np
import pytest

from gpualloc_env import Batch, load_scenario
from gpualloc_env.action_transform import hysteresis, simplex
from gpualloc_env.simulation.observation import observe
from training.learning.allocators.action_transform import ActionTransform

NEVER, ALWAYS = 6.0, -6.0
"""Outputs for a threshold at which an agent does not move, and at which it does for more than .0002 GPU."""


def decided(view, logits, thresholds, idle=0.0, **settings):
    """The shares of one environment, (N,), from its view and again from its observation."""
    transform = hysteresis(len(logits))
    transform = ActionTransform(len(logits), transform.settings | {"idle_bias": 0.0, **settings})
    actions = np.array([[*np.stack([logits, thresholds], axis=1).ravel(), idle]])
    rows = observe(view)
    shares = transform(rows, actions, view)
    assert transform(rows, actions) == pytest.approx(shares, abs=1e-6)
    return shares[0]


def view_of(held, **changes):
    """The view of `serverless` with these shares held [GPU]."""
    batch = Batch(load_scenario("serverless"), 1)
    batch.seed(0)
    batch.reset()
    return batch.view._replace(share=np.array([held]), **changes)


def test_an_agent_moves_where_the_change_exceeds_its_threshold_and_drifts_elsewhere():
    # On the simplex each of the four has 1/5; the deadband is .02.
    view = view_of([0.25, 0.1, 0.195, 0.05])
    shares = decided(view, np.zeros(4), np.array([NEVER, NEVER, NEVER, ALWAYS]), idle=np.log(1 / 4))
    assert shares == pytest.approx([0.23, 0.12, 0.2, 0.2], abs=3e-6)


def test_those_that_move_share_what_the_others_leave():
    # Two hold .8 of the platform; the other two ask for 1/4 each and get half of what is left.
    view = view_of([0.4, 0.4, 0.0, 0.0])
    shares = decided(view, np.zeros(4), np.array([NEVER, NEVER, ALWAYS, ALWAYS]), idle=-30.0, bound=40.0)
    assert shares == pytest.approx([0.38, 0.38, 0.12, 0.12], abs=3e-6)


def test_what_rises_takes_no_more_than_there_is():
    view = view_of([0.0, 0.33, 0.33, 0.33])
    shares = decided(view, np.array([-30.0, 5, 5, 5]), np.full(4, NEVER), idle=-30.0, bound=40.0)
    assert shares == pytest.approx([0.0, 1 / 3, 1 / 3, 1 / 3], abs=3e-6)
    full = view_of([0.7, 0.7, 0.0, 0.0])
    assert decided(full, np.zeros(4), np.full(4, NEVER), idle=-30.0, bound=40.0).sum() <= 1.0


def test_thresholds_and_drift_are_in_gpus():
    # Each has 1 GPU of 8 and would have 1.04: a drift of .02 GPU is .0025 of the platform.
    view, idle = view_of([1.0, 1.0, 1.0, 1.0], gpus=8.0), np.log(0.25 / 0.13 - 1.0)
    assert decided(view, np.zeros(4), np.full(4, NEVER), idle) == pytest.approx(np.full(4, 0.1275), abs=1e-6)
    assert decided(view, np.zeros(4), np.full(4, ALWAYS), idle) == pytest.approx(np.full(4, 0.13), abs=1e-6)


def test_a_drift_costs_no_reallocation_and_a_move_does():
    scenario = load_scenario("serverless", steps=50)
    for threshold, least, most in ((NEVER, 0, 0), (ALWAYS, 50, 200)):
        batch = Batch(scenario, 3)
        batch.seed(1)
        batch.reset()
        transform = ActionTransform(4, hysteresis(4).settings | {"widest": 4.0})
        rng, charged = np.random.default_rng(0), np.zeros(3)
        for _ in range(50):
            actions = rng.normal(size=(3, 9))
            actions[:, 1:8:2] = threshold
            batch.step(transform(batch.observation, actions, batch.view))
            charged += batch.outcome["reallocated"].sum(axis=1)
        assert (least <= charged).all() and (charged <= most).all()


def test_without_thresholds_the_shares_are_those_on_the_simplex():
    view, rng = view_of([0.0, 0.0, 0.0, 0.0]), np.random.default_rng(3)
    logits = rng.normal(size=4)
    shares = decided(view, logits, np.full(4, ALWAYS), idle=0.3, idle_bias=-3.4)
    expected = simplex(4)(observe(view), np.array([[*logits, 0.3]]))[0]
    assert shares == pytest.approx(expected, abs=1e-9)
