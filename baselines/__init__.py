"""Classical allocators. A policy is a function from a `View` to fractions of the platform."""

from collections.abc import Callable

from baselines.adaptive import adaptive, adaptive_smoothed
from baselines.round_robin import round_robin
from baselines.static import static
from gpualloc_env.observation import View
from gpualloc_env.state import Array

Policy = Callable[[View], Array]
"""Reads a view of (N,) or (B, N) arrays, returns fractions of the platform of the same shape."""

POLICIES: dict[str, Policy] = {
    "static": static,
    "round-robin": round_robin,
    "adaptive": adaptive,
    "adaptive-smoothed": adaptive_smoothed,
}

__all__ = ["POLICIES", "Policy", "adaptive", "adaptive_smoothed", "round_robin", "static"]
