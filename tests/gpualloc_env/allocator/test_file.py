"""The file of an allocator comes back as it was written; whatever else is refused in one clear line."""

import json
import zipfile

import numpy as np
import pytest
from support.npz_contents import contents

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
        ({"agents": 4}, {}, r"is damaged: manifest\.agents: "),
        ({"features": ["queue"]}, {}, "reads the observation columns queue; this version"),
        ({"agents": ["a", "b"]}, {}, "must begin with 2 × 19 features"),
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


@pytest.mark.parametrize("form", ["npz", "onnx"])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(exported, tmp_path, form, keep):
    data = exported[form].read_bytes()
    path = tmp_path / f"cut.{form}"
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(AllocatorError, match=rf"cut\.{form} (is damaged|is no exported|has )"):
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
    with pytest.raises(AllocatorError, match=r"its name must end in \.npz or \.onnx"):
        Allocator.load(tmp_path / "model.zip")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        Allocator.load(tmp_path / "absent.npz")


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
    huge = np.full(76, 3e38, dtype=np.float32)
    allocator = Allocator.load(changed(exported, tmp_path, mean=-huge, scale=huge))
    assert np.isfinite(allocator(np.full((4, 19), 0.5))).all()
    assert allocator.last == Fallback("the network's decision is not finite", "Algorithm 1")


def test_a_file_is_read_back_as_it_was_written(exported, tmp_path):
    manifest, _ = read(exported["npz"])
    _, arrays = contents(exported["npz"])
    write_npz(tmp_path / "again.npz", manifest, arrays)
    again, decide = read(tmp_path / "again.npz")
    seen = np.random.default_rng(0).random((9, 4, 19), dtype=np.float32)
    assert again == manifest and (decide(seen, None) == read(exported["npz"])[1](seen, None)).all()
