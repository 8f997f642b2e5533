"""The autoscaler of Knative: a concurrency target, and panic."""

from dataclasses import dataclass
from math import ceil, floor

from baselines.online.kubernetes_hpa import ROUNDING, replica_of
from baselines.online.rows import Remembering, decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, largest_share
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array

PANIC_WINDOW = 0.1  # of the stable window
PANIC_THRESHOLD = 2.0  # replicas wanted for each that is there, from which on it panics
MOST_DOWN = 2.0  # factor by which replicas fall in one step


@compiled
def _scale(
    packed: Packed, target: float, replica: float, memory: AnyArray, step: int, granted: AnyArray
) -> None:
    """Write the shares, (B, N) [GPU].

    `memory`, (W + 2, B, N), has the requests of the last W steps, then the replicas and the steps for which
    the panic goes on.
    """
    platform, window = packed.settings[0], memory.shape[0] - 2
    size = replica_of(replica, platform)
    most = max(1.0, floor(largest_share(platform) / size + ROUNDING))
    recent = max(1, round(PANIC_WINDOW * window))
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            memory[step % window, b, i] = packed.state[b, i].queue
            stable = panicky = 0.0
            for back in range(min(window, step + 1)):
                requests = memory[(step - back) % window, b, i]
                stable += requests
                panicky += requests if back < recent else 0.0
            stable = ceil(stable / (target * min(window, step + 1)) - ROUNDING)
            panicky = ceil(panicky / (target * min(recent, step + 1)) - ROUNDING)
            current = memory[window, b, i] if step > 0 else ceil(packed.state[b, i].share / size - ROUNDING)
            ready, panic = max(1.0, current), memory[window + 1, b, i]
            panic = float(window) if panicky >= PANIC_THRESHOLD * ready else max(0.0, panic - 1.0)
            wanted = max(stable, floor(ready / MOST_DOWN))
            if panic > 0.0:
                wanted = max(wanted, panicky, current)
            memory[window, b, i] = min(most, wanted)
            memory[window + 1, b, i] = panic
            granted[b, i] = memory[window, b, i] * size
        fit(granted[b], platform.gpus)


@dataclass(frozen=True)
class Knative(Remembering):
    """Replicas of a fixed share for the mean concurrency, in panic for that of the last moments.

    The algorithm and the defaults of Knative (knative.dev, Serving: autoscaling, the KPA): desired =
    ⌈mean number of requests in the stable window / target⌉, to zero where none came, at least half of what
    is there. Once the mean of the last tenth of the window wants twice the replicas that are there, it
    panics: replicas follow that mean and do not fall, until a whole window has passed without another
    reason. Replicas that exceed the platform are scaled to it; the grace period before zero is left to the
    platform's keep-alive. O(N W).
    """

    target: float = tunable(4.0, 0.1, 100.0, log=True)
    """Requests at once for each replica."""
    window_s: float = tunable(60.0, 6.0, 120.0)
    """Stable window [s]."""
    replica: float = tunable(0.1, 0.02, 0.5, log=True)
    """Share of one replica [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`; takes one step of time."""
        rows = self._memory.ring(max(1, round(self.window_s / view.dt)) + 2, view)
        fractions = decide(_scale, view, self.target, self.replica, rows, self._memory.steps)
        self._memory.steps += 1
        return fractions
