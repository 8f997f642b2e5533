"""The file of an exported allocator: a manifest, and a network as arrays, read without pickle."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import ValidationError

from gpualloc_env.allocator.actions import ACTIONS, takes_bill
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS, ClusterDecider
from gpualloc_env.allocator.decider import Decider
from gpualloc_env.allocator.networks import KINDS
from gpualloc_env.listing import listed
from gpualloc_env.scenario.model import Model
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from gpualloc_env.simulation.state import AnyArray

FORMAT, FORMAT_VERSION = "gpualloc-allocator", 1
MANIFEST = "manifest"
"""Name of the array, and key of the metadata of an .onnx, that holds the manifest as JSON."""

_OF_CLUSTERS = ("exchangeable", "placed-corrections")
"""`kind` of the network of clusters and of its actions, besides those of `KINDS` and `ACTIONS`."""
_EXPORT = "gpualloc export <run> --out <file>"


class AllocatorError(ValueError):
    """A file that holds no allocator that this version can use; says why and what to do."""


class Validation(Model):
    """What the exported allocator did on held-out episodes of the scenario that it was trained for."""

    scenario: str
    split: str | None
    """Windows of the request log, where the scenario replays one."""
    episodes: int
    first_seed: int
    last_seed: int
    objective: float
    """J, the mean of the episodes' objectives; lower is better."""
    compared_observations: int
    largest_difference: float
    """Between a share of the exported and of the trained allocator on so many observations."""


