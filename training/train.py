"""Train a PPO allocator on the native batch; the same command again continues an interrupted run.

python -m training.train --scenario serverless --allocator ppo --total-steps 1000000 --out runs/my-ppo
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.progress import Progress
from stable_baselines3 import PPO
from torch.utils.tensorboard import SummaryWriter

from baselines import Policy, policy_for
from gpualloc_env.listing import listed
from gpualloc_env.memory import physical_memory
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from training.artifacts.policies import load_policy, named
from training.artifacts.training_record import VALIDATION, settings_of
from training.cli import options, progress_bars, run, status_console
from training.evaluation.seeds import FIRST_TRAINING_SEED, LAST_RUN_SEED, check_run_seeds, first_seed_of_run
from training.files.provenance import git_commit
from training.files.run_directory import (
    CHECKPOINT,
    CONFIG,
    EVOLUTION,
    MODEL,
    RESULT,
    TENSORBOARD,
    check_claim,
    claimed,
)
from training.learning import evolution, imitation
from training.learning.action_transform import ActionTransform, Transform
from training.learning.allocator_policy import AllocatorPolicy
from training.learning.callbacks import Boundaries, CriticFirst, EpisodeLog
from training.learning.checkpoint import load, restore, save
from training.learning.cluster_vec_env import ClusterVecEnv
from training.learning.curves import Curves
from training.learning.defaults import default_settings
from training.learning.domain_randomisation import DomainVecEnv, variants
from training.learning.kinds import KINDS, help_text, kind_of, rows_of
from training.learning.outcome import write_outcome
from training.learning.paired_vec_env import PairedVecEnv
from training.learning.parallel_ppo import Adam, ParallelPPO
from training.learning.recent_returns import RecentReturns
from training.learning.sb3_vec_env import BatchVecEnv
from training.learning.selection import Selection, baseline_objectives, validation_objective
from training.learning.trained_network import NETWORKS
from training.limits import Limits, check_limits
from training.reporting.hparams import add_hparams
from training.reporting.markdown import markdown_table
from training.sharing import RayWorkers

GENERATION = "3 J less J at first, by generation (lower is better)"
CRITIC_FIRST = 3
AllocatorName = Annotated[str, tyro.conf.arg(metavar="|".join(KINDS), help=help_text())]


@dataclass(frozen=True)
class TrainConfig(Overrides, RayWorkers):
    """Train a PPO allocator on the native batch."""

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
    seeds: Annotated[int, Limits(1, 1000)] = 1
    """Runs to train, seeded `seed`, `seed` + 1, …; several stand in `out`/seed-0, `out`/seed-1, …. With
    `--ray` they are trained side by side."""
    out: Path = Path("runs/my-ppo")
    """Directory for the model, checkpoint, configuration and TensorBoard run. With `--ray` all machines must
    see it."""
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
    """A finished run whose weights to start from; its network must fit, its scenario may be another."""
    teacher: str | None = None
    """Whom the policy learns to imitate before PPO: a baseline or another policy, as `compare` names them."""
    lessons: tuple[str, ...] = ()
    """More to imitate before PPO, as SCENARIO=POLICY or SCENARIO:AGENTS=POLICY: whom in another scenario, or
    with another number of agents."""
    lesson_rounds: Annotated[int, Limits(1)] = imitation.ROUNDS
    """Rounds of imitation: the policy plays, the teachers say what they would do, the policy is fitted."""
    lesson_episodes: Annotated[int, Limits(1)] = imitation.EPISODES
    """Episodes of a round, shared evenly by the scenarios."""
    generations: Annotated[int, Limits(0)] = 0
    """Generations of CMA-ES in the weights of the last layer before PPO, and after imitation."""
    population: Annotated[int, Limits(4)] = evolution.POPULATION
    """Candidates of a generation, which play the same episodes."""
    generation_episodes: Annotated[int, Limits(1)] = evolution.EPISODES
    """Episodes that each candidate of a generation plays, of each scenario."""
    generation_std: Annotated[float, Limits(0, 10, open_low=True)] = evolution.STD
    """Standard deviation of the weights in the first generation."""
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
    checkpoint_every: Annotated[int, Limits(1)] = 100_000
    """Steps between two checkpoints, of which the last is kept."""
    validate_every: Annotated[int, Limits(0)] = 100_000
    """Steps between two validations, by which the best policy is chosen; 0 keeps the last policy."""
    validation_episodes: Annotated[int, Limits(1)] = 200
    """Episodes of a validation, the same every time; of a log, at most its windows."""
    patience: Annotated[int, Limits(0)] = 0
    """Validations without a gain after which training stops; 0 for never."""
    progress: bool = True
    """Show a progress bar."""

    @property
    def critic_first(self) -> int:
        """Updates that train the value function alone."""
        if self.critic_updates is not None:
            return self.critic_updates
        knows = kind_of(self.allocator).initial_gain == 0 or self.start_from is not None
        return CRITIC_FIRST if knows or self.teacher or self.lessons or self.generations else 0


def main(config: TrainConfig) -> None:
    """Train each run to its end, from the beginning or from its last checkpoint."""
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    scenario = load_scenario(config.scenario, config)
    scenario.source()
    config = with_defaults(config, scenario.key)
    check(config, scenario)
    runs = runs_of(config)
    for each in runs:
        check_claim(each.out, asdict(each))
    if whole_steps(config) != config.total_steps:
        print(
            f"{config.total_steps} steps become {whole_steps(config)}: training takes whole rollouts of "
            f"{rollout_size(config)}"
        )
    with (
        ExitStack() as locks,
        progress_bars(status_console(), counted=True, shown=config.progress) as progress,
    ):
        for each in runs if config.ray is None else ():
            locks.enter_context(claimed(each.out, asdict(each)))
        unfinished = config.validate_every and any(not (each.out / RESULT).exists() for each in runs)
        levels = (
            baseline_objectives(played(config, scenario), config.validation_episodes) if unfinished else {}
        )
        if config.ray is None:
            bars = [
                progress.add_task(f"seed {each.seed}", total=whole_steps(each), start=False) for each in runs
            ]
            for each, bar in zip(runs, bars, strict=True):
                train(each, scenario, levels, progress, bar)
                say_where(each)
            return
    config.share(partial(train_alone, scenario, levels), runs, "Training runs", status_console())
    for each in runs:
        say_where(each)


def train_alone(scenario: Scenario, levels: Mapping[str, float], config: TrainConfig) -> None:
    """Train one run in a process of its own, where nobody watches."""
    torch.set_num_threads(1)
    with (
        claimed(config.out, asdict(config)),
        progress_bars(status_console(), shown=False) as progress,
    ):
        task = progress.add_task("", total=whole_steps(config))
        train(config, scenario, levels, progress, task, helpers=False)


def say_where(run: TrainConfig) -> None:
    """Print where a finished run stands, and what may be done with it."""
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
    algorithm_1 = "hierarchical" if kind_of(run.allocator).of_clusters else "adaptive"
    changes = {name: value for name, value in run.changes.items() if name != "split"}
    words = options({"scenario": run.scenario, **changes, "policies": (algorithm_1, run.out)})
    return shlex.join(["python", "-m", "training.compare", *words])


def runs_of(config: TrainConfig) -> list[TrainConfig]:
    """One configuration for each training seed, whoever trains it."""
    config = replace(config, ray=None)
    if config.seeds == 1:
        return [config]
    return [
        replace(config, seeds=1, seed=seed, out=config.out / f"seed-{seed}")
        for seed in range(config.seed, config.seed + config.seeds)
    ]


def rollout_size(config: TrainConfig) -> int:
    """Steps between two updates, over all environments."""
    assert config.rollout_steps is not None
    return config.num_envs * config.rollout_steps


def whole_steps(config: TrainConfig) -> int:
    """The steps that training takes: those asked for, rounded up to whole rollouts."""
    return -(-config.total_steps // rollout_size(config)) * rollout_size(config)


def train(
    config: TrainConfig,
    scenario: Scenario,
    levels: Mapping[str, float],
    progress: Progress,
    task: Any,
    helpers: bool = True,
) -> None:
    """Train one run, then write the allocator and what it was chosen by, beside J of baselines.

    Other cores help, unless `helpers` says that they have runs of their own.
    """
    if (config.out / RESULT).exists():
        progress.update(task, completed=whole_steps(config))
        print(f"The run in {config.out} is complete; nothing to do")
        return
    model, transform = make_learner(config, scenario, helpers)
    if config.start_from is not None:
        take_weights(model, config.start_from)
    contents = load(config.out / CHECKPOINT)
    step = contents["learner"]["num_timesteps"] if contents else 0
    curves = Curves(
        config.out / TENSORBOARD / next(iter(named([str(config.out)]))),
        f"{scenario.name} training",
        contents["written"] if contents else {},
        step,
    )
    if contents is None:
        describe(config, curves, levels)
    model.set_logger(curves.logger())
    selection = contents["selection"] if contents else Selection()
    if contents:
        restore(model, contents)
        print(f"Continuing the run in {config.out} from step {step}")
    progress.start_task(task)
    scenarios = played(config, scenario)
    if contents is None:
        teach(model, transform, lessons_of(config, scenarios), config, progress)
        evolve(model, transform, scenarios, config, progress, curves)
    boundaries = Boundaries(
        selection,
        checkpoint_every=config.checkpoint_every,
        validate_every=config.validate_every,
        patience=config.patience,
        validate=lambda model: validation_objective(model, transform, scenarios, config.validation_episodes),
        record=lambda step, objective: curves.writer.add_scalar(
            f"{curves.group}/{VALIDATION}", objective, step
        ),
        keep=lambda model: save(config.out / CHECKPOINT, model, selection, curves.written()),
        show=lambda step: progress.update(task, completed=step),
    )
    progress.update(task, completed=step)
    # The counters are the run's own, so that `learn` is told what is left, not what was asked for.
    callbacks = [EpisodeLog(), CriticFirst(config.critic_first), boundaries]
    model.learn(whole_steps(config) - step, callback=callbacks, reset_num_timesteps=False)
    if selection.best is not None:
        record_best(curves, selection.best, {"scenario": scenario.name, **settings_of(asdict(config))})
    curves.close()
    write_outcome(config.out, model, transform, selection, baselines=levels, stopped_early=boundaries.stopped)


def teach(
    model: PPO,
    transform: Transform,
    lessons: Sequence[tuple[Scenario, Policy]],
    config: TrainConfig,
    progress: Progress,
) -> None:
    """Let a fresh model imitate the policies of some lessons, if there are any."""
    if not lessons:
        return
    assert isinstance(transform, ActionTransform)
    bar = progress.add_task("imitation", total=config.lesson_rounds)
    imitation.imitate(
        model,
        transform,
        lessons,
        first_seed_of_run(config.seed),
        rounds=config.lesson_rounds,
        episodes=config.lesson_episodes,
        progress=lambda done: progress.update(bar, completed=done),
    )


def evolve(
    model: PPO,
    transform: Transform,
    scenarios: Sequence[Scenario],
    config: TrainConfig,
    progress: Progress,
    curves: Curves,
) -> None:
    """Let the last layer of a fresh model evolve, if there are generations."""
    if not config.generations:
        return
    bar = progress.add_task("evolution", total=config.generations)

    def record(generation: int, gained: float) -> None:
        curves.writer.add_scalar(f"{curves.group}/{GENERATION}", gained, generation)
        progress.update(bar, completed=generation)

    evolution.evolve(
        model,
        transform,
        scenarios,
        first_seed_of_run(config.seed),
        generations=config.generations,
        population=config.population,
        episodes=config.generation_episodes,
        std=config.generation_std,
        progress=record,
        kept=config.out / EVOLUTION,
    )
    progress.update(bar, completed=config.generations)


def describe(config: TrainConfig, curves: Curves, levels: Mapping[str, float]) -> None:
    """Say in TensorBoard what the run is, and draw J of the baselines as level lines, unless it was said."""
    for name, level in levels.items():
        directory = config.out / TENSORBOARD / name
        if not directory.exists():
            with SummaryWriter(str(directory)) as writer:
                for step in (0, whole_steps(config)):
                    writer.add_scalar(f"{curves.group}/{VALIDATION}", level, step)
    said = {**asdict(config), "git commit": git_commit()}
    rows = [{"setting": name, "value": str(value)} for name, value in said.items() if value is not None]
    curves.writer.add_text(f"{curves.group} configuration", markdown_table(rows))


def record_best(curves: Curves, best: tuple[int, float], settings: Mapping[str, Any]) -> None:
    """Add the best J in validation to the curves, and to the HParams table beside the settings."""
    tag = f"{curves.group}/2 best J in validation (lower is better)"
    curves.writer.add_scalar(tag, best[1], best[0])
    add_hparams(curves.writer, {"policy": curves.directory.name, **settings}, {tag: best[1]})


def take_weights(model: PPO, run: Path) -> None:
    """Start from the weights of a run's model, which is unpickled: give only runs that you trust.

    Raises:
        ValueError: its network is another.
    """
    weights = PPO.load(run / MODEL, device="cpu").policy.state_dict()
    try:
        model.policy.load_state_dict(weights)
    except RuntimeError:
        raise ValueError(f"{run} holds another network; give its --allocator and --hidden too") from None


def make_learner(
    config: TrainConfig, scenario: Scenario, helpers: bool = True
) -> tuple[ParallelPPO, Transform]:
    """A fresh learner in its environments, and what makes shares of its actions."""
    transform = make_transform(config, scenario)
    env = make_environments(config, scenario, transform)
    assert config.gamma is not None
    model = make_ppo(config, RecentReturns(env, norm_obs=False, gamma=config.gamma), helpers)
    env.seed(first_seed_of_run(config.seed))  # PPO has seeded the environments with its own
    return model, transform


def make_environments(config: TrainConfig, scenario: Scenario, transform: Transform) -> DomainVecEnv:
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
        return PairedVecEnv(BatchVecEnv(scenario, num_envs, FIRST_TRAINING_SEED, transform), reference)
    return ClusterVecEnv(scenario, num_envs, FIRST_TRAINING_SEED, transform, policy_for("demand", scenario))


def played(config: TrainConfig, scenario: Scenario) -> list[Scenario]:
    """The scenario of a configuration and those that share its environments.

    Raises:
        ValueError: their agents are others.
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
    return [scenario, *others]


