"""Export a trained allocator as a small file that decides without torch and without unpickling.

python -m training.export runs/my-ppo --out allocator.npz
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import tyro
from stable_baselines3 import PPO

from baselines import Policy
from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS, instance_rows
from gpualloc_env.allocator.cluster_allocator import ClusterAllocator
from gpualloc_env.allocator.file import Manifest, Validation, write_npz
from gpualloc_env.listing import listed
from gpualloc_env.scenario.overrides import NAMES
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray, Array
from training.artifacts.onnx_graph import write_onnx
from training.artifacts.policies import load_policy, read_transform, seed_runs
from training.cli import command_line, run
from training.evaluation.evaluate import evaluate
from training.evaluation.held_out import count_episodes, held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED, check_evaluation_seeds
from training.files.atomic import UNFINISHED
from training.files.run_directory import CONFIG, MODEL, TRANSFORM, read_json
from training.learning.allocators.action_transform import ActionTransform, ClusterTransform, Transform
from training.learning.allocators.allocator_policy import AllocatorPolicy
from training.learning.allocators.kinds import rows_of
from training.learning.allocators.trained_network import NETWORKS, load_model, network_of
from training.limits import Limits

Shares = Callable[[AnyArray], Array]
WRITERS = {".npz": write_npz, ".onnx": write_onnx}
COMPARED_OBSERVATIONS = 10_000
LARGEST_DIFFERENCE = 1e-6
"""Between a share of the exported and of the trained allocator."""


@dataclass(frozen=True, kw_only=True)
class ValidatedFile:
    """The file to write, and the episodes on which it is validated."""

    out: Path
    """The file to write: .npz for NumPy alone, .onnx for any ONNX runtime. It replaces an earlier one."""
    episodes: Annotated[int, Limits(1)] = 100
    """Held-out episodes of the training scenario on which it is validated; of a log, at most its windows."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 1_000_000
    """Seed of the first of them; the others follow it."""


@dataclass(frozen=True)
class ExportConfig(ValidatedFile):
    """Export a trained allocator as a small file that decides without torch and without unpickling."""

    run: tyro.conf.Positional[Path]
    """The directory of a training run. Reading it unpickles: export only runs that you trust."""


def main(config: ExportConfig) -> None:
    """Read the run, write the file, hold what it decides against the trained model, and validate it."""
    report(config, export(config))


def report(config: ValidatedFile, manifest: Manifest) -> None:
    """Say what was written."""
    result = manifest.validation
    assert result is not None
    print(f"{config.out}: {config.out.stat().st_size / 1024:.0f} KiB, for {listed(manifest.agents)}")
    # The file of a scenario may ask for all windows of a log.
    episodes = "held-out episodes" if result.split in (None, "eval") else "windows of the whole log"
    print(
        f"Within {result.largest_difference:.0e} of what was trained on {result.compared_observations} "
        f"observations; J = {result.objective:.4g} on {result.scenario}, {result.episodes} "
        f"{episodes}, seeds {result.first_seed} to {result.last_seed}"
    )
    trained = manifest.training["config"]
    algorithm_1 = "hierarchical" if manifest.of_clusters else "adaptive"
    asked = {name: trained.get(name) for name in ("scenario", *NAMES) if name != "split"}
    if config.out.suffix != ".onnx":
        print(f"Compare it with: {command_line('compare', **asked, policies=(algorithm_1, config.out))}")


def export(config: ExportConfig) -> Manifest:
    """Write the file, all at once or not at all, and return its manifest.

    Raises:
        ValueError: the run cannot be exported, or the file decides otherwise than the model.
        OSError: a file is missing, or `out` cannot be written.
    """
    check(config)
    record = read_json(config.run / CONFIG)
    trained = record["config"]
    scenario = scenario_of(trained)
    model = load_model(config.run)
    transform = read_transform(config.run)
    of_clusters = isinstance(transform, ClusterTransform)
    trained_for = transform.instances if of_clusters else transform.num_agents
    what = "instances" if of_clusters else "agents"
    if trained_for != rows_of(scenario):
        raise ValueError(
            f"{config.run} was trained for {trained_for} {what}; scenario "
            f"{scenario.name!r} has {rows_of(scenario)} in this version of gpualloc_env: train it again"
        )
    if of_clusters and config.out.suffix != ".npz":
        raise ValueError(f"--out {config.out} must end in .npz: an allocator of clusters is no graph alone")
    settings, arrays = network_of(model, transform)
    manifest = Manifest(
        agents=scenario.agent_names,
        features=CLUSTER_COLUMNS if of_clusters else OBSERVATION_FEATURES,
        network=settings,
        training={"command": command_line("train", **trained), **record},
    )
    return write_validated(
        config,
        manifest,
        arrays,
        scenario,
        lambda file: compared(file, model, transform, scenario, config.seed),
    )


def scenario_of(trained: Mapping[str, Any]) -> Scenario:
    """The held-out scenario of a training run's configuration."""
    asked = {name: trained.get(name) for name in NAMES if name != "split"}
    return held_out_scenario(trained["scenario"], **asked)


