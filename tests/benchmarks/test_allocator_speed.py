"""Time of one decision of an exported allocator, as a fraction of stable-baselines3's `predict`.

A benchmark measures; nothing here fails because a machine is slow.
"""

from time import perf_counter

import numpy as np
import pytest
from stable_baselines3 import PPO

from gpualloc_env import Batch, load_scenario
from gpualloc_env.allocator import Allocator
from training.policies import read_transform

DECISIONS = 500


def seconds(decide):
    """Time of each of so many decisions, (DECISIONS,) [s]."""
    stamps = np.empty(DECISIONS + 1)
    stamps[0] = perf_counter()
    for k in range(DECISIONS):
        decide()
        stamps[k + 1] = perf_counter()
    return np.diff(stamps)


@pytest.mark.parametrize("state", ["observation", "view"])
@pytest.mark.parametrize("form", ["npz", "onnx"])
def test_one_decision(benchmark, record, exported, trained_run, form, state):
    batch = Batch(load_scenario("serverless"), 1)
    batch.seed(0)
    batch.reset()
    observation = batch.observation[0]
    rows = {name: values[0] for name, values in batch.view._asdict().items() if np.ndim(values)}
    view = batch.view._replace(**rows)
    model, transform = PPO.load(trained_run / "model.zip", device="cpu"), read_transform(trained_run)
    hidden_from_it = np.zeros((1, 4, model.observation_space.shape[1] - observation.shape[1]))
    seen = np.concatenate([observation[None], hidden_from_it], axis=-1, dtype=np.float32)
    allocator = Allocator.load(exported[form])

    def trained():
        return transform(observation[None], model.predict(seen, deterministic=True)[0])[0]

    def taken():
        return allocator(observation) if state == "observation" else allocator.decide(view)

    assert taken() == pytest.approx(trained(), abs=1e-6)
    chunks = {"trained": [], "taken": []}

    def both():
        # Chunk beside chunk, because a shared machine's speed drifts.
        chunks["trained"].append(seconds(trained))
        chunks["taken"].append(seconds(taken))

    benchmark.pedantic(both, rounds=20, warmup_rounds=1)
    quantiles = {name: 1e6 * np.quantile(times[1:], [0.5, 0.99]) for name, times in chunks.items()}
    medians = [np.median(chunks[name][1:], axis=1) for name in ("trained", "taken")]
    median, high = quantiles["taken"]
    record(
        "One decision of an exported allocator for four agents",
        f"`.{form}`, from {'an' if state == 'observation' else 'a'} {state}",
        median,
        "µs",
        f"p99 {high:.0f} µs; {np.median(medians[0] / medians[1]):.1f} times faster than stable-baselines3's "
        f"`predict`, {quantiles['trained'][0]:.0f} µs",
    )
    assert not allocator.fallbacks
