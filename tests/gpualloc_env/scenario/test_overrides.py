"""Changes to a scenario: one object, the same for functions, environments and batches, and how it refuses."""

import json
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from pydantic import ValidationError

from gpualloc_env import SCENARIOS, Agent, Overrides, Scenario, ScenarioError, Traffic, load_scenario

CHANGES = {
    **{"steps": 7, "dt": 0.5, "load": 1.2, "agents": 3},
    **{"objective": {"slo": 2.0}, "frictions": {"keep_alive_s": 30.0}},
}


def refused(match, *arguments, **changes):
    with pytest.raises(ScenarioError, match=match) as error:
        load_scenario(*arguments, **changes)
    assert len(str(error.value)) < 400


def test_changes_by_name_and_as_an_object_are_the_same():
    scenario = load_scenario("serverless", **CHANGES)
    assert load_scenario("serverless", Overrides(**CHANGES)) == scenario
    assert (scenario.steps, scenario.dt, scenario.traffic.load) == (7, 0.5, 1.2)
    assert len(scenario.agents) == 3 and scenario.objective.slo == 2 and scenario.platform.keep_alive_s == 30


def test_a_change_by_name_comes_before_the_one_of_the_object():
    scenario = load_scenario("serverless", Overrides(steps=7, load=0.5), load=0.6)
    assert (scenario.steps, scenario.traffic.load) == (7, 0.6)


def test_nothing_asked_for_changes_nothing():
    assert load_scenario("bursty", Overrides(), steps=None) is SCENARIOS["bursty"]
    assert Overrides(load=0.3).changes == {"load": 0.3} and Overrides().changes == {}


def test_a_scenario_itself_is_taken_by_everything():
    scenario = load_scenario("steady", steps=5)
    for given in (scenario, scenario.model_copy(update={"steps": 5})):
        env, batch = (
            gym.make("GPUAlloc-v0", scenario=given),
            gym.make_vec("GPUAlloc-v0", num_envs=2, scenario=given),
        )
        assert load_scenario(given) == env.unwrapped.scenario == batch.scenario == scenario
    assert gym.make("GPUAlloc-v0", scenario=scenario, steps=3).unwrapped.scenario.steps == 3


def test_both_environments_take_every_change(azure_log):
    assert {field.name for field in fields(Overrides)} == {*CHANGES, "trace", "split", "time_unit"}
    wanted = load_scenario("serverless", **CHANGES)
    assert gym.make("GPUAlloc-v0", scenario="serverless", **CHANGES).unwrapped.scenario == wanted
    assert gym.make_vec("GPUAlloc-v0", num_envs=2, scenario="serverless", **CHANGES).scenario == wanted
    replayed = gym.make("GPUAlloc-v0", steps=5, trace=str(azure_log), split="eval").unwrapped.scenario
    assert replayed.trace.path == azure_log and replayed.trace.split == "eval"


def test_an_environment_made_by_names_can_be_written_down():
    spec = gym.make("GPUAlloc-v0", scenario="serverless", **CHANGES).spec
    assert json.loads(spec.to_json())["kwargs"]["objective"] == {"slo": 2.0}


def test_a_path_may_hold_the_name_of_a_scenario():
    assert load_scenario(Path("paper")) == SCENARIOS["paper"]