class Manifest(Model):
    """What an allocator is: for whom it decides, on what, and where it comes from."""

    format: Literal["gpualloc-allocator"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    agents: tuple[str, ...]
    features: tuple[str, ...]
    """Columns of the observation that it reads, in order."""
    network: dict[str, Any]
    """`kind`, a key of `KINDS`, the settings of that kind, and `actions`, likewise of `ACTIONS`."""
    training: dict[str, Any]
    """`command`, `config`, `versions` and `git_commit` of the training run."""
    validation: Validation | None = None

    @property
    def serves_any_number(self) -> bool:
        """Whether it decides for other agents than those that it was trained for, however many."""
        return self.network.get("kind") in ("shared", _OF_CLUSTERS[0])

    @property
    def priced(self) -> bool:
        """Whether it can be told what the bill weighs in the objective."""
        return takes_bill(self.network.get("actions", {}))

    @property
    def of_clusters(self) -> bool:
        """Whether it decides for clusters rather than for one pool of GPUs."""
        return self.network.get("kind") == _OF_CLUSTERS[0]


def read(
    path: str | Path, agents: Sequence[str] | None = None, bill_s: float | None = None
) -> tuple[Manifest, Decider | ClusterDecider]:
    """Read an exported allocator.

    Args:
        path: of the file.
        agents: for whom it is to decide; those of its training by default.
        bill_s: what the bill weighs, `Scenario.bill_s`, for one that can be told.

    Returns:
        Its manifest, and what decides, for others too where the manifest says so.

    Raises:
        AllocatorError: the file is damaged, something else, or made for another version, or it cannot be told
            `bill_s`.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.suffix != ".npz":
        remedy = (
            "; an .onnx is for other runtimes, export the run to .npz too" if path.suffix == ".onnx" else ""
        )
        raise AllocatorError(f"{path} is no exported allocator: its name must end in .npz{remedy}")
    data = path.read_bytes()
    try:
        file = np.load(io.BytesIO(data), allow_pickle=False)
        arrays: dict[str, AnyArray] = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # a damaged archive fails in as many ways as it has parts
        raise AllocatorError(f"{path} is damaged or no .npz file; export it again with {_EXPORT}") from error
    text = arrays.pop(MANIFEST, np.zeros(1))
    manifest = _manifest(path, text.item() if text.size == 1 else None)
    return manifest, _decider(path, manifest, arrays, agents, bill_s)


def write_npz(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write the manifest as a JSON string, and the network's float32 arrays."""
    contents: dict[str, Any] = {MANIFEST: np.array(manifest.model_dump_json()), **arrays}
    np.savez_compressed(path, **contents)


def _decider(
    path: Path,
    manifest: Manifest,
    arrays: Mapping[str, AnyArray],
    agents: Sequence[str] | None,
    bill_s: float | None,
) -> Decider | ClusterDecider:
    """What decides for the agents by the network in a file, if its parts fit."""
    count, network = _count(path, manifest, agents), manifest.network
    if bill_s is not None:
        _check_bill(path, manifest, bill_s)
        network = {**network, "actions": {**network["actions"], "bill_s": bill_s}}
    try:
        if manifest.of_clusters:
            return ClusterDecider(network, arrays, manifest.features)
        return Decider(network, arrays, count, manifest.features)
    except KeyError as error:
        raise _damaged(path, f"its network's settings lack {error}") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise _damaged(path, error) from None


def _check_bill(path: Path, manifest: Manifest, bill_s: float) -> None:
    if not manifest.priced:
        raise AllocatorError(
            f"{path} decides alike whatever the bill weighs; leave bill_s out, or give one that can be told, "
            "such as a ppo-mpc-priced"
        )
    if isinstance(bill_s, bool) or not isinstance(bill_s, Real) or not 0 < bill_s < math.inf:
        raise AllocatorError(
            f"bill_s must be a number of seconds above 0, got {bill_s!r:.60}; it is what the bill of "
            "the whole platform weighs in seconds of a request's mean latency"
        )


def _count(path: Path, manifest: Manifest, agents: Sequence[str] | None) -> int:
    """N of the observations on which it is to decide."""
    names = manifest.agents if agents is None else tuple(agents)
    count = len(names)
    if names != manifest.agents and count == len(manifest.agents) and not manifest.serves_any_number:
        raise AllocatorError(
            f"{path} was trained for the agents {listed(manifest.agents)}, in this order, and cannot decide "
            f"for {listed(names)}; train one for them, or one that can, such as a ppo-mpc"
        )
    if count != len(manifest.agents) and not manifest.serves_any_number:
        raise AllocatorError(
            f"{path} was trained for {len(manifest.agents)} agents, {listed(manifest.agents)}, and "
            f"cannot decide for {count}; train one for them, or one that can, such as a ppo-mpc"
        )
    return count


def checked_names(agents: Sequence[str]) -> tuple[str, ...]:
    """Names of agents, one for each.

    Raises:
        AllocatorError: no list of different names.
    """
    given: Any = agents
    names: tuple[Any, ...] = tuple(given) if hasattr(given, "__iter__") else (given,)
    if isinstance(given, str) or not all(isinstance(name, str) for name in names):
        raise AllocatorError(
            f"agents must be a list of names, such as ['router', 'writer'], got {agents!r:.80}"
        )
    if not names or len(set(names)) < len(names):
        raise AllocatorError(f"agents must be different names, at least one, got {list(names)!r:.80}")
    return names


def in_order(field: str, given: Any, agents: Sequence[str]) -> Any:
    """What a mapping by the agents' names holds, in their order; anything else as it is.

    Raises:
        ValueError: the mapping is of other agents; the message names the field.
    """
    if not isinstance(given, Mapping):
        return given
    by_name: Mapping[str, Any] = given  # pyright: ignore[reportUnknownVariableType]
    if set(by_name) != set(agents):
        raise ValueError(
            f"{field} must have a number for each of {listed(agents)}, got {dict(by_name)!r:.80}"
        )
    return [by_name[name] for name in agents]


def _damaged(path: Path, error: object) -> AllocatorError:
    return AllocatorError(f"{path} is damaged: {error}; export it again with {_EXPORT}")


def _manifest(path: Path, text: object) -> Manifest:
    """The manifest in a file, if it is one that this version understands."""
    try:
        data: Any = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict) or cast(dict[str, Any], data).get("format") != FORMAT:
        raise AllocatorError(f"{path} is no exported allocator: it has no manifest; make one with {_EXPORT}")
    fields = cast(dict[str, Any], data)
    if fields.get("format_version") != FORMAT_VERSION:
        raise AllocatorError(
            f"{path} has format version {fields.get('format_version')}, this version of gpualloc_env reads "
            f"{FORMAT_VERSION}: export the run again with {_EXPORT}"
        )
    try:
        manifest = Manifest.model_validate_json(cast(str, text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"manifest.{place}: {first['msg']}") from None
    if not manifest.agents:
        raise _damaged(path, "manifest.agents is empty")
    columns = CLUSTER_COLUMNS if manifest.of_clusters else OBSERVATION_FEATURES
    strangers = [name for name in manifest.features if name not in columns]
    if strangers or not manifest.features:
        raise AllocatorError(
            f"{path} reads the observation columns {', '.join(strangers) or 'of no name'}; this version of "
            f"gpualloc_env has {', '.join(columns)}: install the version that exported it"
        )
    actions: Any = manifest.network.get("actions", {"kind": "simplex"})
    known_kinds = [[each] for each in _OF_CLUSTERS] if manifest.of_clusters else [[*KINDS], [*ACTIONS]]
    acts = cast(dict[str, Any], actions).get("kind") if isinstance(actions, dict) else None
    kinds = list(zip((manifest.network.get("kind"), acts), known_kinds, strict=True))
    for kind, known in kinds:
        if kind not in known:  # what is no name is not to be looked up
            raise AllocatorError(
                f"{path} holds a network of kind {kind!r}; this version of gpualloc_env knows "
                f"{', '.join(known)}: install the version that exported it"
            )
    return manifest
