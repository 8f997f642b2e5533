"""Join exported allocators into one, whose network has the mean of their networks' outputs.

python -m training.ensemble one.npz another.npz --out both.npz
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.linalg import block_diag

from baselines import Policy
from gpualloc_env.allocator.actions import ACTIONS
from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.file import MANIFEST, Manifest, read
from gpualloc_env.allocator.networks import KINDS
from gpualloc_env.simulation.state import AnyArray, Array
from training.artifacts.policies import load_policy
from training.cli import asked, command_line, run
from training.export import (
    Differences,
    Shares,
    ValidatedFile,
    check_out,
    compare_shares,
    report,
    scenario_of,
    write_validated,
)
from training.files.provenance import provenance

ONCE = ("mean", "mean_rest", "scale")
"""Arrays of a perceptron that all members have alike."""


@dataclass(frozen=True)
class EnsembleConfig(ValidatedFile):
    """Join exported allocators into one, whose network has the mean of their networks' outputs."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Exported allocators of one kind, trained for the same agents, such as training seeds of one."""


@dataclass(frozen=True)
class Member:
    """An allocator of the ensemble."""

    file: Path
    manifest: Manifest
    arrays: Mapping[str, AnyArray]

    @property
    def layers(self) -> list[int]:
        """Widths, from the inputs to the outputs."""
        return list(self.manifest.network["layers"])

    @property
    def common(self) -> dict[str, Any]:
        """What all members must have alike."""
        network = {name: value for name, value in self.manifest.network.items() if name != "layers"}
        ends = {"hidden layers": len(self.layers) - 2, "inputs": self.layers[0], "outputs": self.layers[-1]}
        return {"agents": self.manifest.agents, "columns": self.manifest.features, **network, **ends}

    def outputs(self, observation: AnyArray) -> AnyArray:
        """Of its network, for observations with the columns that it reads."""
        manifest = self.manifest
        network = KINDS[manifest.network["kind"]]
        return network(manifest.network, self.arrays, len(manifest.agents), manifest.features)(observation)


def main(config: EnsembleConfig) -> None:
    """Read the files, write their ensemble, hold what it decides against them, and validate it."""
    report(config, ensemble(config))


def ensemble(config: EnsembleConfig) -> Manifest:
    """Write the file, all at once or not at all, and return its manifest.

    Raises:
        ValueError: the files do not fit each other, or the ensemble decides otherwise than they do.
        OSError: a file is missing, or `out` cannot be written.
    """
    check_out(config)
    members = [_member(file) for file in config.files]
    check_members(members)
    first, usual = members[0].manifest, EnsembleConfig(files=config.files, out=config.out)
    trained = first.training["config"]
    scenario = scenario_of(trained)
    hidden = np.sum([each.layers[1:-1] for each in members], axis=0, dtype=int).tolist()
    manifest = Manifest(
        agents=first.agents,
        features=first.features,
        network={**first.network, "layers": [members[0].layers[0], *hidden, members[0].layers[-1]]},
        training={
            **provenance(trained),
            "command": command_line("ensemble", *config.files, out=config.out, **asked(config, usual)),
            "members": [each.manifest.training for each in members],
        },
    )

    def compare(file: Path) -> tuple[Policy, Differences]:
        differences = compare_shares(Allocator.load(file), mean_shares(members), config.seed)
        return load_policy(str(file), scenario), differences

    return write_validated(config, manifest, side_by_side(members), scenario, compare)


def _member(file: Path) -> Member:
    manifest, _ = read(file)
    with np.load(file, allow_pickle=False) as contents:
        return Member(file, manifest, {name: contents[name] for name in contents.files if name != MANIFEST})


def check_members(members: Sequence[Member]) -> None:
    """Refuse members that have no mean.

    Raises:
        ValueError: there is only one, or they are of clusters or differ in more than their hidden layers.
    """
    if len(members) < 2:
        raise ValueError(f"an ensemble needs at least two files, got {len(members)}")
    first = members[0]
    if first.manifest.of_clusters:
        raise ValueError(f"{first.file} is an allocator of clusters; give some of one pool of GPUs")
    for other in members[1:]:
        for name, value in first.common.items():
            if other.common.get(name) != value:
                shown = f"{name} is {value!r} and {other.common.get(name)!r}"
                if len(shown) > 160:
                    shown = f"their {name} differ"
                raise ValueError(
                    f"{first.file} and {other.file} have no mean: {shown}; give seeds of one allocator"
                )
        for name in set(ONCE) & set(first.arrays):
            if not np.array_equal(first.arrays[name], other.arrays[name]):
                raise ValueError(f"{first.file} and {other.file} have no mean: inputs are scaled differently")


def side_by_side(members: Sequence[Member]) -> dict[str, AnyArray]:
    """Arrays of the network whose hidden layers are those of all members, none of which sees another's.

    The first layers stand beside each other, the further ones on the diagonal, and the last one adds up
    what each member's would give, over their number.
    """
    last = len(members[0].layers) - 2
    arrays: dict[str, AnyArray] = {}
    for name in members[0].arrays:
        parts = [each.arrays[name] for each in members]
        array, _, layer = name.partition("_")
        at_end = layer in (str(last), "idle")
        if name in ONCE:
            arrays[name] = parts[0]
            continue
        if array == "bias" or last == 0:
            whole = np.mean(parts, axis=0, dtype=np.float64) if at_end else np.concatenate(parts)
        elif at_end:
            whole = np.concatenate(parts).astype(np.float64) / len(members)
        else:
            whole = np.concatenate(parts, axis=1) if layer == "0" else block_diag(*parts)
        arrays[name] = np.ascontiguousarray(whole, dtype=np.float32)
    return arrays


def mean_shares(members: Sequence[Member]) -> Shares:
    """What follows from the mean of the members' outputs, for observations, (B, N, F): shares, (B, N)."""
    actions = members[0].manifest.network["actions"]
    make_actions, *_ = ACTIONS[actions["kind"]]
    act = make_actions(actions)

    def shares(observation: AnyArray) -> Array:
        return act(observation, np.mean([each.outputs(observation) for each in members], axis=0), None)

    return shares


if __name__ == "__main__":
    run(main, EnsembleConfig)
