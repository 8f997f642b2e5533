"""From a learner's unbounded actions to shares of the platform: the transforms that build on baselines."""

from baselines import policy_for
from baselines.online.receding_horizon import RecedingHorizon
from gpualloc_env.action_transform import ActionTransform, simplex
from gpualloc_env.allocator.receding_horizon import Constants

__all__ = ["ActionTransform", "corrections", "simplex"]


def corrections(num_agents: int, scenario: str) -> ActionTransform:
    """Bounded corrections of receding-horizon control with its constants for a scenario, given by its key.

    Each assumption can be multiplied by up to e² and divided by as much.
    """
    base = policy_for("receding-horizon", scenario)
    assert isinstance(base, RecedingHorizon)
    constants = {name: getattr(base, name) for name in Constants._fields}
    return ActionTransform(num_agents, {"kind": "corrections", "bound": 2.0, "base": constants})
