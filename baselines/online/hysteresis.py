"""Shares by need, held until a change is worth its cost."""

from dataclasses import dataclass

from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, needed_share
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _hold_or_move(
    queue: AnyArray,
    rate: AnyArray,
    throughput: AnyArray,
    kappa: AnyArray,
    held: AnyArray,
    gpus: float,
    most: float,
    horizon_s: float,
    threshold: float,
    granted: AnyArray,
) -> None:
    """Write the held and the changed shares, (B, N) [GPU]."""
    count = queue.shape[1]
    for b in range(queue.shape[0]):
        shares = granted[b]
        total = 0.0
        for i in range(count):
            demand = rate[b, i] + queue[b, i] / horizon_s
            shares[i] = min(most, needed_share(demand / throughput[b, i], kappa[b, i]))
            total += shares[i]
        scale = gpus / total if total > 0.0 else 0.0
        kept = wanted = 0.0
        for i in range(count):
            shares[i] = min(most, scale * shares[i])
            if held[b, i] > 0.0 and abs(shares[i] - held[b, i]) <= threshold:
                kept += held[b, i]
            else:
                wanted += shares[i]
        room = max(0.0, gpus - kept)
        part = min(1.0, room / wanted) if wanted > 0.0 else 0.0
        for i in range(count):
            if held[b, i] > 0.0 and abs(shares[i] - held[b, i]) <= threshold:
                shares[i] = held[b, i]
            else:
                shares[i] *= part
        fit(shares, gpus)


@dataclass(frozen=True)
class Hysteresis:
    """Shares in proportion to need, where an agent keeps what it holds while that is near enough.

    Two thresholds around a set point, as for a queue with a cost of switching: Hofri and Ross,
    SIAM Journal on Computing 16 (1987). The need is the share that serves λ_i + q_i / horizon; needs are
    scaled to fill the platform, and those who move divide what the others leave. O(N).
    """

    horizon_s: float = tunable(2.0, 0.2, 60.0, log=True)
    """Time within which a queue should be served [s]."""
    threshold: float = tunable(0.1, 0.0, 0.5)
    """Change of a share that is worth a reallocation [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return decide(
            _hold_or_move,
            view,
            (view.queue, view.rate, view.throughput, view.kappa, view.share),
            view.gpus,
            min(view.gpus, view.max_share),
            self.horizon_s,
            self.threshold,
        )
