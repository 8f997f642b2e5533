"""Train a PPO allocator on the native batch; the same command again continues an interrupted run.

python -m training.train --scenario serverless --allocator ppo --total-steps 1000000 --out runs/my-ppo
"""

import shlex
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from baselines import policy_for
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from training.artifacts.policies import MODEL
from training.cli import fail, options
from training.evaluation.seeds import FIRST_TRAINING_SEED, check_run_seeds, first_seed_of_run
from training.files.run_directory import CHECKPOINT, CONFIG, RESULT, TENSORBOARD, claimed
from training.learning.action_transform import ActionTransform, corrections, simplex
from training.learning.allocator_policy import AllocatorPolicy
from training.learning.callbacks import Boundaries, CriticFirst, EpisodeLog
from training.learning.checkpoint import load, restore, save
from training.learning.curves import Curves
from training.learning.defaults import AllocatorKind, default_settings
from training.learning.domain_randomisation import DomainVecEnv, variants
from training.learning.outcome import write_outcome
from training.learning.paired_vec_env import PairedVecEnv
from training.learning.sb3_vec_env import BatchVecEnv
from training.learning.selection import Selection, validation_objective


@dataclass(frozen=True)
class TrainConfig(Overrides):
    """Train a PPO allocator on the native batch."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    allocator: AllocatorKind = "ppo-residual"
    """`ppo`: a multilayer perceptron over the whole observation, actions on the simplex. `ppo-shared`:
    one network for every agent, so that it serves any number of them. `ppo-residual`: the same, and
    its actions correct what receding-horizon control assumes, from whose decisions it starts."""
    total_steps: int = 1_000_000
    """Steps of experience, over all environments."""
    seed: int = 0
    """Seeds the environments, the network and its exploration; 0 to 2**24 − 2."""
    seeds: int = 1
    """Runs to train, seeded `seed`, `seed` + 1, …; several stand in `out`/seed-0, `out`/seed-1, …"""
    out: Path = Path("runs/my-ppo")
    """Directory for the model, checkpoint, configuration and TensorBoard run."""
    num_envs: int = 128
    """Environments advanced side by side."""
    domains: int = 1
    """Variants of the scenario (mix, load, platform, dt) that share the environments; 1: itself alone."""
    rollout_steps: int | None = None
    """Steps of each environment between two updates; default: the allocator's."""
    batch_size: int | None = None
    """Transitions in a gradient step; default: the allocator's."""
    epochs: int | None = None
    """Passes over the transitions of an update; default: the allocator's."""
    learning_rate: float | None = None
    """Of Adam at the start; it falls linearly to zero; default: the allocator's."""
    gamma: float | None = None
    """Discount of a step; default: the allocator's."""
    gae_lambda: float | None = None
    """λ of generalised advantage estimation; default: the allocator's."""
    start_from: Path | None = None
    """A finished run whose weights to start from; its network must fit, its scenario may be another."""
    critic_updates: int = 3
    """Updates at the start that train the value function alone."""
    initial_std: float | None = None
    """Of the exploration; default: the allocator's."""
    hidden: tuple[int, ...] | None = None
    """Units of the hidden layers, of the policy and of the value function each; default: the allocator's."""
    checkpoint_every: int = 100_000
    """Steps between two checkpoints, of which the last is kept."""
    validate_every: int = 100_000
    """Steps between two validations, by which the best policy is chosen; 0 keeps the last policy."""
    validation_episodes: int = 200
    """Episodes of a validation, the same every time; of a log, at most its windows."""
    patience: int = 0
    """Validations without a gain after which training stops; 0 for never."""
    progress: bool = True
    """Show a progress bar."""


def main(config: TrainConfig) -> None:
    """Train each run to its end, from the beginning or from its last checkpoint."""
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    with ExitStack() as locks:
        try:
            scenario = load_scenario(config.scenario, config)
            scenario.source()
            config = with_defaults(config, scenario.key)
            check(config)
            runs = runs_of(config)
            for run in runs:
                locks.enter_context(claimed(run.out, asdict(run)))
        except (ValueError, OSError) as error:
            fail(error)
        with progress_display(config.progress) as progress:
            shows = [
                progress.add_task(f"seed {run.seed}", total=run.total_steps, start=False) for run in runs
            ]
            for run, show in zip(runs, shows, strict=True):
                train(run, scenario, progress, show)
                print(f"Allocator in {run.out}; curves with: tensorboard --logdir {run.out / TENSORBOARD}")
                print(f"Compare it with: {compare_command(run)}")


def with_defaults(config: TrainConfig, scenario: str) -> TrainConfig:
    """The configuration with the allocator's settings wherever nothing else is asked for.

    Args:
        config: what is asked for.
        scenario: the key of the scenario.
    """
    asked = asdict(config)
    settings = default_settings(config.allocator, scenario)
    return replace(config, **{name: value for name, value in settings.items() if asked[name] is None})


def compare_command(run: TrainConfig) -> str:
    """The command that judges a run on the scenario on which it was trained."""
    changes = {name: value for name, value in run.changes.items() if name != "split"}
    words = options({"scenario": run.scenario, **changes, "policies": ("adaptive", run.out)})
    return shlex.join(["python", "-m", "training.compare", *words])


def runs_of(config: TrainConfig) -> list[TrainConfig]:
    """One configuration for each training seed."""
    if config.seeds == 1:
        return [config]
    return [
        replace(config, seeds=1, seed=seed, out=config.out / f"seed-{seed}")
        for seed in range(config.seed, config.seed + config.seeds)
    ]


