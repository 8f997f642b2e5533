"""The file of an exported allocator: a manifest, and a network as arrays (.npz) or as a graph (.onnx).

Neither form can run code: an .npz is read without pickle, an .onnx holds a graph of arithmetic.
"""

import importlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import ValidationError

from gpualloc_env.agents import Model
from gpualloc_env.networks import KINDS, Network
from gpualloc_env.observation import OBSERVATION_FEATURES
from gpualloc_env.state import AnyArray, Array

FORMAT, FORMAT_VERSION = "gpualloc-allocator", 1
MANIFEST = "manifest"
"""Name of the .npz array, and key of the .onnx metadata, that holds the manifest as JSON."""
INPUT, OUTPUT = "observation", "shares"
"""Names of the .onnx graph's input, (B, N, F) float32, and output, (B, N) float32."""

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
    """`kind`, a key of `KINDS`, and the settings of that kind."""
    training: dict[str, Any]
    """`command`, `config`, `versions` and `git_commit` of the training run."""
    validation: Validation | None = None


def read(path: str | Path) -> tuple[Manifest, Network]:
    """Read an exported allocator.

    Raises:
        AllocatorError: the file is damaged, something else, or made for another version.
        OSError: it cannot be read.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise AllocatorError(f"{path} is no exported allocator: its name must end in {' or '.join(_READERS)}")
    return reader(path, path.read_bytes())


def write_npz(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write the manifest as a JSON string, and the network's float32 arrays."""
    contents: dict[str, Any] = {MANIFEST: np.array(manifest.model_dump_json()), **arrays}
    np.savez_compressed(path, **contents)


def _read_npz(path: Path, data: bytes) -> tuple[Manifest, Network]:
    try:
        file = np.load(io.BytesIO(data), allow_pickle=False)
        arrays: dict[str, AnyArray] = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # a damaged archive fails in as many ways as it has parts
        raise AllocatorError(f"{path} is damaged or no .npz file; export it again with {_EXPORT}") from error
    text = arrays.pop(MANIFEST, np.zeros(1))
    manifest = _manifest(path, text.item() if text.size == 1 else None)
    kind = KINDS.get(manifest.network.get("kind", ""))
    if kind is None:
        raise AllocatorError(
            f"{path} holds a network of kind {manifest.network.get('kind')!r}; this version of gpualloc_env "
            f"knows {', '.join(KINDS)}: install the version that exported it"
        )
    try:
        return manifest, kind(manifest.network, arrays, (len(manifest.agents), len(manifest.features)))
    except KeyError as error:
        raise AllocatorError(f"{path} is damaged: its network's settings lack {error}") from None
    except (ValueError, TypeError) as error:
        raise AllocatorError(f"{path} is damaged: {error}") from None


def _read_onnx(path: Path, data: bytes) -> tuple[Manifest, Network]:
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
    inputs = {entry.name: entry.shape[1:] for entry in session.get_inputs()}
    outputs = {entry.name: entry.shape[1:] for entry in session.get_outputs()}
    count = len(manifest.agents)
    if inputs != {INPUT: [count, len(manifest.features)]} or outputs != {OUTPUT: [count]}:
        raise AllocatorError(f"{path} is damaged: its graph does not lead from observations to shares")
    run = cast(Callable[[list[str], dict[str, AnyArray]], list[AnyArray]], session.run)

    def network(observation: AnyArray) -> Array:
        return run([OUTPUT], {INPUT: observation})[0].astype(np.float64)

    return manifest, network


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
    return manifest


_READERS = {".npz": _read_npz, ".onnx": _read_onnx}
