"""PPO of TorchRL on the native batch."""

import argparse

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from tensordict.nn import TensorDictModule
from tensordict.nn.distributions import NormalParamExtractor
from torch import nn
from torchrl.envs import GymWrapper
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from gpualloc_env.wrappers import SimplexAction

ENVS, ROLLOUT, EPOCHS = 32, 64, 7


def main(steps: int) -> None:
    """Train for so many steps; prints the mean reward of each rollout."""
    torch.manual_seed(0)
    batch = gym.make_vec("GPUAlloc-v0", ENVS, autoreset_mode=AutoresetMode.DISABLED)
    env = GymWrapper(SimplexAction(batch)).auto_register_info_dict()
    env.set_seed(0)
    inputs, outputs = env.observation_spec["observation"].shape[-2:].numel(), env.action_spec.shape[-1]
    body = nn.Sequential(
        nn.Flatten(-2), nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 2 * outputs), NormalParamExtractor()
    )
    actor = ProbabilisticActor(
        TensorDictModule(body, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": env.action_spec.space.low[0], "high": env.action_spec.space.high[0]},
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(nn.Flatten(-2), nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 1)))
    advantage = GAE(gamma=0.95, lmbda=0.9, value_network=critic)
    objective = ClipPPOLoss(actor, critic)
    optimiser = torch.optim.Adam(objective.parameters(), 1.2e-3)
    for _ in range(max(1, steps // (ENVS * ROLLOUT))):
        with torch.no_grad():
            data = env.rollout(ROLLOUT, actor, break_when_any_done=False)
        for _ in range(EPOCHS):
            advantage(data)
            losses = objective(data)
            loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(objective.parameters(), 0.5)
            optimiser.step()
        print(f"mean reward {data['next', 'reward'].mean():.3f}, J {data['next', 'objective'].mean():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    main(**vars(parser.parse_args()))