def train(config: TrainConfig, scenario: Scenario, progress: Progress, task: Any) -> None:
    """Train one run, then write the allocator and what it was chosen by."""
    if (config.out / RESULT).exists():
        progress.update(task, completed=config.total_steps)
        print(f"The run in {config.out} is complete; nothing to do")
        return
    model, transform = make_learner(config, scenario)
    if config.start_from is not None:
        take_weights(model, config.start_from)
    contents = load(config.out / CHECKPOINT)
    step = contents["learner"]["num_timesteps"] if contents else 0
    curves = Curves(
        config.out / TENSORBOARD / config.allocator, contents["written"] if contents else {}, step
    )
    model.set_logger(curves.logger())
    selection = contents["selection"] if contents else Selection()
    if contents:
        try:
            restore(model, contents)
        except ValueError as error:
            fail(error)
        print(f"Continuing the run in {config.out} from step {step}")
    progress.start_task(task)
    boundaries = Boundaries(
        selection,
        checkpoint_every=config.checkpoint_every,
        validate_every=config.validate_every,
        patience=config.patience,
        validate=lambda model: validation_objective(model, transform, scenario, config.validation_episodes),
        record=lambda step, objective: curves.writer.add_scalar("validation/objective", objective, step),
        keep=lambda model: save(config.out / CHECKPOINT, model, selection, curves.written()),
        show=lambda step: progress.update(task, completed=step),
    )
    progress.update(task, completed=step)
    # The counters are the run's own, so that `learn` is told what is left, not what was asked for.
    callbacks = [EpisodeLog(), CriticFirst(config.critic_updates), boundaries]
    model.learn(config.total_steps - step, callback=callbacks, reset_num_timesteps=False)
    curves.close()
    write_outcome(config.out, model, transform, selection, stopped_early=boundaries.stopped)


def take_weights(model: PPO, run: Path) -> None:
    """Start from the weights of a run's model, which is unpickled: give only runs that you trust."""
    weights = PPO.load(run / MODEL, device="cpu").policy.state_dict()
    try:
        model.policy.load_state_dict(weights)
    except RuntimeError:
        fail(ValueError(f"{run} holds another network; give its --allocator and --hidden too"))


def make_learner(config: TrainConfig, scenario: Scenario) -> tuple[PPO, ActionTransform]:
    """A fresh learner in its environments, and what makes shares of its actions."""
    transform = make_transform(config, scenario)
    env = make_environments(config, scenario, transform)
    assert config.gamma is not None
    model = make_ppo(config, VecNormalize(env, norm_obs=False, gamma=config.gamma))
    env.seed(first_seed_of_run(config.seed))  # PPO has seeded the environments with its own
    return model, transform


def make_environments(config: TrainConfig, scenario: Scenario, transform: ActionTransform) -> DomainVecEnv:
    """Environments beside their twins, of the scenario or of variants of it."""
    reference = policy_for("receding-horizon", scenario.key)
    each = config.num_envs // config.domains
    return DomainVecEnv(
        [
            PairedVecEnv(BatchVecEnv(variant, each, FIRST_TRAINING_SEED, transform), reference)
            for variant in variants(scenario, config.domains, config.seed)
        ]
    )


def make_transform(config: TrainConfig, scenario: Scenario) -> ActionTransform:
    """From the allocator's actions to shares."""
    if config.allocator == "ppo-residual":
        return corrections(len(scenario.agents), scenario.key)
    return simplex(len(scenario.agents))


def make_ppo(config: TrainConfig, env: VecNormalize) -> PPO:
    """A fresh learner; the configuration has all its settings."""
    highest, residual = config.learning_rate, config.allocator == "ppo-residual"
    assert highest is not None and config.rollout_steps is not None and config.batch_size is not None
    assert config.epochs is not None and config.gamma is not None and config.gae_lambda is not None
    return PPO(
        AllocatorPolicy,
        env,
        learning_rate=lambda remaining: highest * remaining,
        n_steps=config.rollout_steps,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        policy_kwargs={
            "network": "mlp" if config.allocator == "ppo" else "shared",
            "hidden": config.hidden,
            "initial_std": config.initial_std,
            "initial_gain": 0.0 if residual else 0.01,
        },
        seed=config.seed,
        device="cpu",
    )


def progress_display(shown: bool) -> Progress:
    """One bar for each run."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )


def check(config: TrainConfig) -> None:
    """Refuse numbers that stable-baselines3 would stumble over later."""
    positive = ("total_steps", "seeds", "num_envs", "domains", "rollout_steps", "batch_size", "epochs")
    least = dict.fromkeys((*positive, "checkpoint_every", "validation_episodes"), 1)
    least |= dict.fromkeys(("seed", "validate_every", "patience", "critic_updates"), 0)
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ValueError(f"{name} must be at least {bound}, got {getattr(config, name)}")
    check_run_seeds(config.seed, config.seeds, config.num_envs, config.domains)
    if config.start_from is not None and not (config.start_from / MODEL).is_file():
        raise ValueError(f"{config.start_from} holds no finished training run: {MODEL} is missing")
    if config.patience and not config.validate_every:
        raise ValueError("patience counts validations; give a validate_every above 0 with it")
    if config.seeds > 1 and (config.out / CONFIG).exists():
        raise ValueError(f"{config.out} holds a single run; give another --out for {config.seeds} seeds")
    if config.num_envs % config.domains:
        raise ValueError(f"domains must divide num_envs = {config.num_envs}, got {config.domains}")
    assert config.rollout_steps is not None and config.batch_size is not None
    if (config.num_envs * config.rollout_steps) % config.batch_size:
        raise ValueError(
            f"batch_size must divide num_envs × rollout_steps = {config.num_envs * config.rollout_steps}, "
            f"got {config.batch_size}"
        )


if __name__ == "__main__":
    main(tyro.cli(TrainConfig))
