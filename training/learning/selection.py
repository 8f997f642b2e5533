"""Which of a run's policies is kept: the one with the lowest objective in validation."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from baselines import Policy, policy_for
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.scenario import Scenario
from training.evaluation.evaluate import rollout
from training.evaluation.held_out import count_episodes
from training.evaluation.seeds import FIRST_VALIDATION_SEED
from training.learning.allocators.action_transform import Transform, told
from training.learning.allocators.trained_network import policy_of


@dataclass
class Selection:
    """The validation curve of a run, and the weights of its best policy so far."""

    curve: list[tuple[int, float]] = field(default_factory=list)
    """Steps trained, and the mean J of the policy after them."""
    weights: dict[str, Any] | None = None
    """The policy's `state_dict` where the curve is lowest, the first time that it is."""

    @property
    def best(self) -> tuple[int, float] | None:
        """Steps trained and mean J of the best policy; None before the first validation."""
        return min(self.curve, key=lambda point: point[1], default=None)

    @property
    def without_gain(self) -> int:
        """Validations since the best one."""
        return len(self.curve) - 1 - self.curve.index(self.best) if self.best else 0

    def add(self, step: int, objective: float, model: Any) -> None:
        """Add a point, and keep the model's weights if it is the best so far."""
        self.curve.append((step, objective))
        if self.without_gain == 0:
            self.weights = deepcopy(model.policy.state_dict())


def validation_objective(
    model: PPO, transform: Transform, scenarios: Sequence[Scenario], episodes: int
) -> float:
    """Mean J of the model's most likely actions on the validation episodes, the same every time.

    Of several scenarios it is the mean over them. Of a log, the windows are those that are trained
    on: the later ones are held out.
    """
    own = [(policy_of(model, told(transform, each)), each) for each in scenarios]
    return float(np.mean([mean_objective(policy, each, episodes) for policy, each in own]))


BASELINES = ("static", "round-robin", "adaptive", "receding-horizon")
"""Those that a training run is seen to pass: the paper's three, and the best of most scenarios."""
CLUSTER_BASELINES = ("lru", "hierarchical", "demand")
"""The same of clusters: the serverless default, Algorithm 1, and the best."""


def baseline_objectives(scenarios: Sequence[Scenario], episodes: int) -> dict[str, float]:
    """Mean J of baselines on the validation episodes, by name."""

    def mean(name: str) -> float:
        return float(np.mean([mean_objective(policy_for(name, each), each, episodes) for each in scenarios]))

    return {name: mean(name) for name in (CLUSTER_BASELINES if scenarios[0].nodes else BASELINES)}


def mean_objective(policy: Policy, scenario: Scenario, episodes: int) -> float:
    """Mean J of a policy on the validation episodes of a scenario."""
    count = count_episodes(episodes, scenario)
    return float(objectives(rollout(policy, scenario, count, FIRST_VALIDATION_SEED, record=False)).mean())
