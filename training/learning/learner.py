"""The learner of a training run: its settings, the environments in which it plays, and PPO's model."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
import tyro
from stable_baselines3 import PPO

from baselines import policy_for
from gpualloc_env.listing import listed
from gpualloc_env.memory import physical_memory
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from training.evaluation.seeds import FIRST_TRAINING_SEED, LAST_RUN_SEED, first_seed_of_run
from training.files.run_directory import MODEL
from training.learning.allocators.action_transform import ActionTransform, Transform, told
from training.learning.allocators.allocator_policy import AllocatorPolicy
from training.learning.allocators.kinds import KINDS, help_text, kind_of, rows_of
from training.learning.allocators.trained_network import load_model
from training.learning.defaults import default_settings
from training.learning.environments.cluster_vec_env import ClusterVecEnv
from training.learning.environments.domain_randomisation import DomainVecEnv, variants
from training.learning.environments.paired_vec_env import PairedVecEnv
from training.learning.environments.recent_returns import RecentReturns
from training.learning.parallel_ppo import Adam, ParallelPPO
from training.limits import Limits

AllocatorName = Annotated[str, tyro.conf.arg(metavar="|".join(KINDS), help=help_text())]


@dataclass(frozen=True)
class LearnerConfig(Overrides):
    """What learns, where, and by which settings of PPO."""

    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file."""
    beside: tuple[str, ...] = ()
    """More scenarios with the same agents, which share the environments evenly; the policy that is kept
    has the lowest mean of J over all of them in validation."""
    allocator: AllocatorName = "ppo-residual"
    total_steps: Annotated[int, Limits(0)] = 1_000_000
    """Steps of PPO's experience, over all environments, rounded up to whole rollouts; 0 for imitation or
    evolution alone."""
    seed: Annotated[int, Limits(0, LAST_RUN_SEED)] = 0
    """Seeds the environments, the network and its exploration."""
    num_envs: Annotated[int, Limits(1)] = 128
    """Environments advanced side by side."""
    domains: Annotated[int, Limits(1)] = 1
    """Variants of each scenario (mix, load, platform, dt) that share the environments; 1: itself alone."""
    rollout_steps: Annotated[int | None, Limits(1)] = None
    """Steps of each environment between two updates; default: the allocator's."""
    batch_size: Annotated[int | None, Limits(2)] = None
    """Transitions in a gradient step; default: the allocator's."""
    epochs: Annotated[int | None, Limits(1, 1000)] = None
    """Passes over the transitions of an update; default: the allocator's."""
    learning_rate: Annotated[float | None, Limits(0, 1, open_low=True)] = None
    """Of Adam at the start; it falls linearly to zero at the end; default: the allocator's."""
    gamma: Annotated[float | None, Limits(0, 1)] = None
    """Discount of a step; default: the allocator's."""
    gae_lambda: Annotated[float | None, Limits(0, 1)] = None
    """λ of generalised advantage estimation; default: the allocator's."""
    start_from: Path | None = None
    """A finished run whose weights to start from, its exploration among them, whatever `initial_std` is; its
    network must fit, its scenario may be another."""
    shards: Annotated[int, Limits(1, 64)] = 2
    """Parts of each gradient step's transitions, each with a process of its own where there are as many
    cores. The results depend on the number of parts alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the gradient steps are computed, on one GPU with `cuda`; all else is on the CPU. `auto`: on a GPU
    if there is one, but for a plain perceptron, which is too small to gain by it."""
    critic_updates: Annotated[int | None, Limits(0)] = None
    """Updates at the start that train the value function alone; default: 3 where the policy can do something
    at first, which a value function that knows nothing would spoil, and 0 where it cannot either."""
    initial_std: Annotated[float | None, Limits(0, 10, open_low=True)] = None
    """Of the exploration; default: the allocator's."""
    hidden: Annotated[tuple[int, ...] | None, Limits(1, 4096)] = None
    """Units of the hidden layers, of the policy and of the value function each; default: the allocator's."""


Config = TypeVar("Config", bound=LearnerConfig)


