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
from typing import Annotated, Any

import torch
from rich.progress import Progress
from stable_baselines3 import PPO
from torch.utils.tensorboard import SummaryWriter

from baselines import Policy
from gpualloc_env.allocator.actions import ASSUMPTIONS
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.traces.reading import refuse_pipe
from training.artifacts.policies import load_policy, named
from training.artifacts.training_record import VALIDATION, read_record, settings_of
from training.cli import command_line, progress_bars, run, status_console
from training.evaluation.seeds import check_run_seeds, first_seed_of_run
from training.files.provenance import git_commit
from training.files.run_directory import (
    CHECKPOINT,
    CONFIG,
    EVOLUTION,
    RESULT,
    TENSORBOARD,
    check_claim,
    claimed,
)
from training.learning import evolution, imitation
from training.learning.allocators.action_transform import ActionTransform, Transform
from training.learning.allocators.kinds import KINDS, kind_of
from training.learning.allocators.trained_network import NETWORKS
from training.learning.callbacks import Boundaries, CriticFirst, EpisodeLog
from training.learning.checkpoint import check_whole, load, restore, save
from training.learning.curves import Curves
from training.learning.learner import (
    LearnerConfig,
    check_learner,
    make_learner,
    make_transform,
    played,
    rollout_size,
    take_weights,
    whole_steps,
    with_defaults,
)
from training.learning.outcome import write_outcome
from training.learning.selection import Selection, baseline_objectives, validation_objective
from training.limits import Limits
from training.reporting.hparams import add_hparams
from training.reporting.markdown import markdown_table
from training.sharing import RayWorkers

GENERATION = "3 J less J at first, by generation (lower is better)"
CRITIC_FIRST = 3


@dataclass(frozen=True)
class TrainConfig(LearnerConfig, RayWorkers):
    """Train a PPO allocator on the native batch."""

    seeds: Annotated[int, Limits(1, 1000)] = 1
    """Runs to train, seeded `seed`, `seed` + 1, …; several stand in `out`/seed-0, `out`/seed-1, …. With
    `--ray` they are trained side by side."""
    out: Path = Path("runs/my-ppo")
    """Directory for the model, checkpoint, configuration and TensorBoard run. With `--ray` all machines must
    see it."""
    teacher: str | None = None
    """Whom the policy learns to imitate before PPO: a baseline or another policy, as `compare` names them."""
    lessons: tuple[str, ...] = ()
    """More to imitate before PPO, as SCENARIO=POLICY: whom in another scenario. SCENARIO:AGENTS is one with
    another number of agents, SCENARIO@LOAD and SCENARIO:AGENTS@LOAD one with another load."""
    lesson_rounds: Annotated[int, Limits(1)] = imitation.ROUNDS
    """Rounds of imitation: the policy plays, the teachers say what they would do, the policy is fitted."""
    lesson_episodes: Annotated[int, Limits(1)] = imitation.EPISODES
    """Episodes of a round, shared evenly by the scenarios."""
    generations: Annotated[int, Limits(0)] = 0
    """Generations of CMA-ES in the weights of the last layer before PPO, and after imitation; with `beside`
    each scenario counts by its J relative to that at first."""
    population: Annotated[int, Limits(4)] = evolution.POPULATION
    """Candidates of a generation, which play the same episodes."""
    generation_episodes: Annotated[int, Limits(1)] = evolution.EPISODES
    """Episodes that each candidate of a generation plays, of each scenario."""
    generation_std: Annotated[float, Limits(0, 10, open_low=True)] = evolution.STD
    """Standard deviation of the weights in the first generation."""
    generation_biases: bool = False
    """Let the biases of the last layer evolve alone: what an allocator does whatever it sees."""
    generation_reluctance: Annotated[float, Limits(-4, 4)] = 0.0
    """Where evolution begins: with a change of share thought to cost e to this power times as much. There can
    be two valleys of J, of which the one where shares rarely change is deeper and often not found."""
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
    if config.trace is not None:
        refuse_pipe(config.trace, "a run that can be continued")
    scenario = load_scenario(config.scenario, config)
    scenario.source()
    config = with_defaults(config, scenario.key)
    check(config, scenario)
    runs = runs_of(config)
    for each in runs:
        check_claim(each.out, asdict(each))
        if not (each.out / RESULT).exists():
            check_whole(each.out / CHECKPOINT)
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
            say_best(runs)
            return
    config.share(partial(train_alone, scenario, levels), runs, "Training runs", status_console())
    for each in runs:
        say_where(each)
    say_best(runs)


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
    print(
        f"Allocator in {run.out}; curves with: tensorboard --logdir {shlex.quote(str(run.out / TENSORBOARD))}"
    )
    print(f"Compare it with: {compare_command(run)}")


