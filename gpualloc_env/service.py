"""How a queue is served within a step: the fluid model that the simulator and a planner share."""

from gpualloc_env.compiled import inlined


@inlined
def serve(queue: float, rate: float, delay: float, dt: float) -> tuple[float, float, float]:
    """Serve for what is left of `dt` seconds after a delay, first come first served.

    The number waiting is constant until service starts, falls at `rate` while there is work and
    is constant again: its integral over the time is exact.

    Returns:
        The requests that could be served, those that are, and the integral of the number waiting
        [requests s].
    """
    capacity = rate * (dt - delay)
    served = capacity if capacity < queue else queue
    busy = served / rate if rate > 0.0 else 0.0
    left = queue - served
    return capacity, served, queue * delay + (left + 0.5 * served) * busy + left * (dt - delay - busy)
