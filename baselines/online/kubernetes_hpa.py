"""The Horizontal Pod Autoscaler of Kubernetes, with requests for each replica as its metric."""

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from baselines.online.rows import Remembering, decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.curves import fit, largest_share, whole_slices
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array

SYNC_S = 15.0  # [s] between two looks at the metric
TOLERANCE = 0.1  # deviation from the target that changes nothing
ROUNDING = 1e-9


@inlined
def replica_of(share: float, platform: Any) -> float:
    """The share [GPU] of one replica: whole slices, at most what one agent can hold."""
    return min(largest_share(platform), whole_slices(share, platform.slice))


@compiled
def _scale(
    packed: Packed, target: float, replica: float, memory: AnyArray, sync: int, granted: AnyArray
) -> None:
    """Write the shares, (B, N) [GPU].

    `memory`, (W + 1, B, N), has the recommendations of the last W looks at the metric and, last, the
    replicas; `sync` is the number of this look, or -1 where none is due.
    """
    platform, window = packed.settings[0], memory.shape[0] - 1
    size = replica_of(replica, platform)
    most = max(1.0, floor(largest_share(platform) / size + ROUNDING))
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            queue, current = packed.state[b, i].queue, memory[window, b, i]
            if sync == 0:
                current = max(1.0, ceil(packed.state[b, i].share / size - ROUNDING))
            if sync >= 0:
                near = abs(queue / (current * target) - 1.0) <= TOLERANCE
                wanted = current if near else ceil(queue / target - ROUNDING)
                # What is there when it begins counts as its first recommendation.
                wanted = max(wanted, current) if sync == 0 else wanted
                memory[sync % window, b, i] = wanted
                if wanted < current:
                    for w in range(min(window, sync + 1)):
                        wanted = max(wanted, memory[w, b, i])
                    wanted = min(wanted, current)
                wanted = min(wanted, max(2.0 * current, current + 4.0))
                current = min(most, max(1.0, wanted))
                memory[window, b, i] = current
            granted[b, i] = current * size
        fit(granted[b], platform.gpus)


@dataclass(frozen=True)
class KubernetesHpa(Remembering):
    """Replicas of a fixed share, as many as there are requests by the target, once in 15 s.

    The algorithm and the defaults of Kubernetes (kubernetes.io, Horizontal Pod Autoscaling): desired =
    ⌈requests/target⌉ of the requests in the agent's queue and service, unchanged within 10 %; in one look
    at most doubled or four more; it falls only to the greatest recommendation of the stabilisation
    window; at least one replica. Replicas that exceed the platform are scaled to it. O(N W).
    """

    target: float = tunable(4.0, 0.1, 100.0, log=True)
    """Requests for each replica."""
    window_s: float = tunable(300.0, 15.0, 300.0)
    """Stabilisation window: how long replicas stay before they fall [s]."""
    replica: float = tunable(0.1, 0.02, 0.5, log=True)
    """Share of one replica [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`; takes one step of time."""
        rows = self._memory.ring(max(1, round(self.window_s / max(SYNC_S, view.dt))) + 1, view)
        every = max(1, round(SYNC_S / view.dt))
        look, passed = divmod(self._memory.steps, every)
        self._memory.steps += 1
        return decide(_scale, view, self.target, self.replica, rows, -1 if passed else look)