def with_defaults(config: Config, scenario: str) -> Config:
    """The configuration with the allocator's settings wherever nothing else is asked for.

    Args:
        config: what is asked for.
        scenario: the key of the scenario.
    """
    asked = asdict(config)
    settings = default_settings(config.allocator, scenario)
    return replace(config, **{name: value for name, value in settings.items() if asked[name] is None})


def rollout_size(config: LearnerConfig) -> int:
    """Steps between two updates, over all environments."""
    assert config.rollout_steps is not None
    return config.num_envs * config.rollout_steps


def whole_steps(config: LearnerConfig) -> int:
    """The steps that training takes: those asked for, rounded up to whole rollouts."""
    return -(-config.total_steps // rollout_size(config)) * rollout_size(config)


def make_learner(
    config: LearnerConfig, scenario: Scenario, helpers: bool = True
) -> tuple[ParallelPPO, Transform]:
    """A fresh learner in its environments, and what makes shares of its actions."""
    transform = make_transform(config, scenario)
    env = make_environments(config, scenario, transform)
    assert config.gamma is not None
    model = make_ppo(config, RecentReturns(env, norm_obs=False, gamma=config.gamma), helpers)
    env.seed(first_seed_of_run(config.seed))  # PPO has seeded the environments with its own
    return model, transform


def make_environments(config: LearnerConfig, scenario: Scenario, transform: Transform) -> DomainVecEnv:
    """Environments beside their twins, of the scenarios or of variants of them."""
    scenarios = played(config, scenario)
    each = config.num_envs // (config.domains * len(scenarios))
    return DomainVecEnv(
        [
            paired(variant, each, transform)
            for one in scenarios
            for variant in variants(one, config.domains, config.seed)
        ]
    )


def paired(scenario: Scenario, num_envs: int, transform: Transform) -> PairedVecEnv | ClusterVecEnv:
    """Environments beside twins in which the baseline that the allocator corrects decides."""
    if isinstance(transform, ActionTransform):
        reference = policy_for("receding-horizon", scenario)
        return PairedVecEnv(scenario, num_envs, FIRST_TRAINING_SEED, told(transform, scenario), reference)
    return ClusterVecEnv(scenario, num_envs, FIRST_TRAINING_SEED, transform, policy_for("demand", scenario))


def played(config: LearnerConfig, scenario: Scenario) -> list[Scenario]:
    """The scenario of a configuration and those that share its environments.

    Raises:
        ValueError: their agents are others, or so are the GPUs among which these are placed.
    """
    others = [load_scenario(name, config) for name in config.beside]
    names = [agent.name for agent in scenario.agents]
    for other in others:
        theirs = [agent.name for agent in other.agents]
        if theirs != names:
            raise ValueError(
                f"beside needs scenarios with the agents of {scenario.name}, {listed(names)}, "
                f"but {other.name} has {listed(theirs)}"
            )
        if other.num_gpus != scenario.num_gpus:
            raise ValueError(
                f"beside needs scenarios with {_gpus(scenario)}, as {scenario.name} has, but {other.name} "
                f"has {_gpus(other)}"
            )
    return [scenario, *others]


def _gpus(scenario: Scenario) -> str:
    return f"nodes of {scenario.num_gpus} GPUs" if scenario.nodes else "one pool of GPUs"


def take_weights(model: PPO, run: Path) -> None:
    """Start from the weights of a run's model, which is unpickled: give only runs that you trust.

    Raises:
        ValueError: its network is another, or another version of this package trained it.
    """
    weights = load_model(run).policy.state_dict()
    try:
        model.policy.load_state_dict(weights)
    except RuntimeError:
        raise ValueError(f"{run} holds another network; give its --allocator and --hidden too") from None


def make_transform(config: LearnerConfig, scenario: Scenario) -> Transform:
    """From the allocator's actions to shares."""
    return kind_of(config.allocator).transform(scenario)


@dataclass(frozen=True)
class FallingRate:
    """A learning rate that falls linearly; a lambda would tie a saved model to one version of Python."""

    highest: float
    least: float
    """The smallest part of it."""

    def __call__(self, remaining: float) -> float:
        """Of the part of the training that is left."""
        return self.highest * max(remaining, self.least)


def make_ppo(config: LearnerConfig, env: RecentReturns, helpers: bool = True) -> ParallelPPO:
    """A fresh learner; the configuration has all its settings."""
    highest, kind = config.learning_rate, kind_of(config.allocator)
    assert highest is not None and config.rollout_steps is not None and config.batch_size is not None
    assert config.epochs is not None and config.gamma is not None and config.gae_lambda is not None
    # An update comes at the end of its rollout, the last one where nothing is left: half a rollout's part.
    least = 0.5 * rollout_size(config) / max(1, whole_steps(config))
    return ParallelPPO(
        AllocatorPolicy,
        env,
        learning_rate=FallingRate(highest, least),
        n_steps=config.rollout_steps,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        policy_kwargs={
            "network": kind.network,
            "hidden": config.hidden,
            "initial_std": config.initial_std,
            "initial_gain": kind.initial_gain,
            "optimizer_class": Adam,
            "optimizer_kwargs": {"eps": 1e-5},  # as stable-baselines3's own
        },
        seed=config.seed,
        shards=config.shards,
        update_device=update_device(config),
        helpers=helpers,
    )


def update_device(config: LearnerConfig) -> str:
    """Where the gradient steps of a run are computed."""
    if config.device != "auto":
        return config.device
    small = kind_of(config.allocator).network == "mlp"
    return "cuda" if torch.cuda.is_available() and not small else "cpu"


def check_kind(config: LearnerConfig, scenario: Scenario) -> None:
    """Refuse an allocator of one pool of GPUs for a cluster, and the other way round."""
    if kind_of(config.allocator).of_clusters != bool(scenario.nodes):
        known = [name for name, kind in KINDS.items() if kind.of_clusters == bool(scenario.nodes)]
        where = "nodes" if scenario.nodes else "one pool of GPUs"
        raise ValueError(
            f"scenario {scenario.name!r} has {where}, and allocator {config.allocator!r} is not for such; "
            f"give --allocator {' or '.join(known)}"
        )


def check_learner(config: LearnerConfig, scenario: Scenario) -> None:
    """Refuse settings of which no learner can be made, before anything is made.

    Raises:
        ValueError: it says which, and what to give instead.
    """
    linear = kind_of(config.allocator).linear
    if config.hidden and linear:
        raise ValueError(f"allocator {config.allocator!r} has no hidden layers; leave hidden out")
    if config.hidden == () and not linear:
        raise ValueError("hidden needs the units of at least one layer; leave it out for the allocator's own")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' needs an NVIDIA GPU and a PyTorch built for it; give --device cpu")
    check_kind(config, scenario)
    scenarios = len(played(config, scenario))
    share = config.domains * scenarios
    if config.num_envs % share:
        raise ValueError(
            f"domains × scenarios = {config.domains} × {scenarios} must divide num_envs, got "
            f"{config.num_envs}; give --num-envs {share * -(-config.num_envs // share)}"
        )
    assert config.batch_size is not None
    if rollout_size(config) % config.batch_size:
        raise ValueError(
            f"batch_size must divide num_envs × rollout_steps = {rollout_size(config)}, "
            f"got {config.batch_size}"
        )
    if config.shards > config.batch_size:
        raise ValueError(f"shards must be at most batch_size = {config.batch_size}, got {config.shards}")
    # float32 three times: as played, shuffled for the updates, and shared among processes.
    needed = 12 * rollout_size(config) * rows_of(scenario) * len(OBSERVATION_FEATURES)
    memory = physical_memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"num_envs × rollout_steps = {rollout_size(config)} need {needed / 1e9:.3g} GB "
            f"of memory, and this machine has {memory / 1e9:.3g} GB; lower rollout_steps or num_envs"
        )
    if config.start_from is not None:
        if not (config.start_from / MODEL).is_file():
            raise ValueError(f"{config.start_from} holds no finished training run: {MODEL} is missing")
        take_weights(make_learner(config, scenario)[0], config.start_from)
