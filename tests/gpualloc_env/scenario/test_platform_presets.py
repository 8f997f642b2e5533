"""Platforms whose frictions were measured, and how a scenario asks for one."""

import numpy as np
import pytest

from gpualloc_env import Batch, Platform, Scenario, Traffic, load_scenario
from gpualloc_env.scenario import PLATFORMS, SERVERLESS, ScenarioError

BILLION = 2000.0  # MB of 16-bit weights

SCENARIO = """
[[agents]]
name = "a"
model_mb = 14000
throughput_rps = 10
[traffic]
rates_rps = [1]
[platform]
"""


def read(tmp_path, platform):
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO + platform)
    return load_scenario(path)


def test_starts_are_those_that_were_measured():
    assert PLATFORMS["vllm"].cold_start_s(7 * BILLION) == pytest.approx(33.7 + 7 * 1.95, abs=0.3)
    # Phi-3-vision and a model of 30 billion parameters, as published.
    for billions, seconds in ((0.6, 0.26), (4.2, 0.82), (30, 2.87)):
        assert PLATFORMS["vllm-sleep"].cold_start_s(billions * BILLION) == pytest.approx(seconds, abs=0.15)
    assert 0.2 <= PLATFORMS["mig"].reallocation_s <= 0.3 and PLATFORMS["mig"].slice == 1 / 7
    assert PLATFORMS["serverless"] is SERVERLESS and SERVERLESS.cold_start_s(7 * BILLION) == 16.0


def test_a_preset_is_the_default_of_every_friction(tmp_path):
    platform = read(tmp_path, 'preset = "mig"\ngpus = 2\nkeep_alive_s = 30').platform
    expected = PLATFORMS["mig"].model_copy(update={"gpus": 2.0, "keep_alive_s": 30.0})
    assert platform == expected
    assert load_scenario(read(tmp_path, 'preset = "vllm"'), steps=5).platform == Platform(preset="vllm")


@pytest.mark.parametrize("wrong", ['"mgi"', "3", "true", '["mig"]'])
def test_an_unknown_preset_is_refused_with_those_that_there_are(tmp_path, wrong):
    with pytest.raises(
        ScenarioError, match=r"platform\.preset = .*'serverless', 'vllm', 'vllm-sleep' or 'mig'"
    ):
        read(tmp_path, f"preset = {wrong}")


def test_what_a_preset_does_is_part_of_a_scenario_and_its_name_is_not():
    named = Scenario(name="x", traffic=Traffic(rates_rps=(1,) * 4), platform=Platform(preset="vllm"))
    spelt = named.model_copy(update={"platform": Platform(**PLATFORMS["vllm"].model_dump())})
    assert named.with_key_of(named).key == spelt.with_key_of(spelt).key


def test_a_cold_model_takes_a_restart_on_vllm():
    scenario = load_scenario("steady", steps=60)
    cold = scenario.model_copy(update={"platform": Platform(preset="vllm"), "warm": False})
    batch = Batch(cold, 1, record=True)
    batch.seed(0)
    batch.reset()
    for _ in range(60):
        batch.step(np.full((1, 4), 0.25))
    first = (batch.history["served"][0] > 0).argmax(axis=0)
    # 33.9 s and half of a billion parameters at 1.95 s for each: served from the 35th step on.
    assert first.tolist() == [int(PLATFORMS["vllm"].cold_start_s(agent.model_mb)) for agent in cold.agents]
