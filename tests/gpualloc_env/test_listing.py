"""Lists of names in messages stay short."""

import gymnasium as gym
import numpy as np
import pytest

from gpualloc_env import SCENARIOS, Batch, Scenario, Surge, Traffic, load_scenario
from gpualloc_env.listing import listed


def test_a_short_list_is_told_in_full_and_a_long_one_is_not():
    assert listed(("coordinator", "nlp")) == "coordinator, nlp" and listed(()) == ""
    names = SCENARIOS["fleet"].agent_names
    assert listed(names) == "coordinator-1, nlp-1, vision-1, reasoning-1, … 60 more"
    assert listed(names[:8]).count(",") == 7


def test_errors_about_many_agents_are_short():
    env = gym.make("GPUAlloc-v0", scenario="fleet", steps=3)
    env.reset(seed=0)
    batch = Batch(load_scenario("fleet", steps=3), 2)
    agents = SCENARIOS["fleet"].agents
    traffic = Traffic(rates_rps=(1,) * 64, surges=(Surge(agent="nobody", factor=2, start_s=0, end_s=1),))
    for wrong in (
        lambda: env.step(np.zeros(3)),
        lambda: batch.step(np.zeros((2, 3))),
        lambda: Scenario(name="a", agents=agents, traffic=Traffic(rates_rps=(1,))),
        lambda: Scenario(name="a", agents=agents, traffic=traffic),
    ):
        with pytest.raises(ValueError, match=r"reasoning-1, … 60 more") as error:
            wrong()
        assert len(str(error.value)) < 400
