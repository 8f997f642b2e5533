"""Classical allocators by name.

A policy is a function from a `View` to fractions of the platform. `DEFAULTS` lists those that decide on
what they see (`baselines.online`), `POLICIES` the same ones with tuned constants, and `PRIVILEGED` those
that know the future (`baselines.bounds`); a new one is a line of `DEFAULTS`, or a call of `register` from
outside.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from baselines import online
from baselines.bounds import Bound, Clairvoyant, Schedule, bound, feasible_schedule, lower_bounds
from baselines.online import adaptive, adaptive_smoothed, round_robin, static
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
    "static": online.static,
    "round-robin": online.round_robin,
    "adaptive": online.adaptive,
    "adaptive-smoothed": online.adaptive_smoothed,
    "queue-aware": online.QueueAware(),
    "cmu": online.cmu,
    "generalised-cmu": online.GeneralisedCmu(),
    "max-weight": online.max_weight,
    "drift-plus-penalty": online.DriftPlusPenalty(),
    "max-min-fair": online.MaxMinFair(),
    "proportional-fair": online.ProportionalFair(),
    "square-root-staffing": online.SquareRootStaffing(),
    "autoscaler": online.Autoscaler(),
    "hysteresis": online.Hysteresis(),
    "receding-horizon": online.RecedingHorizon(),
    "square-root-capacity": online.SquareRootCapacity(),
    "least-slack": online.LeastSlack(),
    "receding-horizon-batch": online.RecedingHorizonBatch(),
    "kubernetes-hpa": online.KubernetesHpa(),
    "knative": online.Knative(),
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


def register(name: str, policy: Policy) -> None:
    """Add a policy to `DEFAULTS`, and to `POLICIES` with the constants that were tuned for it, if any.

    Raises:
        ValueError: a policy of that name exists.
    """
    if name in DEFAULTS or name in PRIVILEGED:
        raise ValueError(f"there is a policy named {name!r} already; choose another name")
    DEFAULTS[name] = policy
    POLICIES[name] = policy_for(name, "serverless")


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
    "register",
    "round_robin",
    "static",
    "with_constants",
]