def lessons_of(config: TrainConfig, scenarios: Sequence[Scenario]) -> list[tuple[Scenario, Policy]]:
    """Whom to imitate in which scenario.

    Raises:
        ValueError: a lesson of another form, or with other agents than the allocator can decide for.
    """
    taught = (
        [] if config.teacher is None else [(each, load_policy(config.teacher, each)) for each in scenarios]
    )
    for lesson in config.lessons:
        form = re.fullmatch(r"(.+?)(?::(\d+))?=(.+)", lesson)
        if form is None:
            raise ValueError(f"lesson {lesson!r} must be SCENARIO=POLICY or SCENARIO:AGENTS=POLICY")
        name, agents, teacher = form.groups()
        scenario = load_scenario(name, agents=int(agents)) if agents else load_scenario(name)
        served = NETWORKS[kind_of(config.allocator).network].serves_any_number
        if len(scenario.agents) != len(scenarios[0].agents) and not served:
            raise ValueError(
                f"lesson {lesson!r} has {len(scenario.agents)} agents, and --allocator {config.allocator} "
                f"decides for {len(scenarios[0].agents)}; give --allocator ppo-shared"
            )
        taught.append((scenario, load_policy(teacher, scenario)))
    return taught


def make_transform(config: TrainConfig, scenario: Scenario) -> Transform:
    """From the allocator's actions to shares."""
    return kind_of(config.allocator).transform(scenario)


