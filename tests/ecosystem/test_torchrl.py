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


@pytest.mark.parametrize("name", ["GPUAlloc-v0", "GPUCluster-v0"])
def test_the_info_of_a_single_environment_is_registered_by_itself(name):
    env = envs.GymEnv(name, steps=5).auto_register_info_dict()
    envs.check_env_specs(env)
    env.set_seed(7)
    rollout = env.rollout(5).numpy()
    assert not rollout["objective"][0] and not rollout["queue"][0].any()  # of the reset
    then = rollout["next"]
    assert then["objective"][-1] == pytest.approx(-then["reward"].mean(), rel=1e-6)
    assert then["agent_reward"].sum(-1) == pytest.approx(then["reward"][:, 0], rel=1e-6)


def test_ppo_trains_on_the_batch():
    assert "mean reward" in example("torchrl_ppo.py", "--steps", 2048)
