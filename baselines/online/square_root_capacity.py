"""Square-root capacity assignment."""

from dataclasses import dataclass
from math import sqrt

from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, largest_share, needed_share, whole_slices
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _assign(packed: Packed, horizon_s: float, safety: float, granted: AnyArray) -> None:
    """Write the assigned shares, (B, N) [GPU]."""
    platform = packed.settings[0]
    most = largest_share(platform)
    for b in range(granted.shape[0]):
        shares, needed, roots = granted[b], 0.0, 0.0
        for i in range(granted.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            load = (now.rate + now.queue / horizon_s) / agent.throughput
            needed += min(most, needed_share(load, agent.kappa))
            # The root first, the share in the second pass, which knows what is spare.
            shares[i] = sqrt(load / agent.priority)
            roots += shares[i]
        spare = max(0.0, platform.gpus - needed)
        factor = min(safety, spare / roots) if roots > 0.0 else 0.0
        for i in range(granted.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            load = (now.rate + now.queue / horizon_s) / agent.throughput
            share = min(most, needed_share(load, agent.kappa)) + factor * shares[i]
            shares[i] = min(most, whole_slices(share, platform.slice))
        fit(shares, platform.gpus)


@dataclass(frozen=True)
class SquareRootCapacity:
    """Give each agent what its load takes, and of the spare capacity in proportion to √(ω_i ρ_i).

    Kleinrock, Communication Nets (1964): of all assignments of a capacity to M/M/1 queues,
    g_i = ρ_i + √(ω_i ρ_i / ν) has the least mean delay, Σ ω_i λ_i / (T_i g_i − λ_i), where ρ_i = λ_i/T_i and
    ν is the price of a GPU at which the platform is full. Where a GPU is billed more than that, 1/√ν is
    at most `safety`. The load counts the queue, to be served within the horizon. O(N).
    """

    horizon_s: float = tunable(10.0, 0.2, 60.0, log=True)
    """Time within which a queue should be served [s]."""
    safety: float = tunable(10.0, 0.05, 10.0, log=True)
    """Most spare capacity for each unit of √(ω ρ) [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return decide(_assign, view, self.horizon_s, self.safety)
