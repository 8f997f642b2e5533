"""What the baselines make of servers of calls."""

import numpy as np
import pytest

from baselines import DEFAULTS
from gpualloc_env import load_scenario
from training.evaluation.evaluate import rollout


@pytest.mark.slow
def test_the_time_of_a_task_of_a_team_is_the_known_one():
    known = {"static": 36, "adaptive": 40, "proportional-fair": 23.6, "receding-horizon": 24.1}
    scenario = load_scenario("team")
    for name, expected in known.items():
        batch = rollout(DEFAULTS[name], scenario, 30, 10_000, record=False)
        assert batch.totals["task"].mean() / scenario.steps == pytest.approx(expected, rel=0.06), name


@pytest.mark.parametrize("scenario", ["llm", "team", "magentic"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_every_policy_decides(name, scenario):
    batch = rollout(DEFAULTS[name], load_scenario(scenario, steps=30), 3, 0, record=True)
    assert np.isfinite(batch.totals["reward"]).all()
    assert (batch.history["share"].sum(axis=-1) <= 2 * (1 + 1e-9)).all()