def say_best(runs: Sequence[TrainConfig]) -> None:
    """Print which of several finished runs has the lowest J in validation, if they were validated."""
    records = {run.out: read_record(run.out) for run in runs}
    lowest = {out: record.lowest for out, record in records.items() if record and record.lowest is not None}
    if len(lowest) > 1:
        best = min(lowest, key=lowest.__getitem__)
        print(f"Best in validation, with J = {lowest[best]:.4g}: {best}")


def compare_command(run: TrainConfig) -> str:
    """The command that judges a run on the scenario on which it was trained."""
    algorithm_1 = "hierarchical" if kind_of(run.allocator).of_clusters else "adaptive"
    changes = {name: value for name, value in run.changes.items() if name != "split"}
    return command_line("compare", scenario=run.scenario, **changes, policies=(algorithm_1, run.out))


def runs_of(config: TrainConfig) -> list[TrainConfig]:
    """One configuration for each training seed, whoever trains it."""
    config = replace(config, ray=None)
    if config.seeds == 1:
        return [config]
    return [
        replace(config, seeds=1, seed=seed, out=config.out / f"seed-{seed}")
        for seed in range(config.seed, config.seed + config.seeds)
    ]


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
        progress.update(bar, completed=generation + 1)

    if config.generation_reluctance:
        evolution.begin_reluctant(model, config.generation_reluctance)
    evolution.evolve(
        model,
        transform,
        scenarios,
        first_seed_of_run(config.seed),
        generations=config.generations,
        population=config.population,
        episodes=config.generation_episodes,
        std=config.generation_std,
        biases=config.generation_biases,
        progress=record,
        kept=config.out / EVOLUTION,
    )


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


def lessons_of(config: TrainConfig, scenarios: Sequence[Scenario]) -> list[tuple[Scenario, Policy]]:
    """Whom to imitate in which scenario.

    Raises:
        ValueError: a lesson of another form, or with nodes or agents that the allocator cannot decide for.
    """
    taught = (
        [] if config.teacher is None else [(each, load_policy(config.teacher, each)) for each in scenarios]
    )
    for lesson in config.lessons:
        form = re.fullmatch(r"(.+?)(?::(\d+))?(?:@(\d*\.?\d+))?=(.+)", lesson)
        if form is None:
            raise ValueError(
                f"lesson {lesson!r} must be SCENARIO=POLICY, with :AGENTS and @LOAD behind the scenario "
                "where they are others"
            )
        name, agents, load, teacher = form.groups()
        scenario = load_scenario(
            name, agents=int(agents) if agents else None, load=float(load) if load else None
        )
        kind = kind_of(config.allocator)
        if scenario.nodes and not kind.of_clusters:
            raise ValueError(
                f"lesson {lesson!r} has nodes, and --allocator {config.allocator} decides for one pool of "
                "GPUs; give a scenario without nodes"
            )
        served = NETWORKS[kind.network].serves_any_number
        if len(scenario.agents) != len(scenarios[0].agents) and not served:
            raise ValueError(
                f"lesson {lesson!r} has {len(scenario.agents)} agents, and --allocator {config.allocator} "
                f"decides for {len(scenarios[0].agents)}; give --allocator ppo-shared or ppo-mpc"
            )
        taught.append((scenario, load_policy(teacher, scenario)))
    return taught


def check_reluctance(config: TrainConfig, scenario: Scenario) -> None:
    """Refuse a reluctance that nothing could begin with."""
    if not config.generations:
        raise ValueError("generation_reluctance has no effect without generations; give --generations too")
    here = {name: kind for name, kind in KINDS.items() if kind.of_clusters == bool(scenario.nodes)}
    able = [name for name, kind in here.items() if kind.transform(scenario).settings["kind"] in ASSUMPTIONS]
    if config.allocator not in able:
        raise ValueError(
            f"generation_reluctance needs an allocator that plans, and {config.allocator} does not; "
            + (f"give --allocator {' or '.join(able)}" if able else "leave it out")
        )


def check(config: TrainConfig, scenario: Scenario) -> None:
    """Refuse what would fail later, before anything is made."""
    if not (config.total_steps or config.generations or config.teacher or config.lessons):
        raise ValueError("total_steps of 0 leaves nothing to learn; give generations or a teacher with it")
    if config.patience and not config.validate_every:
        raise ValueError("patience counts validations; give a validate_every above 0 with it")
    if scenario.trace is not None and scenario.trace.split == "eval":
        raise ValueError(
            "split = 'eval' is kept for judging what was trained; leave split out, or give 'all'"
        )
    if config.seeds > 1 and (config.out / CONFIG).exists():
        raise ValueError(
            f"{config.out} holds a single run or something else; give another --out for {config.seeds} seeds"
        )
    check_learner(config, scenario)
    if config.generation_reluctance:
        check_reluctance(config, scenario)
    scenarios = played(config, scenario)
    if lessons := lessons_of(config, scenarios):
        imitation.check_imitation(make_transform(config, scenario), lessons)
    check_run_seeds(config.seed, config.seeds, config.num_envs, config.domains * len(scenarios))


if __name__ == "__main__":
    run(main, TrainConfig)
