"""A horizontal autoscaler as in Kubernetes, of shares instead of replicas."""

from dataclasses import dataclass

from baselines.online.rows import Remembering, decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, largest_share, needed_share, speedup
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import AnyArray, Array

TOLERANCE = 0.1  # deviation from the target utilisation that changes nothing


@compiled
def _scale(
    packed: Packed,
    target: float,
    horizon_s: float,
    standby: float,
    recommended: AnyArray,
    step: int,
    granted: AnyArray,
) -> None:
    """Write the shares, (B, N) [GPU], and this step's recommendation into the window, (W, B, N) [GPU]."""
    window, platform = recommended.shape[0], packed.settings[0]
    most = largest_share(platform)
    least = min(standby, most)
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            demand, share = now.rate + now.queue / horizon_s, now.share
            if share > NEGLIGIBLE:
                utilisation = demand / (agent.throughput * speedup(share, agent.kappa))
                ratio = utilisation / target
                desired = share if abs(ratio - 1.0) <= TOLERANCE else share * ratio
            else:
                desired = needed_share(demand / (agent.throughput * target), agent.kappa)
            desired = min(most, max(least, desired))
            recommended[step % window, b, i] = desired
            if desired < share:
                for w in range(min(window, step + 1)):
                    desired = max(desired, recommended[w, b, i])
                desired = min(desired, share)
            granted[b, i] = desired
        fit(granted[b], platform.gpus)


@dataclass(frozen=True)
class Autoscaler(Remembering):
    """Scale each share by utilisation / target, at once upwards and after a while downwards.

    The Kubernetes Horizontal Pod Autoscaler (kubernetes.io, Horizontal Pod Autoscaling, algorithm
    details): desired = held · utilisation / target, unchanged within a tolerance of 10 %; a share
    falls only to the greatest recommendation of the stabilisation window. Utilisation is
    (λ_i + q_i / horizon) / µ_i(held), which may exceed 1. Shares that exceed the platform are
    scaled to it. O(N W).
    """

    target: float = tunable(0.7, 0.1, 1.0)
    """Utilisation aimed at."""
    window_s: float = tunable(10.0, 1.0, 60.0)
    """Stabilisation window: how long a share stays before it falls [s]."""
    horizon_s: float = tunable(2.0, 0.2, 60.0, log=True)
    """Time within which a queue should be served [s]."""
    standby: float = tunable(0.01, 0.0, 0.1)
    """Least share, as the least number of replicas [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`; takes one step of the window."""
        recommended = self._memory.ring(max(1, round(self.window_s / view.dt)), view)
        fractions = decide(
            _scale, view, self.target, self.horizon_s, self.standby, recommended, self._memory.steps
        )
        self._memory.steps += 1
        return fractions
