"""Least slack first."""

from dataclasses import dataclass

import numpy as np

from baselines.online.cmu import hand_out
from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, largest_share, needed_share, whole_slices
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _meet_deadlines(
    packed: Packed, stretch: float, standby: float, urgency: AnyArray, need: AnyArray, granted: AnyArray
) -> None:
    """Write the shares, (B, N) [GPU]; `urgency` and `need` are workspace, (N,)."""
    platform = packed.settings[0]
    most = largest_share(platform)
    for b in range(granted.shape[0]):
        shares = granted[b]
        for i in range(granted.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            left = stretch * agent.slo - now.oldest_age
            slack = left - now.queue / agent.throughput
            # Falls with the slack, and is never negative.
            urgency[i] = 1.0 / (1.0 + slack) if slack >= 0.0 else 1.0 - slack
            rate = now.rate + now.queue / max(platform.dt, left)
            share = whole_slices(needed_share(rate / agent.throughput, agent.kappa), platform.slice)
            need[i] = min(most, share) if now.queue > 0.0 else 0.0
        hand_out(urgency, need, platform.gpus, shares)
        for i in range(granted.shape[1]):
            shares[i] = max(shares[i], min(standby, most))
        fit(shares, platform.gpus)


@dataclass(frozen=True)
class LeastSlack:
    """Serve in order of the least slack, each with the share that meets its deadline and no more.

    Slack is the time to the deadline of the oldest request, less the time in which a whole GPU would
    serve all that wait: Mok, Fundamental Design Problems of Distributed Systems for the Hard-Real-Time
    Environment (1983). A deadline is a multiple of the service objective; no policy is shown tasks,
    so that the oldest call of an agent stands for the task that waits for it. Meeting a deadline takes
    λ_i + q_i / (time to it), within one step where it has passed. O(N²).
    """

    stretch: float = tunable(1.0, 0.05, 10.0, log=True)
    """Deadline as a multiple of the service objective."""
    standby: float = tunable(0.01, 0.0, 0.1)
    """Share that everyone holds, so that no model is unloaded [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        count = view.queue.shape[-1]
        return decide(_meet_deadlines, view, self.stretch, self.standby, np.empty(count), np.empty(count))
