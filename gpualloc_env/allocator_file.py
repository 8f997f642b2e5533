"""The file of an exported allocator: a manifest, and a network as arrays (.npz) or as a graph (.onnx).

Neither form can run code: an .npz is read without pickle, an .onnx holds a graph of arithmetic.
"""

import importlib
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import ValidationError

from gpualloc_env.agents import Model
from gpualloc_env.networks import ACTIONS, KINDS, Decider, decider
from gpualloc_env.observation import OBSERVATION_FEATURES, Packed
from gpualloc_env.state import AnyArray, Array

FORMAT, FORMAT_VERSION = "gpualloc-allocator", 1
MANIFEST = "manifest"
"""Name of the .npz array, and key of the .onnx metadata, that holds the manifest as JSON."""
INPUT = "observation"
"""Name of the .onnx graph's input, (B, N, F) float32."""
OUTPUT = {"simplex": "shares", "corrections": "corrections"}
"""Name of its output, by the kind of actions: the shares, (B, N), or the corrections, (B, N · kinds)."""

_EXPORT = "python -m training.export <run> --out <file>"


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
        return self.network.get("kind") == "shared"


def read(path: str | Path, agents: Sequence[str] | None = None) -> tuple[Manifest, Decider]:
    """Read an exported allocator.

    Args:
        path: of the file.
        agents: for whom it is to decide; those of its training by default.

    Returns:
        Its manifest, and what decides, for others too where the manifest says so.

    Raises:
        AllocatorError: the file is damaged, something else, or made for another version.
        OSError: it cannot be read.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise AllocatorError(f"{path} is no exported allocator: its name must end in {' or '.join(_READERS)}")
    return reader(path, path.read_bytes(), agents)


def write_npz(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write the manifest as a JSON string, and the network's float32 arrays."""
    contents: dict[str, Any] = {MANIFEST: np.array(manifest.model_dump_json()), **arrays}
    np.savez_compressed(path, **contents)


def _read_npz(path: Path, data: bytes, agents: Sequence[str] | None) -> tuple[Manifest, Decider]:
    try:
        file = np.load(io.BytesIO(data), allow_pickle=False)
        arrays: dict[str, AnyArray] = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # a damaged archive fails in as many ways as it has parts
        raise AllocatorError(f"{path} is damaged or no .npz file; export it again with {_EXPORT}") from error
    text = arrays.pop(MANIFEST, np.zeros(1))
    manifest = _manifest(path, text.item() if text.size == 1 else None)
    shape = _shape(path, manifest, agents)
    try:
        return manifest, decider(manifest.network, arrays, shape)
    except KeyError as error:
        raise AllocatorError(f"{path} is damaged: its network's settings lack {error}") from None
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def _read_onnx(path: Path, data: bytes, agents: Sequence[str] | None) -> tuple[Manifest, Decider]:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        raise AllocatorError(
            f"{path} needs onnxruntime: pip install 'gpualloc-env[onnx]', or export the allocator to .npz, "
            "which needs nothing more"
        ) from None
    options = runtime.SessionOptions()
    # Networks this small are faster on one thread than on several.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime's own, which share no base
        raise AllocatorError(f"{path} is damaged or no .onnx file; export it again with {_EXPORT}") from error
    manifest = _manifest(path, session.get_modelmeta().custom_metadata_map.get(MANIFEST))
    count, features = _shape(path, manifest, agents)
    try:
        kind = manifest.network["actions"]["kind"]
        # The graph of a simplex ends with the shares; a plan is no graph.
        act = ACTIONS[kind][0](manifest.network["actions"]) if kind != "simplex" else None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    fixed = not manifest.serves_any_number
    inputs = {entry.name: entry.shape[2 - fixed :] for entry in session.get_inputs()}
    outputs: dict[str, list[Any]] = {
        entry.name: entry.shape[1:] if fixed else [] for entry in session.get_outputs()
    }
    expected = [count, features] if fixed else [features]
    if inputs != {INPUT: expected} or outputs != {OUTPUT[kind]: [count] if fixed else []}:
        raise AllocatorError(
            f"{path} is damaged: its graph does not lead from observations to {OUTPUT[kind]}"
        )
    graph = _Bound(session, ACTIONS[kind][1] if act is not None else int)

    def decide(observation: AnyArray, packed: Packed | None) -> Array:
        result = graph(observation)
        return act(observation, result, packed) if act is not None else result

    return manifest, decide


class _Bound(threading.local):
    """A graph that is run in place, on arrays of its own, one pair for each thread.

    Handing arrays over anew takes as long as to run a small graph.
    """

    def __init__(self, session: Any, width: Callable[[int], int]) -> None:
        """Bind nothing yet.

        Args:
            session: of onnxruntime.
            width: from the number of agents to that of numbers in the result for an observation.
        """
        self._session, self._width = session, width
        (result,) = session.get_outputs()
        self._name, self._kind = result.name, np.float32 if result.type == "tensor(float)" else np.float64
        self._seen: AnyArray = np.empty(0)

    def __call__(self, observation: AnyArray) -> Array:
        """The graph's result, (B, width) float64, for observations, (B, N, F) float32."""
        if observation.shape != self._seen.shape:
            self._bind(observation.shape)
        self._seen[...] = observation
        self._session.run_with_iobinding(self._binding)
        return self._result.astype(np.float64)

    def _bind(self, shape: tuple[int, ...]) -> None:
        self._seen = np.empty(shape, dtype=np.float32)
        self._result: AnyArray = np.empty((shape[0], self._width(shape[1])), dtype=self._kind)
        self._binding = self._session.io_binding()
        for bind, name, array in (
            (self._binding.bind_input, INPUT, self._seen),
            (self._binding.bind_output, self._name, self._result),
        ):
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _shape(path: Path, manifest: Manifest, agents: Sequence[str] | None) -> tuple[int, int]:
    """(N, F) of the observations on which it is to decide."""
    count = len(manifest.agents if agents is None else agents)
    if count != len(manifest.agents) and not manifest.serves_any_number:
        raise AllocatorError(
            f"{path} was trained for {len(manifest.agents)} agents, {', '.join(manifest.agents)}, and "
            f"cannot decide for {count}; train one for them, or a ppo-shared or ppo-residual one, which can"
        )
    return count, len(manifest.features)


def _damaged(path: Path, error: Exception) -> AllocatorError:
    return AllocatorError(f"{path} is damaged: {error}")


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
        raise AllocatorError(f"{path} is damaged: manifest.{place}: {first['msg']}") from None
    if manifest.features != OBSERVATION_FEATURES or not manifest.agents:
        raise AllocatorError(
            f"{path} reads the observation columns {', '.join(manifest.features)}; this version of "
            f"gpualloc_env has {', '.join(OBSERVATION_FEATURES)}: train and export with this version"
        )
    actions: Any = manifest.network.get("actions", {"kind": "simplex"})
    kinds: list[tuple[Any, Mapping[str, Any]]] = [(manifest.network.get("kind"), KINDS)]
    kinds.append((cast(dict[str, Any], actions).get("kind") if isinstance(actions, dict) else None, ACTIONS))
    for kind, known in kinds:
        if kind not in known:
            raise AllocatorError(
                f"{path} holds a network of kind {kind!r}; this version of gpualloc_env knows "
                f"{', '.join(known)}: install the version that exported it"
            )
    return manifest


_READERS = {".npz": _read_npz, ".onnx": _read_onnx}
