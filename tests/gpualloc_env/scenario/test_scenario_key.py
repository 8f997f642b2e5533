"""The key under which what was tuned for a scenario is kept."""

import copy
import pickle

import pytest

from gpualloc_env import SCENARIOS, Scenario, Traffic, load_scenario

MINE = "steps = 12\n[traffic]\nrates_rps = [1, 2, 3, 4]\n"


@pytest.fixture
def namesake(tmp_path):
    """A file that is called like a registered scenario and holds other traffic."""
    path = tmp_path / "bursty.toml"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_key_of_a_registered_scenario_is_its_name_whatever_is_changed(name):
    assert load_scenario(name).key == name
    assert load_scenario(name, steps=3, dt=0.5, objective={"slo": 1}).key == name
    assert load_scenario(load_scenario(name, steps=3), dt=0.5).key == name


def test_a_file_has_a_key_of_its_own_that_changes_keep(namesake):
    scenario = load_scenario(namesake)
    assert scenario.name == "bursty" and scenario.key.startswith("bursty-")
    assert load_scenario(namesake, load=0.5, agents=2).key == scenario.key
    assert load_scenario(load_scenario(namesake, steps=2), load=0.5).key == scenario.key


def test_an_edited_file_has_another_key_and_a_moved_one_the_same(namesake, tmp_path):
    key = load_scenario(namesake).key
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "bursty.toml"
    moved.write_text('description = "the same"\n' + MINE)
    assert load_scenario(moved).key == key
    moved.write_text(MINE.replace("12", "13"))
    assert load_scenario(moved).key != key


def test_a_scenario_written_in_python_has_a_key_of_its_own():
    mine = Scenario(name="bursty", traffic=Traffic(rates_rps=(1, 2, 3, 4)))
    assert mine.key.startswith("bursty-") and load_scenario(mine, steps=3).key == mine.key
    assert SCENARIOS["bursty"].model_copy(update={"name": "mine"}).key == "mine"


def test_copies_keep_the_key_and_equality_does_not_ask_for_it(namesake):
    scenario = load_scenario(namesake, steps=3)
    for twin in (pickle.loads(pickle.dumps(scenario)), copy.deepcopy(scenario)):
        assert twin == scenario and twin.key == scenario.key and hash(twin) == hash(scenario)
    registered = SCENARIOS["bursty"]
    dumped = Scenario.model_validate(registered.model_dump())
    assert dumped == registered and dumped.key != registered.key
    assert scenario != registered and scenario != "bursty"