def write_validated(
    config: ValidatedFile,
    manifest: Manifest,
    arrays: Mapping[str, AnyArray],
    scenario: Scenario,
    compare: Callable[[Path], tuple[Policy, "Differences"]],
) -> Manifest:
    """Write a file, compared with what it was made from and validated, all at once or not at all.

    Args:
        config: the file, and the episodes of its validation.
        manifest: of the file, but for the validation.
        arrays: of its network.
        scenario: that it was trained for.
        compare: the policy of an .npz, and its differences from what it was made from.

    Returns:
        The manifest with the validation.

    Raises:
        ValueError: the file decides otherwise.
        OSError: it cannot be written.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=config.out.parent))
    except OSError as error:
        raise OSError(f"cannot write --out {config.out}: {error.strerror}") from None
    try:
        # What decides is the .npz; an .onnx is the same arrays for other runtimes.
        own = staging / "allocator.npz"
        write_npz(own, manifest, arrays)
        policy, differences = compare(own)
        name = manifest.training["config"]["scenario"]
        validation = validated(config, name, scenario, policy, differences)
        manifest = manifest.model_copy(update={"validation": validation})
        unfinished = staging / config.out.name
        WRITERS[config.out.suffix](unfinished, manifest, arrays)
        unfinished.replace(config.out)
    finally:
        shutil.rmtree(staging)
    return manifest


def shares_of(model: PPO, transform: ActionTransform) -> Shares:
    """What the trained model decides for observations, (B, N, F): shares, (B, N)."""
    actions = actions_of(model)
    return lambda observation: transform(observation, actions(observation))


def actions_of(model: PPO) -> Callable[[AnyArray], AnyArray]:
    """The trained model's most likely actions, (B, A), in the precision of the exported file."""
    policy = cast(AllocatorPolicy, model.policy)
    policy.to(NETWORKS[policy.network].precision)

    def actions(observation: AnyArray) -> AnyArray:
        with torch.no_grad():
            return policy.most_likely(torch.as_tensor(observation).to(policy.log_std.dtype)).numpy()

    return actions


@dataclass
class Differences:
    """How far the file's shares were from those of the trained model."""

    observations: int = 0
    """How many were compared."""
    largest: float = 0.0
    """The largest difference of a share."""

    def add(self, exported: Array, trained: Array) -> None:
        """Compare the shares for some more observations."""
        self.observations += len(exported)
        self.largest = max(self.largest, float(np.abs(exported - trained).max()))


def compare_shares(allocator: Allocator, trained: Shares, seed: int) -> Differences:
    """Differences on random observations."""
    generator, differences = np.random.default_rng(seed), Differences()
    shape = (COMPARED_OBSERVATIONS, len(allocator.agents), len(OBSERVATION_FEATURES))
    seen = generator.random(shape, dtype=np.float32)
    differences.add(allocator(seen), trained(seen))
    return differences


@dataclass(frozen=True)
class Compared:
    """The exported allocator of clusters, held in each of its steps against the trained model."""

    allocator: ClusterAllocator
    model: PPO
    transform: ClusterTransform
    differences: Differences

    def fresh(self) -> "Compared":
        """The same two, remembering no placement."""
        return replace(self, allocator=self.allocator.fresh(), transform=self.transform.fresh())

    def __call__(self, view: ClusterView) -> Array:
        """What the file decides."""
        shares = self.allocator(view)
        act = actions_of(self.model)
        self.differences.add(shares, self.transform(view, lambda: act(instance_rows(view))))
        return shares


def compared(
    file: Path, model: PPO, transform: Transform, scenario: Scenario, seed: int
) -> tuple[Policy, Differences]:
    """A file's policy for a scenario, and its differences from the model, of clusters in steps to come."""
    if isinstance(transform, ClusterTransform):
        policy = Compared(ClusterAllocator.load(file), model, transform, Differences())
        return policy, policy.differences
    differences = compare_shares(Allocator.load(file), shares_of(model, transform), seed)
    return load_policy(str(file), scenario), differences


def validated(
    config: ValidatedFile, name: str, scenario: Scenario, policy: Policy, differences: Differences
) -> Validation:
    """Play the file's held-out episodes, and look at its differences from the trained model.

    Raises:
        ValueError: it decides otherwise than the model.
    """
    episodes = count_episodes(config.episodes, scenario)
    played = evaluate("exported", policy, scenario, episodes, config.seed)
    if differences.largest > LARGEST_DIFFERENCE:
        largest = f"{differences.largest:.1e}"
        raise ValueError(f"the exported shares differ from the trained ones by up to {largest}")
    return Validation(
        scenario=name,
        split=scenario.trace.split if scenario.trace else None,
        episodes=episodes,
        first_seed=config.seed,
        last_seed=config.seed + episodes - 1,
        objective=float(played.objective.mean()),
        compared_observations=differences.observations,
        largest_difference=differences.largest,
    )


def check(config: ExportConfig) -> None:
    """Refuse what cannot be read or written before anything is done."""
    check_out(config)
    if not config.run.is_dir():
        raise NotADirectoryError(f"{config.run} is not the directory of a training run")
    seeds = seed_runs(config.run)
    if seeds:
        raise ValueError(
            f"{config.run} holds several training seeds; export them one by one: {', '.join(map(str, seeds))}"
        )
    for name in (MODEL, TRANSFORM, CONFIG):
        if not (config.run / name).is_file():
            raise FileNotFoundError(f"{config.run} holds no finished training run: {name} is missing")


def check_out(config: ValidatedFile) -> None:
    """Refuse a file that cannot be written, and episodes that are not held out."""
    if config.out.suffix not in WRITERS:
        raise ValueError(f"--out {config.out} must end in {' or '.join(WRITERS)}")
    if config.out.is_dir():
        raise IsADirectoryError(f"--out {config.out} is a directory; give the name of a file")
    if not config.out.parent.is_dir():
        raise FileNotFoundError(f"--out {config.out}: there is no folder {config.out.parent}; make it first")
    check_evaluation_seeds(config.seed, config.episodes)


if __name__ == "__main__":
    run(main, ExportConfig)
