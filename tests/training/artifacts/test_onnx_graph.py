"""The graph of an .onnx file is its network for any runtime."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.graph_runs import graph_outputs
from support.npz_contents import contents
from support.places import PRETRAINED

from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.file import Manifest, read
from gpualloc_env.allocator.networks import shared
from training.artifacts.onnx_graph import write_onnx

FILES = {
    "ppo": PRETRAINED / "ppo-serverless" / "seed-0.npz",
    "ppo-shared": PRETRAINED / "ppo-shared-serverless" / "seed-0.npz",
    "ppo-residual": PRETRAINED / "ppo-residual-serverless" / "seed-0.npz",
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The repository's allocators as .onnx files."""
    made = {}
    for name, path in FILES.items():
        made[name] = tmp_path_factory.mktemp("graphs") / f"{name}.onnx"
        write_onnx(made[name], read(path)[0], contents(path)[1])
    return made


def random_observations(name, count, agents):
    """Of the columns that the allocator of a name reads."""
    features = len(read(FILES[name])[0].features)
    return np.random.default_rng(0).random((count, agents, features), dtype=np.float32)


@pytest.mark.parametrize(("name", "agents"), [("ppo", 4), *(("ppo-shared", n) for n in (4, 2, 7))])
def test_a_runtime_finds_the_shares_of_ten_thousand_observations(graphs, name, agents):
    seen = random_observations(name, 10_000, agents)
    names = None if name == "ppo" else [f"agent-{k}" for k in range(agents)]
    shares = Allocator.load(FILES[name], agents=names)(seen)
    found = graph_outputs(graphs[name], seen)
    assert found.shape == shares.shape and np.ptp(shares, axis=0).min() > 0.1
    assert np.abs(found - shares).max() <= 1e-6


@pytest.mark.parametrize("agents", [4, 2, 7])
@pytest.mark.parametrize("bound", [2.0, 0.5])
def test_a_runtime_finds_the_corrections_of_ten_thousand_observations(tmp_path, agents, bound):
    seen = random_observations("ppo-residual", 10_000, agents)
    manifest, arrays = read(FILES["ppo-residual"])[0], contents(FILES["ppo-residual"])[1]
    manifest.network["actions"]["bound"] = bound
    write_onnx(tmp_path / "bounded.onnx", manifest, arrays)
    outputs = shared(manifest.network, arrays, agents, manifest.features)(seen)
    assert 0.5 < np.abs(outputs).max() < 2.0 and np.ptp(outputs, axis=0).min() > 0.1
    found = graph_outputs(tmp_path / "bounded.onnx", seen)
    assert found.shape == outputs.shape
    assert np.abs(found - outputs.clip(-bound, bound)).max() <= 1e-6


@pytest.mark.parametrize("name", FILES)
def test_the_file_holds_the_manifest_and_the_networks_own_arrays(graphs, name):
    model = onnx.load(graphs[name])
    (entry,) = model.metadata_props
    assert entry.key == "manifest" and json.loads(entry.value)["format_version"] == 1
    assert Manifest.model_validate_json(entry.value) == read(FILES[name])[0]
    arrays = contents(FILES[name])[1]
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert set(held) == set(arrays)
    for key, array in arrays.items():
        found = numpy_helper.to_array(held[key])
        assert found.dtype == np.float32 and found.tobytes() == array.tobytes()
