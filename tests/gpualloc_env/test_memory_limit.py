"""A batch that no memory can hold is refused before anything is allocated."""

import numpy as np
import pytest

import gpualloc_env.memory
from gpualloc_env import CLUSTERS, Batch, ScenarioError, load_scenario
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.memory import bytes_needed, physical_memory


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("name", ["serverless", "workflow", "fleet"])
def test_what_is_needed_is_what_is_allocated(name, record):
    scenario = load_scenario(name, steps=200)
    batch = Batch(scenario, 30, record=record)
    arrays = {id(array): array for array in (*batch.world, batch.info, batch.observation)}
    allocated = sum(array.nbytes for array in arrays.values() if isinstance(array, np.ndarray))
    assert allocated <= bytes_needed(scenario, 30, record=record) <= 1.3 * allocated


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_a_cluster_needs_is_what_is_allocated(name):
    scenario = load_scenario(name)
    batch = ClusterBatch(scenario, 30)
    allocated = sum(array.nbytes for array in batch._contents)
    assert allocated <= bytes_needed(scenario, 30, record=False) <= 1.3 * allocated


@pytest.mark.parametrize(
    ("changes", "num_envs", "remedy"),
    [
        (
            {"steps": 10**7},
            10**6,
            r"num_envs = 1000000, steps = 10000000 and 4 agents need .* lower num_envs",
        ),
        ({"steps": 10**7, "agents": 1000}, 1, r"need .* GB of memory.*lower steps, or agents"),
    ],
)
def test_a_size_that_cannot_be_had_names_what_to_lower(monkeypatch, changes, num_envs, remedy):
    monkeypatch.setattr(gpualloc_env.memory, "physical_memory", lambda: 16 * 2**30)
    with pytest.raises(ScenarioError, match=remedy):
        Batch(load_scenario("serverless", **changes), num_envs)


def test_what_the_message_asks_for_fits(monkeypatch):
    scenario = load_scenario("serverless", steps=1000)
    monkeypatch.setattr(gpualloc_env.memory, "physical_memory", lambda: 10_000_000)
    with pytest.raises(ScenarioError, match=r"lower num_envs to \d+") as error:
        Batch(scenario, 1000)
    most = int(str(error.value).partition("num_envs to ")[2].partition(",")[0])
    assert Batch(scenario, most).num_envs > 100
    with pytest.raises(ScenarioError):
        Batch(scenario, most + 1)


def test_a_system_that_does_not_tell_its_memory_refuses_nothing(monkeypatch):
    assert physical_memory() is None or physical_memory() > 2**28
    monkeypatch.setattr(gpualloc_env.memory, "physical_memory", lambda: None)
    Batch(load_scenario("serverless", steps=3), 2)
