"""Names of what stands beside the package."""

import numpy as np
import pytest
from support.episodes import started

from gpualloc_env import Allocator, load_scenario, policy
from gpualloc_env.allocator import AllocatorError


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("ppo-residual-serverless", 0),
        ("ppo-residual-serverless/seed-1", 1),
        ("ppo-residual-serverless/seed-1.npz", 1),
        ("training/pretrained/ppo-residual-serverless/seed-1.npz", 1),
    ],
)
def test_a_pretrained_allocator_has_the_same_names_everywhere(name, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    view = started(load_scenario("serverless"), 2).view
    shares = Allocator.pretrained(f"ppo-residual-serverless/seed-{seed}").decide(view)
    assert np.array_equal(Allocator.pretrained(name).decide(view), shares)
    assert np.array_equal(policy(name)(view), shares)


@pytest.mark.parametrize(
    "name", ["universe", "", "../pretrained", "universal/seed-9", "universal/seed-9.npz"]
)
def test_an_allocator_that_does_not_come_with_the_package_is_refused(name):
    with pytest.raises(AllocatorError, match=r"no allocator .* comes with the package; there are"):
        Allocator.pretrained(name)
    with pytest.raises(ValueError, match=r"unknown policy|no such file|holds no finished|is missing"):
        policy(name)
