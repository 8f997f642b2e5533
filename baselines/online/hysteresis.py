"""Shares by need, held until a change is worth its cost."""

from dataclasses import dataclass

from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.curves import fit, largest_share, needed_share
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import AnyArray, Array


@inlined
def _near(held: float, share: float, threshold: float) -> bool:
    """Whether a share is held that is within the threshold of another, all [GPU]."""
    return held > NEGLIGIBLE and abs(share - held) <= threshold


@compiled
def _hold_or_move(packed: Packed, horizon_s: float, threshold: float, granted: AnyArray) -> None:
    """Write the held and the changed shares, (B, N) [GPU]."""
    platform = packed.settings[0]
    gpus, most = platform.gpus, largest_share(platform)
    for b in range(granted.shape[0]):
        shares, total = granted[b], 0.0
        for i in range(granted.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            demand = now.rate + now.queue / horizon_s
            shares[i] = min(most, needed_share(demand / agent.throughput, agent.kappa))
            total += shares[i]
        scale = gpus / total if total > 0.0 else 0.0
        kept = wanted = 0.0
        for i in range(granted.shape[1]):
            held = packed.state[b, i].share
            shares[i] = min(most, scale * shares[i])
            if _near(held, shares[i], threshold):
                kept += held
            else:
                wanted += shares[i]
        room = max(0.0, gpus - kept)
        part = min(1.0, room / wanted) if wanted > 0.0 else 0.0
        for i in range(granted.shape[1]):
            held = packed.state[b, i].share
            shares[i] = held if _near(held, shares[i], threshold) else shares[i] * part
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
        return decide(_hold_or_move, view, self.horizon_s, self.threshold)
