"""Classical allocators. A policy is a function from a `View` to fractions of the platform."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from baselines.bounds.bound import Bound, bound, lower_bounds
from baselines.bounds.clairvoyant import Clairvoyant, Schedule, feasible_schedule
from baselines.online.adaptive import adaptive, adaptive_smoothed
from baselines.online.autoscaler import Autoscaler
from baselines.online.cmu import cmu
from baselines.online.drift_plus_penalty import DriftPlusPenalty
from baselines.online.generalised_cmu import GeneralisedCmu
from baselines.online.hysteresis import Hysteresis
from baselines.online.max_min_fair import MaxMinFair
from baselines.online.max_weight import max_weight
from baselines.online.proportional_fair import ProportionalFair
from baselines.online.queue_aware import QueueAware
from baselines.online.receding_horizon import RecedingHorizon
from baselines.online.round_robin import round_robin
from baselines.online.square_root_staffing import SquareRootStaffing
from baselines.online.static import static
from baselines.tuned import Constants, tuned
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array

Policy = Callable[[View], Array]
"""Reads a view of (N,) or (B, N) arrays, returns fractions of the platform of the same shape."""


@runtime_checkable
class Stateful(Protocol):
    """A policy with memory: every rollout needs an instance of its own."""

    def fresh(self) -> Policy:
        """The same policy, remembering nothing."""
        ...


DEFAULTS: dict[str, Policy] = {
    "static": static,
    "round-robin": round_robin,
    "adaptive": adaptive,
    "adaptive-smoothed": adaptive_smoothed,
    "queue-aware": QueueAware(),
    "cmu": cmu,
    "generalised-cmu": GeneralisedCmu(),
    "max-weight": max_weight,
    "drift-plus-penalty": DriftPlusPenalty(),
    "max-min-fair": MaxMinFair(),
    "proportional-fair": ProportionalFair(),
    "square-root-staffing": SquareRootStaffing(),
    "autoscaler": Autoscaler(),
    "hysteresis": Hysteresis(),
    "receding-horizon": RecedingHorizon(),
}
"""Every policy with the constants that its file declares."""


def policy_for(name: str, scenario: str) -> Policy:
    """The policy of a name, with the constants that were tuned for a scenario where there are some.

    Args:
        name: a name in `POLICIES`.
        scenario: the `key` of a scenario, the name of a registered one; for one that was never tuned
            for, the constants are the defaults.
    """
    constants = tuned().get(scenario, {}).get(name)
    return with_constants(DEFAULTS[name], constants) if constants else DEFAULTS[name]


def with_constants(policy: Policy, constants: Constants) -> Policy:
    """A policy that is a dataclass, with other constants.

    Raises:
        TypeError: it has no such constants.
    """
    return replace(policy, **constants)  # pyright: ignore


def fresh(policy: Policy) -> Policy:
    """The policy itself, or an instance of its own where the policy has memory."""
    return policy.fresh() if isinstance(policy, Stateful) else policy


POLICIES: dict[str, Policy] = {name: policy_for(name, "serverless") for name in DEFAULTS}
"""Every policy with the constants tuned for the default scenario."""

PRIVILEGED: dict[str, Callable[[Scenario, int, int], Policy]] = {
    "clairvoyant": Clairvoyant,
}
"""Policies that know the future: each is made for a scenario, a number of episodes and the first one's seed.

They show what could be attained, and are to be labelled as such beside policies that do not know it.
"""

__all__ = [
    "DEFAULTS",
    "POLICIES",
    "PRIVILEGED",
    "Bound",
    "Clairvoyant",
    "Policy",
    "Schedule",
    "Stateful",
    "adaptive",
    "adaptive_smoothed",
    "bound",
    "feasible_schedule",
    "fresh",
    "lower_bounds",
    "policy_for",
    "round_robin",
    "static",
    "with_constants",
]