def make_ppo(config: TrainConfig, env: RecentReturns, helpers: bool = True) -> ParallelPPO:
    """A fresh learner; the configuration has all its settings."""
    highest, kind = config.learning_rate, kind_of(config.allocator)
    assert highest is not None and config.rollout_steps is not None and config.batch_size is not None
    assert config.epochs is not None and config.gamma is not None and config.gae_lambda is not None
    # An update comes at the end of its rollout, the last one where nothing is left: half a rollout's part.
    least = 0.5 * rollout_size(config) / max(1, whole_steps(config))
    return ParallelPPO(
        AllocatorPolicy,
        env,
        learning_rate=lambda remaining: highest * max(remaining, least),
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


def update_device(config: TrainConfig) -> str:
    """Where the gradient steps of a run are computed."""
    if config.device != "auto":
        return config.device
    small = kind_of(config.allocator).network == "mlp"
    return "cuda" if torch.cuda.is_available() and not small else "cpu"


def check_kind(config: TrainConfig, scenario: Scenario) -> None:
    """Refuse an allocator of one pool of GPUs for a cluster, and the other way round."""
    if kind_of(config.allocator).of_clusters != bool(scenario.nodes):
        known = [name for name, kind in KINDS.items() if kind.of_clusters == bool(scenario.nodes)]
        where = "nodes" if scenario.nodes else "one pool of GPUs"
        raise ValueError(
            f"scenario {scenario.name!r} has {where}, and allocator {config.allocator!r} is not for such; "
            f"give --allocator {' or '.join(known)}"
        )


def check(config: TrainConfig, scenario: Scenario) -> None:
    """Refuse what would fail later, before anything is made."""
    check_limits(config)
    linear = kind_of(config.allocator).linear
    if config.hidden and linear:
        raise ValueError(f"allocator {config.allocator!r} has no hidden layers; leave hidden out")
    if config.hidden == () and not linear:
        raise ValueError("hidden needs the units of at least one layer; leave it out for the allocator's own")
    if not (config.total_steps or config.generations or config.teacher or config.lessons):
        raise ValueError("total_steps of 0 leaves nothing to learn; give generations or a teacher with it")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' needs an NVIDIA GPU and a PyTorch built for it; give --device cpu")
    if config.patience and not config.validate_every:
        raise ValueError("patience counts validations; give a validate_every above 0 with it")
    if config.seeds > 1 and (config.out / CONFIG).exists():
        raise ValueError(f"{config.out} holds a single run; give another --out for {config.seeds} seeds")
    check_kind(config, scenario)
    if lessons_of(config, played(config, scenario)):
        imitation.check_imitation(make_transform(config, scenario))
    domains = config.domains * len(played(config, scenario))
    check_run_seeds(config.seed, config.seeds, config.num_envs, domains)
    if config.num_envs % domains:
        scenarios = f" for each of {1 + len(config.beside)} scenarios" if config.beside else ""
        raise ValueError(f"domains must divide num_envs = {config.num_envs}, got {config.domains}{scenarios}")
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


if __name__ == "__main__":
    run(main, TrainConfig)
