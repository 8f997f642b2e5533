import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode
from support.examples import example

import gpualloc_env  # noqa: F401  registers the environment

envs = pytest.importorskip("torchrl.envs")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_its_checker_finds_nothing_wrong_with_the_batch_and_its_rollouts_hold_info(mode):
    batch = gym.make_vec("GPUAlloc-v0", 3, steps=5, autoreset_mode=mode)
    env = envs.GymWrapper(batch)
    if mode is AutoresetMode.DISABLED:
        env = env.auto_register_info_dict()
    envs.check_env_specs(env)
    rollout = env.rollout(11, break_when_any_done=False)
    assert rollout["next", "truncated"].sum() == 3 * 2
    assert rollout["next", "agent_reward"].sum(-1).shape == (3, 11)


def test_ppo_trains_on_the_batch():
    assert "mean reward" in example("torchrl_ppo.py", "--steps", 2048)
