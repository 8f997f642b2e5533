"""Variants of a scenario are scenarios: as long as the first one, and within the limits."""

import pytest

from gpualloc_env import SCENARIOS, Scenario, load_scenario
from training.learning.environments.domain_randomisation import variants


@pytest.mark.parametrize("name", SCENARIOS)
def test_variants_last_as_long_as_the_scenario(name):
    scenario = load_scenario(name)
    for each in variants(scenario, 12, seed=0):
        assert each.steps * each.dt == pytest.approx(scenario.steps * scenario.dt)
        assert each.key == name and Scenario.model_validate(each.model_dump()) == each


def test_a_surge_falls_into_every_variant():
    for each in variants(load_scenario("paper-spike"), 12, seed=0):
        factors = each.source().profile[: each.steps, 1]
        assert factors.max() == pytest.approx(10)
        assert (factors - 1).sum() * each.dt == pytest.approx(9 * 10)


def test_an_episode_that_no_whole_number_of_steps_fills_is_rounded_up():
    for each in variants(load_scenario("steady", steps=5), 12, seed=0):
        assert 5 <= each.steps * each.dt < 5 + each.dt


@pytest.mark.parametrize("name", ["serverless", "diurnal"])
def test_a_load_stays_within_its_limits(name):
    loads = [each.traffic.load for each in variants(load_scenario(name, load=9.9), 30, seed=0)]
    assert max(loads) == 10 and min(loads) < 6


def test_the_load_of_a_log_stays_within_its_limits(azure_log):
    made = variants(load_scenario("trace", trace=azure_log, load=9.9), 30, seed=0)
    assert max(each.trace.load for each in made) == 10
