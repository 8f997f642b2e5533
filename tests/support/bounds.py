"""What every lower bound must be: below what any policy reaches."""

import numpy as np

from baselines import lower_bounds
from gpualloc_env.metrics import objectives
from training.evaluation.evaluate import rollout


def assert_no_policy_undercuts(policies, scenario, episodes, seed):
    bounds = lower_bounds(scenario, episodes, seed, workers=1)
    assert np.isfinite(bounds).all()
    for name, policy in policies.items():
        played = objectives(rollout(policy, scenario, episodes, seed, record=False))
        assert (bounds <= played).all(), (name, np.min(played - bounds))
