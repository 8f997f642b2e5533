import gymnasium as gym
import numpy as np
import pytest
from support.examples import example

from gpualloc_env.simulation.state import TERMS

WEIGHTS = {"latency": 1.0, "cost": 2.0, "throughput": 3.0, "slo": 4.0, "shortfall": 5.0, "task": 6.0}


@pytest.mark.parametrize("scenario", ["serverless", "team"])
def test_linear_scalarisation_reproduces_the_reward(scenario):
    many = gym.make("GPUAlloc-MO-v0", scenario=scenario, steps=8, objective=WEIGHTS)
    one = gym.make("GPUAlloc-v0", scenario=scenario, steps=8, objective=WEIGHTS)
    weights = many.unwrapped.weights
    assert weights.tolist() == list(WEIGHTS.values()) and many.unwrapped.reward_space.shape == weights.shape
    many.reset(seed=1)
    one.reset(seed=1)
    for shares in np.random.default_rng(0).dirichlet(np.ones(4), 8):
        (_, vector, *_), (_, reward, *_, info) = many.step(shares), one.step(shares)
        assert many.unwrapped.reward_space.contains(vector)
        assert weights @ vector == pytest.approx(reward, rel=1e-12)
        assert (np.abs(vector) == [info[term] for term in TERMS]).all()
        assert vector[TERMS.index("throughput")] >= 0 >= vector[TERMS.index("latency")]


def test_its_wrapper_makes_the_reward_of_the_single_objective():
    mo = pytest.importorskip("mo_gymnasium")
    many, one = mo.make("GPUAlloc-MO-v0", steps=3), gym.make("GPUAlloc-v0", steps=3)
    scalar = mo.wrappers.LinearReward(many, weight=many.unwrapped.weights)
    scalar.reset(seed=1)
    one.reset(seed=1)
    assert scalar.step(np.full(4, 0.2))[1] == pytest.approx(one.step(np.full(4, 0.2))[1])


@pytest.mark.slow
def test_ppo_trains_with_two_weights():
    pytest.importorskip("mo_gymnasium")
    assert example("multi_objective.py", "--steps", 64).count("weight of cost") == 2


@pytest.mark.slow
def test_capql_trains_one_policy_for_all_weights():
    pytest.importorskip("morl_baselines")
    assert example("morl_capql.py", "--steps", 400).count("weight of cost") == 2
