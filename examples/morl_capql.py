"""One policy for every weighing of the objectives: CAPQL of morl-baselines on `GPUAlloc-MO-v0`."""

import argparse

import mo_gymnasium
import numpy as np
from gymnasium.wrappers import FlattenObservation
from morl_baselines.multi_policy.capql.capql import CAPQL

from gpualloc_env.simulation.state import TERMS
from gpualloc_env.wrappers import SimplexAction


def make():
    """An environment whose reward is the vector of terms, its observation a vector."""
    return FlattenObservation(SimplexAction(mo_gymnasium.make("GPUAlloc-MO-v0")))


def main(steps: int) -> None:
    """Train for so many steps, then play one episode with each of two weights of cost."""
    env = make()
    learner = CAPQL(env, gamma=0.95, learning_starts=min(1000, steps // 2), log=False, seed=0, device="cpu")
    worst = np.full(len(TERMS), -1000.0)
    learner.train(steps, eval_env=make(), ref_point=worst)
    for cost in (0.2, 5.0):
        weights = env.unwrapped.weights.copy()
        weights[TERMS.index("cost")] = cost
        observation, _ = env.reset(seed=10000)
        rewards, truncated = [], False
        while not truncated:
            action = learner.eval(observation, weights / weights.sum())
            observation, reward, _, truncated, _ = env.step(action)
            rewards.append(reward)
        terms = dict(zip(TERMS, np.mean(rewards, axis=0).round(3).tolist(), strict=True))
        print(f"weight of cost {cost}:", terms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps (default: 10000)")
    main(**vars(parser.parse_args()))
