"""Time of one decision of an exported allocator, as a fraction of stable-baselines3's `predict`.

A benchmark measures; nothing here fails because a machine is slow.
"""

from time import perf_counter

import numpy as np
import pytest
from stable_baselines3 import PPO
from support.places import PRETRAINED

from gpualloc_env import Batch, load_scenario
from gpualloc_env.allocator.allocator import Allocator
from training.artifacts.policies import read_transform

STATES, DECISIONS = 50, 500
"""States of an episode that are decided in turn, and decisions in a chunk."""
SHARED = {
    "ppo-shared": PRETRAINED / "ppo-shared-serverless" / "seed-0.npz",
    "ppo-residual": PRETRAINED / "ppo-residual-serverless" / "seed-0.npz",
}


@pytest.fixture(scope="module")
def files(exported):
    """Exported allocators by name: the tests' own `ppo`, and those of the repository."""
    return {"ppo": exported["npz"], **SHARED}


@pytest.fixture(scope="module")
def played():
    """Observations, (N, F), and views, of an episode under equal shares."""
    batch = Batch(load_scenario("serverless"), 1)
    batch.seed(0)
    batch.reset()
    observations, views = [], []
    for _ in range(STATES):
        batch.step(np.full((1, 4), 0.25))
        observations.append(batch.observation[0].copy())
        rows = {name: values[0].copy() for name, values in batch.view._asdict().items() if np.ndim(values)}
        views.append(batch.view._replace(**rows))
    return observations, views


def seconds(decide, states):
    """Time of each of so many decisions, (DECISIONS,) [s]."""
    stamps = np.empty(DECISIONS + 1)
    stamps[0] = perf_counter()
    for k in range(DECISIONS):
        decide(states[k % STATES])
        stamps[k + 1] = perf_counter()
    return np.diff(stamps)


def quiet(chunks):
    """Median and p99 [µs] of a chunk of decisions, the lower quartile over the chunks of each.

    What else a machine does only adds to either.
    """
    return 1e6 * np.quantile(np.quantile(chunks, [0.5, 0.99], axis=1), 0.25, axis=1)


@pytest.mark.parametrize("state", ["observation", "view"])
@pytest.mark.parametrize("name", ["ppo", *SHARED])
def test_one_decision(benchmark, record, files, trained_run, played, name, state):
    observations, views = played
    model, transform = PPO.load(trained_run / "model.zip", device="cpu"), read_transform(trained_run)
    hidden_from_it = np.zeros((1, 4, model.observation_space.shape[1] - observations[0].shape[1]))
    seen = [
        np.concatenate([observation[None], hidden_from_it], axis=-1, dtype=np.float32)
        for observation in observations
    ]
    allocator = Allocator.load(files[name])
    taken, states = (allocator, observations) if state == "observation" else (allocator.decide, views)

    def trained(rows):
        return model.predict(rows, deterministic=True)[0]

    if name == "ppo":
        for k in range(STATES):
            shares = transform(observations[k][None], trained(seen[k]))[0]
            assert taken(states[k]) == pytest.approx(shares, abs=1e-6)
    chunks = {"trained": [], "taken": []}

    def both():
        # Chunk beside chunk, because a shared machine's speed drifts.
        chunks["trained"].append(seconds(trained, seen))
        chunks["taken"].append(seconds(taken, states))

    benchmark.pedantic(both, rounds=40, warmup_rounds=1)
    reference, own = quiet(chunks["trained"][1:]), quiet(chunks["taken"][1:])
    record(
        "One decision of an exported allocator for four agents",
        f"`{name}`, from {'an' if state == 'observation' else 'a'} {state}",
        own[0],
        "µs",
        f"p99 {own[1]:.0f} µs; {reference[0] / own[0]:.1f} times faster than stable-baselines3's `predict`, "
        f"{reference[0]:.0f} µs, p99 {reference[1]:.0f} µs",
    )
    assert not allocator.fallbacks
