"""From a learner's unbounded actions to shares of the platform: the transforms that build on baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces

from baselines import DEFAULTS, constants_of, policy_for
from baselines.cluster import Demand
from baselines.online.receding_horizon import RecedingHorizon
from baselines.tuned import tuned
from gpualloc_env.action_transform import ActionTransform
from gpualloc_env.allocator.actions import takes_bill
from gpualloc_env.allocator.cluster import OUTPUTS, PlacedCorrections
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray, Array


def corrections(scenario: Scenario, controllers: Sequence[str] = ("receding-horizon",)) -> ActionTransform:
    """Bounded corrections of receding-horizon control with its constants for a scenario.

    Each assumption can be multiplied by up to e² and divided by as much. Of several controllers it is the
    first one that was tuned for the scenario, or else the last one.
    """
    known = tuned().get(scenario.key, {})
    name = next((each for each in controllers if each in known), controllers[-1])
    base = constants_of(policy_for(name, scenario))
    return ActionTransform(len(scenario.agents), {"kind": "corrections", "bound": 2.0, "base": base})


def assumptions(scenario: Scenario) -> ActionTransform:
    """All that receding-horizon control assumes, which starts from the constants that it declares.

    They are the same for all scenarios, so that a network means the same in each. Each can be multiplied by
    up to e⁴ and divided by as much.
    """
    base = constants_of(DEFAULTS["receding-horizon-batch"])
    return ActionTransform(len(scenario.agents), {"kind": "assumptions", "bound": 4.0, "base": base})


def priced_assumptions(scenario: Scenario) -> ActionTransform:
    """The same, and how it all depends on what the bill weighs."""
    transform = assumptions(scenario)
    return replace(transform, settings={**transform.settings, "kind": "priced-assumptions"})


@dataclass(frozen=True)
class ClusterTransform:
    """What makes fractions of each GPU of a cluster of actions, and their space; see `PlacedCorrections`.

    It remembers the placement: every rollout needs one of its own.
    """

    instances: int
    """N K, whose outputs an action has one after the other."""
    settings: dict[str, Any]
    """`kind` and what `PlacedCorrections` needs."""

    @cached_property
    def _act(self) -> PlacedCorrections:
        return PlacedCorrections(self.settings)

    def fresh(self) -> "ClusterTransform":
        """The same transform, remembering nothing."""
        return ClusterTransform(self.instances, self.settings)

    @property
    def space(self) -> spaces.Box:
        """The learner's action space; what it asks for beyond ±bound is clipped."""
        bound = self.settings["bound"]
        return spaces.Box(-bound, bound, (self.instances * len(OUTPUTS),), np.float32)

    def steps(self, dt: float) -> int:
        """Steps of `dt` [s] for which an action holds."""
        return self._act.held.steps(dt)

    def __call__(self, view: ClusterView, act: Callable[[], AnyArray]) -> Array:
        """Fractions of each GPU, (B, N, K), for a view of (B, …) arrays; `act` gives due actions, (B, A)."""
        shape = *view.share.shape, len(OUTPUTS)
        return self._act(view, lambda: act().reshape(shape).astype(np.float64))


Transform = ActionTransform | ClusterTransform


T = TypeVar("T", ActionTransform, ClusterTransform, Transform)


def told(transform: T, scenario: Scenario) -> T:
    """The same transform for a scenario's agents, told what the bill weighs there if it can be."""
    if isinstance(transform, ClusterTransform):
        return transform
    settings = transform.settings
    if takes_bill(settings) and scenario.bill_s is not None:
        settings = {**settings, "bill_s": scenario.bill_s}
    return replace(transform, num_agents=len(scenario.agents), settings=settings)


def placed_corrections(scenario: Scenario, period_s: float) -> ClusterTransform:
    """Bounded corrections of the baseline `demand` with its constants for a scenario.

    They hold for `period_s`, as its placement does. Each assumption can be multiplied by up to e² and divided
    by as much.
    """
    base = policy_for("demand", scenario)
    assert isinstance(base, Demand) and isinstance(base.lower, RecedingHorizon)
    settings = {"kind": "placed-corrections", "bound": 2.0, "period_s": period_s}
    placement, lower = base.weights._asdict(), constants_of(base.lower)
    return ClusterTransform(
        len(scenario.agents) * scenario.num_gpus, {**settings, "placement": placement, "base": lower}
    )
