"""Record a policy's episodes as a Minari data set, for learning offline.

python -m training.record --policy receding-horizon --scenario serverless --episodes 100
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np

from baselines import PRIVILEGED, algorithm_1_of, fresh, is_baseline, lower_bounds, policy_for
from gpualloc_env.doors import needed
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.policies import load_policy
from training.cli import run, status_console, track
from training.evaluation.evaluate import rollout
from training.evaluation.held_out import held_out_scenario
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.limits import Limits


@dataclass(frozen=True)
class RecordConfig(Overrides):
    """Record a policy's episodes as a Minari data set."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    policy: str = "receding-horizon"
    """A baseline, an exported allocator (.npz), the directory of a training run, or module:name."""
    episodes: Annotated[int, Limits(1)] = 100
    """Episodes to record."""
    seed: Annotated[int, Limits(0)] = FIRST_TRAINING_SEED
    """Seed of the first episode; the others follow it. The default keeps held-out episodes unseen."""
    dataset: str | None = None
    """Id of the data set; by default gpualloc/SCENARIO/POLICY-v0. It must be new."""
    reference_episodes: Annotated[int, Limits(1)] = 20
    """Held-out episodes, the first seeded 10000, over which the reference scores are means of: Algorithm 1's
    return, a score of 0, and the return that no policy exceeds, a score of 1."""


def main(config: RecordConfig) -> None:
    """Play the episodes one after another, with everything that `info` shows, and write the data set."""
    minari: Any = needed("minari", "minari")
    status = status_console()
    scenario = load_scenario(config.scenario, config)
    if config.policy in PRIVILEGED:
        raise ValueError(
            f"policy {config.policy!r} knows the future: nothing that learns from it could do so"
        )
    policy = load_policy(config.policy, scenario)
    words = config.policy.translate(str.maketrans(":+", "--"))
    policy_name = words if is_baseline(config.policy) else Path(words).stem
    name = config.dataset or f"gpualloc/{scenario.name}/{policy_name}-v0"
    if name in minari.list_local_datasets():
        raise ValueError(f"data set {name!r} exists; give another --dataset, or `minari delete {name}`")
    lowest, highest = reference_returns(scenario, config)
    changes: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value for key, value in config.changes.items()
    }
    env = minari.DataCollector(
        gym.make("GPUCluster-v0" if scenario.nodes else "GPUAlloc-v0", scenario=config.scenario, **changes),
        record_infos=True,
    )
    for k in track(range(config.episodes), f"Recording {config.policy} on {scenario.name}", status):
        decide, truncated = fresh(policy), False
        env.reset(seed=config.seed + k)
        while not truncated:
            # What a policy asks for adds up to rounding: the recorded action is the one that was played.
            shares = np.clip(decide(env.unwrapped.view), 0.0, 1.0).astype(np.float32)
            truncated = env.step(shares)[3]
    env.create_dataset(
        dataset_id=name,
        algorithm_name=config.policy,
        description=f"{config.policy} on scenario {scenario.name!r}, episodes seeded {config.seed} and on",
        ref_min_score=lowest,
        ref_max_score=highest,
        requirements=["gpualloc-env"],
    )
    env.close()
    print(f"Recorded {config.episodes} episodes: minari.load_dataset({name!r})")


def reference_returns(scenario: Scenario, config: RecordConfig) -> tuple[float, float]:
    """Mean returns of Algorithm 1 and of the bound on held-out episodes."""
    held_out, episodes = held_out_scenario(config.scenario, config), config.reference_episodes
    algorithm_1 = policy_for(algorithm_1_of(held_out), held_out)
    adaptive = rollout(algorithm_1, held_out, episodes, 10000, record=False)
    return float(adaptive.totals["reward"].mean()), float(
        -lower_bounds(held_out, episodes, 10000, workers=1).mean() * scenario.steps
    )


if __name__ == "__main__":
    run(main, RecordConfig)
