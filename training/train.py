"""Train a PPO allocator on the native batch.

python -m training.train --scenario serverless --allocator ppo --total-steps 1000000 --out runs/my-ppo
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from gpualloc_env.scenario import load_scenario
from gpualloc_env.traces import Split
from training.callbacks import callbacks
from training.failure import fail
from training.policies import CONFIG, MODEL, NORMALISER, TRANSFORM
from training.provenance import write_config
from training.sb3_vec_env import BatchVecEnv
from training.seeds import FIRST_TRAINING_SEED


@dataclass(frozen=True)
class TrainConfig:
    """Train a PPO allocator on the native batch."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    allocator: Literal["ppo"] = "ppo"
    """`ppo`: a multilayer perceptron over the whole observation, actions on the simplex."""
    total_steps: int = 1_000_000
    """Steps of experience, over all environments."""
    seed: int = 0
    """Seeds the environments, the network and its exploration."""
    out: Path = Path("runs/my-ppo")
    """Directory for the model, checkpoints, configuration and TensorBoard run."""
    load: float | None = None
    """Load to which the traffic is rescaled, 1.0 being the platform's capacity; default: the scenario's."""
    steps: int | None = None
    """Steps of an episode; default: the scenario's."""
    dt: float | None = None
    """Length of a step [s]; default: the scenario's."""
    trace: Path | None = None
    """A request log that replaces the scenario's traffic; its training windows are played."""
    split: Split | None = None
    """Windows of the log to play; default: `train`."""
    num_envs: int = 64
    """Environments advanced side by side."""
    rollout_steps: int = 128
    """Steps of each environment between two updates."""
    batch_size: int = 2048
    """Transitions in a gradient step."""
    epochs: int = 4
    """Passes over the transitions of an update."""
    learning_rate: float = 1e-3
    """Of Adam at the start; it falls linearly to zero."""
    gamma: float = 0.99
    """Discount of a step."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers, of the policy and of the value function each."""
    checkpoint_every: int = 250_000
    """Steps between two checkpoints."""
    progress: bool = True
    """Show a progress bar."""


def main(config: TrainConfig) -> None:
    """Train, then save the model and everything that it needs to act as it did."""
    try:
        check(config)
        scenario = load_scenario(
            config.scenario,
            steps=config.steps,
            dt=config.dt,
            load=config.load,
            trace=config.trace,
            split=config.split,
        )
        env = BatchVecEnv(scenario, config.num_envs, FIRST_TRAINING_SEED * (1 + config.seed))
        config.out.mkdir(parents=True, exist_ok=True)
        write_config(config.out / CONFIG, asdict(config))
    except (ValueError, OSError) as error:
        fail(error)
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    normalised = VecNormalize(env, norm_obs=False, gamma=config.gamma)
    model = PPO(
        "MlpPolicy",
        normalised,
        learning_rate=lambda remaining: config.learning_rate * remaining,
        n_steps=config.rollout_steps,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        policy_kwargs={"net_arch": list(config.hidden)},
        tensorboard_log=str(config.out / "tensorboard"),
        seed=config.seed,
        device="cpu",
    )
    model.learn(
        config.total_steps,
        callback=callbacks(config.out, config.checkpoint_every, config.num_envs),
        tb_log_name=config.allocator,
        progress_bar=config.progress,
    )
    model.save(config.out / MODEL)
    normalised.save(str(config.out / NORMALISER))
    (config.out / TRANSFORM).write_text(json.dumps(asdict(env.transform), indent=2) + "\n", encoding="utf-8")
    print(f"Allocator in {config.out}; curves with: tensorboard --logdir {config.out / 'tensorboard'}")
    compare = f"python -m training.compare --scenario {config.scenario} --policies adaptive {config.out}"
    print(f"Compare it with: {compare}")


def check(config: TrainConfig) -> None:
    """Refuse numbers that stable-baselines3 would stumble over later."""
    for name in ("total_steps", "num_envs", "rollout_steps", "batch_size", "epochs", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if (config.num_envs * config.rollout_steps) % config.batch_size:
        raise ValueError(
            f"batch_size must divide num_envs × rollout_steps = {config.num_envs * config.rollout_steps}, "
            f"got {config.batch_size}"
        )


if __name__ == "__main__":
    main(tyro.cli(TrainConfig))
