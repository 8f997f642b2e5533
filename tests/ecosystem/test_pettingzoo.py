import numpy as np
import pytest
from support.examples import example

checks = pytest.importorskip("pettingzoo.test")

import gymnasium as gym  # noqa: E402

from gpualloc_env import parallel_env  # noqa: E402
from gpualloc_env.parallel import env as turns  # noqa: E402

# Agents have the names of the scenario.
pytestmark = pytest.mark.filterwarnings("ignore:We recommend agents to be named")


@pytest.mark.parametrize("scenario", ["serverless", "team", "fleet"])
def test_its_checkers_find_nothing_wrong(scenario):
    def make():
        return parallel_env(scenario, steps=6)

    checks.parallel_api_test(make(), num_cycles=20)
    checks.parallel_seed_test(make, num_cycles=10)
    checks.api_test(turns(scenario, steps=6), num_cycles=60)
    checks.seed_test(lambda: turns(scenario, steps=6), num_cycles=10)


@pytest.mark.parametrize("reward", ["shared", "own"])
def test_it_plays_the_episode_of_the_single_environment(reward):
    env, single = parallel_env(reward=reward, steps=4), gym.make("GPUAlloc-v0", steps=4)
    rows, _ = env.reset(seed=5)
    observation, _ = single.reset(seed=5)
    for shares in np.random.default_rng(0).dirichlet(np.ones(4), 4):
        assert (np.stack([rows[agent] for agent in env.agents]) == observation).all()
        assert (env.state() == observation).all()
        agents = env.agents
        rows, rewards, _, truncated, infos = env.step(dict(zip(agents, shares[:, None], strict=True)))
        observation, whole, _, over, info = single.step(shares)
        expected = info["agent_reward"].tolist() if reward == "own" else [whole] * 4
        assert list(rewards.values()) == expected and set(truncated.values()) == {over}
        assert [infos[agent]["queue"] for agent in agents] == info["queue"].tolist()
    assert env.agents == [] and env.episode_metrics()["objective"] == info["objective"]


def test_an_unknown_reward_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of shared, own, got 'mine'"):
        parallel_env(reward="mine")


def test_actions_that_are_no_share_for_each_agent_are_refused():
    env = parallel_env("paper", steps=2)
    with pytest.raises(RuntimeError, match=r"never started: call reset\(\)"):
        env.step({})
    env.reset(seed=0)
    shares = {name: [0.25] for name in env.agents}
    for wrong in ({name: shares[name] for name in env.agents[1:]}, {**shares, "coordinator": [0.1, 0.2]}):
        with pytest.raises(ValueError, match=r"one number for each agent, .*'coordinator' has"):
            env.step(wrong)


@pytest.mark.slow
def test_parameters_shared_by_all_agents_are_trained():
    pytest.importorskip("supersuit")
    assert float(example("pettingzoo_shared.py", "--steps", 2048).split()[-1]) > 0
