"""PPO in one loop, in the style of CleanRL: nothing but PyTorch and the native batch."""

import argparse
from itertools import pairwise

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import nn
from torch.distributions import Normal

import gpualloc_env
from gpualloc_env.wrappers import SimplexAction

ENVS, ROLLOUT, EPOCHS, BATCH = 32, 32, 7, 256
GAMMA, LAMBDA, CLIP, ENTROPY, LEARNING_RATE = 0.95, 0.9, 0.2, 0.0, 1.2e-3


def network(inputs, outputs, last):
    """Two hidden layers, orthogonal at first, as CleanRL has them; `last` is the gain of the last layer."""
    sizes, gains = (inputs, 64, 64, outputs), (2**0.5, 2**0.5, last)
    layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
    for layer, gain in zip(layers, gains, strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def main(steps: int, episodes: int) -> None:
    """Train for so many steps, and judge on so many held-out episodes."""
    torch.manual_seed(0)
    envs = SimplexAction(gym.make_vec("GPUAlloc-v0", ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    inputs = int(np.prod(envs.single_observation_space.shape))
    outputs = envs.single_action_space.shape[0]
    actor, critic = network(inputs, outputs, last=0.01), network(inputs, 1, last=1.0)
    spread = nn.Parameter(torch.zeros(outputs))
    optimiser = torch.optim.Adam([*actor.parameters(), *critic.parameters(), spread], LEARNING_RATE)
    seen = torch.from_numpy(envs.reset(seed=0)[0]).flatten(1)
    returns, scale = np.zeros(ENVS), 1.0
    for _ in range(max(1, steps // (ENVS * ROLLOUT))):
        rows = []
        for _ in range(ROLLOUT):
            with torch.no_grad():
                policy = Normal(actor(seen), spread.exp())
                action, value = policy.sample(), critic(seen)[:, 0]
                density = policy.log_prob(action).sum(1)
            observation, reward, _, truncated, info = envs.step(action.numpy())
            # Rewards are divided by the spread of the discounted returns.
            returns = GAMMA * returns * ~truncated + reward
            scale = 0.99 * scale + 0.01 * float(np.abs(returns).mean())
            reward = torch.tensor(reward / scale, dtype=torch.float32)
            # An episode is cut off, not over: what would have followed counts.
            if truncated.any():
                last = torch.from_numpy(np.stack(info["final_obs"][truncated])).flatten(1)
                with torch.no_grad():
                    reward[torch.from_numpy(truncated)] += GAMMA * critic(last)[:, 0]
            going = torch.from_numpy(~truncated).float()
            rows.append((seen, action, density, value, reward, going))
            seen = torch.from_numpy(observation).flatten(1)
        seens, actions, densities, values, rewards, goings = (torch.stack(x) for x in zip(*rows, strict=True))
        with torch.no_grad():
            following, advantage, advantages = critic(seen)[:, 0], torch.zeros(ENVS), []
            for t in reversed(range(ROLLOUT)):
                surprise = rewards[t] + GAMMA * goings[t] * following - values[t]
                advantage = surprise + GAMMA * LAMBDA * goings[t] * advantage
                following, advantages = values[t], [advantage, *advantages]
        gains = torch.stack(advantages)
        flat = [x.flatten(0, 1) for x in (seens, actions, densities, gains, gains + values)]
        for _ in range(EPOCHS):
            for chosen in torch.randperm(ENVS * ROLLOUT).split(BATCH):
                seen_, action_, density_, gain, target = (x[chosen] for x in flat)
                policy = Normal(actor(seen_), spread.exp())
                ratio = (policy.log_prob(action_).sum(1) - density_).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                surrogate = torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                error = (critic(seen_)[:, 0] - target).square().mean()
                loss = 0.5 * error - surrogate - ENTROPY * policy.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    @torch.no_grad()
    def learned(observation):
        logits = actor(torch.from_numpy(observation).flatten()[None]).numpy()
        return gpualloc_env.action_transform.simplex(4)(observation[None], logits)[0]

    print("PPO", gpualloc_env.evaluate(learned, "serverless", episodes)["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    main(**vars(parser.parse_args()))
