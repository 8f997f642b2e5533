"""Classical allocators. A policy is a function from a `View` to fractions of the platform."""

from collections.abc import Callable

from baselines.adaptive import adaptive, adaptive_smoothed
from baselines.bound import Bound, bound, lower_bounds
from baselines.clairvoyant import Clairvoyant, Schedule, feasible_schedule
from baselines.round_robin import round_robin
from baselines.static import static
from gpualloc_env.observation import View
from gpualloc_env.scenario import Scenario
from gpualloc_env.state import Array

Policy = Callable[[View], Array]
"""Reads a view of (N,) or (B, N) arrays, returns fractions of the platform of the same shape."""

POLICIES: dict[str, Policy] = {
    "static": static,
    "round-robin": round_robin,
    "adaptive": adaptive,
    "adaptive-smoothed": adaptive_smoothed,
}

PRIVILEGED: dict[str, Callable[[Scenario, int, int], Policy]] = {
    "clairvoyant": Clairvoyant,
}
"""Policies that know the future: each is made for a scenario, a number of episodes and the first one's seed.

They show what could be attained, and are to be labelled as such beside policies that do not know it.
"""

__all__ = [
    "POLICIES",
    "PRIVILEGED",
    "Bound",
    "Clairvoyant",
    "Policy",
    "Schedule",
    "adaptive",
    "adaptive_smoothed",
    "bound",
    "feasible_schedule",
    "lower_bounds",
    "round_robin",
    "static",
]
