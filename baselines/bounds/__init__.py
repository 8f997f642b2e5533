"""What knowing the future is worth: a lower bound on J of an episode, and a good schedule for it.

Both know all arrivals of the episode beforehand. `bound` and `lower_bounds` say what no policy can
undercut, `feasible_schedule` finds shares that come close to it, and `Clairvoyant` plays those like a
policy; the optimum lies between the two.
"""

from baselines.bounds.bound import Bound, FutureError, bound, bounds_are_cheap, lower_bounds, needs_one_pool
from baselines.bounds.clairvoyant import Clairvoyant, Schedule, feasible_schedule

__all__ = [
    "Bound",
    "Clairvoyant",
    "FutureError",
    "Schedule",
    "bound",
    "bounds_are_cheap",
    "feasible_schedule",
    "lower_bounds",
    "needs_one_pool",
]