@pytest.mark.parametrize("given", [["paper"], None, 5, {"name": "paper"}])
def test_what_is_neither_a_name_nor_a_file_nor_a_scenario_is_refused(given):
    refused("a scenario is a name, the path of a .toml file or a Scenario, got", given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": "0.8"}, r"scenario 'paper': load = '0\.8': .*number.*1\.0 is the platform's full capacity"),
        ({"load": 10.5}, r"load = 10\.5: .*less than or equal to 10; 1\.0 is the platform's full capacity"),
        ({"load": 0}, r"load = 0: .*greater than 0"),
        ({"load": float("nan")}, r"load = nan: .*finite"),
        ({"load": 10**400}, r"load = 1000.*…: "),
        ({"agents": 2.5}, r"agents = 2\.5: .*integer"),
        ({"agents": 0}, r"agents = 0: .*greater than or equal to 1"),
        ({"agents": 10**9}, r"agents = 1000000000: .*less than or equal to 100000"),
        ({"steps": True}, r"steps = True: .*integer"),
        ({"steps": "30"}, r"steps = '30': .*integer"),
        ({"steps": 10**8}, r"steps = 100000000: .*less than or equal to 10000000"),
        ({"dt": 0.001}, r"dt = 0\.001: .*greater than or equal to 0\.01"),
        (
            {"frictions": {"keep_alive": 1.0}},
            r"unknown key 'platform\.keep_alive'; did you mean 'keep_alive_s'",
        ),
        (
            {"frictions": {"keep_alive_s": -1.0}},
            r"platform\.keep_alive_s = -1\.0: .*greater than or equal to 0",
        ),
        ({"objective": 5}, r"objective = 5: .*weights by the name of their term"),
        ({"objective": {"slo": "high"}}, r"objective\.slo = 'high': .*number"),
        ({"objective": {"latncy": 1.0}}, r"unknown key 'objective\.latncy'; did you mean 'latency'\?"),
        ({"trace": 5}, r"trace = 5: .*path of a request log"),
        ({"split": "test"}, r"split = 'test': .*'train', 'eval' or 'all'"),
        ({"split": "eval"}, r"draws its traffic, so split='eval' has no meaning; give a trace too"),
    ],
)
def test_a_wrong_change_names_the_place_the_value_and_the_remedy(changes, message):
    refused(f"scenario 'paper'.*{message}|{message}", "paper", **changes)
    with pytest.raises(ScenarioError, match=message):
        gym.make("GPUAlloc-v0", scenario="paper", **changes)


@pytest.mark.parametrize("change", [{"split": "eval"}, {"time_unit": "ms"}])
def test_sessions_have_no_windows_and_no_unit_of_time(change):
    refused("'magentic' draws sessions from a log as a whole, so .*leave it out", "magentic", **change)


@pytest.mark.parametrize("name", ["team", "workflow", "paper-spike", "magentic", "cluster-small"])
def test_a_scenarios_own_number_of_agents_changes_nothing(name):
    scenario = load_scenario(name)
    count = len(scenario.agents)
    assert load_scenario(name, agents=count) == scenario
    refused(rf"agents = {count + 1} has no meaning", name, agents=count + 1)


def test_a_change_that_no_scenario_knows_is_an_unexpected_argument():
    message = (
        r"scenario 'paper' got an unexpected keyword argument 'stepz'; did you mean 'steps'\? What can be"
    )
    with pytest.raises(ScenarioError, match=message):
        load_scenario("paper", stepz=3)
    with pytest.raises(TypeError, match=message):
        gym.make("GPUAlloc-v0", scenario="paper", stepz=3)


def test_numbers_of_numpy_are_numbers():
    scenario = load_scenario("serverless", steps=np.int64(9), load=np.float32(0.5), agents=np.int32(2))
    assert (scenario.steps, scenario.traffic.load, len(scenario.agents)) == (9, 0.5, 2)


def test_the_object_refuses_by_itself_and_is_frozen():
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        Overrides(load=11)
    with pytest.raises(AttributeError):
        Overrides().load = 1.0


def test_generated_names_never_collide_with_the_scenarios_own():
    agents = [Agent(name=name, model_mb=1, throughput_rps=5) for name in ("gpt", "gpt-2")]
    scenario = Scenario(name="pair", agents=agents, traffic=Traffic(rates_rps=(1, 2)))
    names = load_scenario(scenario, agents=7).agent_names
    assert names == ("gpt", "gpt-2", "gpt-3", "gpt-2-2", "gpt-4", "gpt-2-3", "gpt-5")
    assert load_scenario(scenario, agents=4).traffic.rates_rps == (1, 2, 1, 2)
    assert load_scenario(scenario, agents=2) == scenario


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "marked.toml"
    path.write_text("steps = 12\n[traffic]\nrates_rps = [1, 2, 3, 4]\n", encoding="utf-8-sig")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") and load_scenario(path).steps == 12
