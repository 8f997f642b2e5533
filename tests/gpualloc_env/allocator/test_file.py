"""The file of an allocator comes back as it was written; whatever else is refused in one clear line."""

import json
import zipfile

import numpy as np
import pytest
from support.npz_contents import contents

from gpualloc_env import OBSERVATION_FEATURES
from gpualloc_env.allocator.allocator import Allocator, AllocatorError, Fallback
from gpualloc_env.allocator.file import read, write_npz

SIMPLEX = {"kind": "simplex", "bound": 6.0, "idle_bias": 0.0}


def changed(exported, tmp_path, manifest=None, **arrays):
    """A copy of the exported .npz with parts of its manifest or its arrays replaced."""
    data, kept = contents(exported["npz"])
    path = tmp_path / "changed.npz"
    np.savez(path, manifest=np.array(json.dumps(data | (manifest or {}))), **(kept | arrays))
    return path


@pytest.mark.parametrize(
    ("manifest", "arrays", "words"),
    [
        ({"format_version": 0}, {}, "has format version 0, this version of gpualloc_env reads 1: export the"),
        ({"format": "other"}, {}, "is no exported allocator: it has no manifest"),
        ({"network": {"kind": "transformer"}}, {}, "network of kind 'transformer'; .* knows mlp"),
        ({"network": {"kind": "mlp", "actions": SIMPLEX}}, {}, "its network's settings lack 'layers'"),
        ({"network": {"kind": ["mlp"]}}, {}, r"network of kind \['mlp'\]; .* knows mlp"),
        (
            {"network": {"kind": "mlp", "layers": 5, "actions": SIMPLEX, "clip": 1}},
            {},
            "layers must be a list",
        ),
        (
            {"network": {"kind": "shared", "actions": SIMPLEX}, "features": ["share"]},
            {},
            "reads .* gpus is not",
        ),
        ({"agents": 4}, {}, r"is damaged: manifest\.agents: "),
        ({"features": ["queue", "speed"]}, {}, "reads the observation columns speed; this version"),
        ({"features": []}, {}, "reads the observation columns of no name; this version"),
        ({"features": ["queue"]}, {}, "must begin with 4 × 1 features"),
        ({"agents": ["a", "b"]}, {}, "must begin with 2 × 26 features"),
        ({}, {"bias_1": np.zeros(64)}, r"bias_1 must be float32 of shape \(64,\), got float64"),
        ({}, {"bias_1": np.zeros(9, np.float32)}, r"got float32 of shape \(9,\)"),
        ({}, {"bias_1": np.full(64, np.nan, np.float32)}, "bias_1 is not finite"),
        ({}, {"more": np.zeros(1, np.float32)}, "the arrays must be mean, mean_rest, scale, bias_0"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(exported, tmp_path, manifest, arrays, words):
    path = changed(exported, tmp_path, manifest, **arrays)
    with pytest.raises(AllocatorError, match=words) as caught:
        Allocator.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(exported, tmp_path, keep):
    data = exported["npz"].read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(AllocatorError, match=r"cut\.npz is damaged"):
        Allocator.load(path)


def test_foreign_files_are_refused(exported, tmp_path):
    np.savez(tmp_path / "foreign.npz", weights=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("manifest", "{}")
    for name in ("foreign", "array", "zip"):
        with pytest.raises(AllocatorError, match=rf"{name}\.npz is (damaged|no exported allocator)"):
            Allocator.load(tmp_path / f"{name}.npz")
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(AllocatorError, match=r"model\.zip is no exported .*: its name must end in \.npz$"):
        Allocator.load(tmp_path / "model.zip")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        Allocator.load(tmp_path / "absent.npz")


def test_a_graph_for_other_runtimes_is_refused_with_the_remedy(exported):
    with pytest.raises(AllocatorError, match=r"an \.onnx is for other runtimes, export the run to \.npz too"):
        Allocator.load(exported["onnx"])


def reads(exported, tmp_path, columns):
    """A copy of the exported .npz that reads these columns, and no others, as the original reads them."""
    manifest, arrays = contents(exported["npz"])
    places = [manifest["features"].index(name) for name in columns]
    rows = np.concatenate([len(manifest["features"]) * agent + np.array(places) for agent in range(4)])
    kept = {name: arrays[name][rows] for name in ("mean", "mean_rest", "scale", "weight_0")}
    layers = [len(rows), *manifest["network"]["layers"][1:]]
    changes = {"features": columns, "network": {**manifest["network"], "layers": layers}}
    return changed(exported, tmp_path, changes, **kept)


def test_columns_are_read_by_name_in_any_order(exported, tmp_path):
    backwards = Allocator.load(reads(exported, tmp_path, list(OBSERVATION_FEATURES[::-1])))
    seen = np.random.default_rng(0).random((100, 4, 26), dtype=np.float32)
    # Sums in another order differ by the rounding of float32.
    assert backwards(seen) == pytest.approx(Allocator.load(exported["npz"])(seen), abs=1e-6)
    assert np.ptp(backwards(seen), axis=0).min() > 1e-3


def test_columns_that_are_not_read_may_hold_anything_in_range(exported, tmp_path):
    columns = ["rate", "queue", "share"]
    few = Allocator.load(reads(exported, tmp_path, columns))
    seen, others = np.random.default_rng(0).random((2, 100, 4, 26), dtype=np.float32)
    places = [OBSERVATION_FEATURES.index(name) for name in columns]
    others[..., places] = seen[..., places]
    assert (few(seen) == few(others)).all() and np.ptp(few(seen), axis=0).min() > 1e-3
    # A column that is read as a zero by the original, as this one does not read it at all.
    _, arrays = contents(exported["npz"])
    rest = [k for k in range(104) if k % 26 not in places]
    blind = arrays["weight_0"].copy()
    blind[rest] = 0.0
    whole = Allocator.load(changed(exported, tmp_path, weight_0=blind))
    assert few(seen) == pytest.approx(whole(seen), abs=1e-6)
    assert not few.fallbacks


def test_flipped_bytes_are_noticed_or_harmless(exported, tmp_path):
    data, rng = bytearray(exported["npz"].read_bytes()), np.random.default_rng(0)
    healthy = Allocator.load(exported["npz"])(np.full((4, 19), 0.5))
    refused = 0
    for place in rng.integers(len(data), size=60).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        (tmp_path / "flipped.npz").write_bytes(damaged)
        try:
            shares = Allocator.load(tmp_path / "flipped.npz")(np.full((4, 19), 0.5))
        except AllocatorError:
            refused += 1
        else:
            assert (shares == healthy).all()
    assert refused > 40


def test_a_network_whose_numbers_overflow_is_not_believed(exported, tmp_path):
    huge = np.full(104, 3e38, dtype=np.float32)
    allocator = Allocator.load(changed(exported, tmp_path, mean=-huge, scale=huge))
    assert np.isfinite(allocator(np.full((4, 19), 0.5))).all()
    assert allocator.last == Fallback("the network's decision is not finite", "Algorithm 1")


def test_a_file_is_read_back_as_it_was_written(exported, tmp_path):
    manifest, _ = read(exported["npz"])
    _, arrays = contents(exported["npz"])
    write_npz(tmp_path / "again.npz", manifest, arrays)
    again, decide = read(tmp_path / "again.npz")
    seen = np.random.default_rng(0).random((9, 4, 26), dtype=np.float32)
    assert again == manifest and (decide(seen, None) == read(exported["npz"])[1](seen, None)).all()
