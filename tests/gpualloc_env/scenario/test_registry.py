"""Scenarios registered from outside the package."""

import gymnasium as gym
import pytest

from gpualloc_env import SCENARIOS, Scenario, ScenarioError, Traffic, load_scenario
from gpualloc_env.scenario import register


def mine(name):
    return Scenario(name=name, traffic=Traffic(rates_rps=(1, 2, 3, 4)), steps=5)


def test_a_registered_scenario_is_known_by_its_name(monkeypatch):
    monkeypatch.delitem(SCENARIOS, "steady")
    scenario = register(mine("steady"))
    assert SCENARIOS["steady"] is scenario == mine("steady") and scenario.key == "steady"
    assert gym.make("GPUAlloc-v0", scenario="steady").unwrapped.scenario is scenario
    assert load_scenario("steady", load=0.5).key == "steady"


def test_a_name_that_is_taken_or_reads_like_a_file_is_refused():
    with pytest.raises(ScenarioError, match="scenario 'paper' is registered already; give it another name"):
        register(mine("paper"))
    with pytest.raises(ScenarioError, match=r"scenario 'mine\.toml' would be read as a file"):
        register(mine("mine.toml"))
    with pytest.raises(ScenarioError, match="'all' stands for every scenario in a command"):
        register(mine("all"))
    assert not {"mine.toml", "all"} & {*SCENARIOS}
