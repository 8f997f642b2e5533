"""An ensemble decides by the mean of its members' outputs, in one network, and says what it is made of."""

import shutil

import numpy as np
import pytest
from support.graph_runs import graph_outputs
from support.places import PRETRAINED

from gpualloc_env.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.file import MANIFEST, read
from gpualloc_env.allocator.networks import KINDS
from training.cli import run
from training.ensemble import EnsembleConfig, main

NAMES = {
    "shared": "ppo-shared-serverless",
    "perceptron": "ppo-paper",
    "linear": "linear-residual-llm",
    "mpc": "universal",
}


def seeds(name, count=3):
    return tuple(sorted((PRETRAINED / name).glob("seed-*.npz"))[:count])


def network(file):
    manifest, _ = read(file)
    with np.load(file) as contents:
        arrays = {name: contents[name] for name in contents.files if name != MANIFEST}
    kind = KINDS[manifest.network["kind"]]
    return kind(manifest.network, arrays, len(manifest.agents), manifest.features), manifest


@pytest.fixture(scope="module")
def ensembles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensembles")
    for kind, name in NAMES.items():
        main(EnsembleConfig(seeds(name), out=folder / f"{kind}.npz", episodes=2, seed=1_000_001))
    return folder


@pytest.mark.parametrize("kind", NAMES)
def test_its_outputs_are_the_mean_of_its_members(kind, ensembles):
    one, manifest = network(ensembles / f"{kind}.npz")
    members = [network(file)[0] for file in seeds(NAMES[kind])]
    seen = np.random.default_rng(0).random((500, 4, len(manifest.features)), dtype=np.float32)
    each = np.stack([member(seen) for member in members])
    assert np.ptp(each, axis=0).max() > 1e-2
    assert one(seen) == pytest.approx(each.mean(axis=0), rel=1e-6, abs=2e-5)


def test_its_manifest_says_how_to_make_it_and_its_members(ensembles):
    manifest, _ = read(ensembles / "shared.npz")
    files = seeds(NAMES["shared"])
    training, members = manifest.training, [read(file)[0] for file in files]
    assert training["command"].startswith("python -m training.ensemble ")
    assert training["command"].endswith(f" --out {ensembles / 'shared.npz'} --episodes 2 --seed 1000001")
    assert all(str(file) in training["command"] for file in files)
    assert training["members"] == [member.training for member in members]
    assert training["config"] == members[0].training["config"]
    assert manifest.network["layers"] == [36, 192, 192, 2]
    assert manifest.validation.largest_difference <= 1e-6 and manifest.validation.episodes == 2


def test_it_is_an_allocator_as_any_other_for_any_agents_and_runtime(ensembles, tmp_path):
    allocator = Allocator.load(ensembles / "shared.npz", agents=["a", "b"])
    assert allocator(np.zeros((2, 26), np.float32)).shape == (2,) and not allocator.fallbacks
    main(EnsembleConfig(seeds("ppo-shared-serverless", 2), out=tmp_path / "two.onnx", episodes=1))
    main(EnsembleConfig(seeds("ppo-shared-serverless", 2), out=tmp_path / "two.npz", episodes=1))
    seen = np.random.default_rng(1).random((50, 4, 26), dtype=np.float32)
    own = Allocator.load(tmp_path / "two.npz")(seen)
    assert np.abs(own - graph_outputs(tmp_path / "two.onnx", seen)).max() <= 1e-6


@pytest.mark.slow
def test_members_may_be_of_several_widths(ensembles, tmp_path):
    files = (ensembles / "shared.npz", seeds("ppo-shared-serverless")[0])
    main(EnsembleConfig(files, out=tmp_path / "more.npz", episodes=1))
    assert read(tmp_path / "more.npz")[0].network["layers"] == [36, 256, 256, 2]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (seeds("ppo-paper", 1), "an ensemble needs at least two files, got 1"),
        (
            (*seeds("ppo-paper", 1), *seeds("ppo-residual-steady", 1)),
            "have no mean: kind is 'mlp' and 'shared'",
        ),
        ((*seeds("ppo-residual-steady", 1), *seeds("ppo-shared-serverless", 1)), "have no mean: "),
        (
            seeds("linear-cluster-cluster-small", 2),
            "is an allocator of clusters; give some of one pool of GPUs",
        ),
    ],
)
def test_what_has_no_mean_is_refused_and_nothing_written(files, message, tmp_path):
    out = tmp_path / "both.npz"
    with pytest.raises(ValueError, match=message):
        main(EnsembleConfig(files, out=out))
    assert not any(tmp_path.iterdir())


def test_inputs_that_are_scaled_differently_have_no_mean(tmp_path):
    one, other = seeds("ppo-paper", 2)
    with np.load(other) as contents:
        arrays = dict(contents)
    np.savez(tmp_path / "scaled.npz", **(arrays | {"scale": 2.0 * arrays["scale"]}))
    with pytest.raises(ValueError, match="inputs are scaled differently"):
        main(EnsembleConfig((one, tmp_path / "scaled.npz"), out=tmp_path / "both.npz"))


def test_a_file_that_holds_no_allocator_ends_with_a_message(tmp_path):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"no archive")
    with pytest.raises(AllocatorError, match="is damaged or no"):
        main(EnsembleConfig((*seeds("ppo-paper", 1), damaged), out=tmp_path / "both.npz"))
    assert not (tmp_path / "both.npz").exists()


def test_the_command_writes_over_one_of_its_own_members(tmp_path, capsys):
    for file in seeds("linear-residual-llm", 2):
        shutil.copy(file, tmp_path)
    names = [str(tmp_path / f"seed-{k}.npz") for k in range(2)]
    run(main, EnsembleConfig, [*names, "--out", names[0], "--episodes", "1"])
    assert "on llm, 1 held-out episodes" in capsys.readouterr().out
    assert len(read(names[0])[0].training["members"]) == 2
