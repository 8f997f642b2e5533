"""The fluid simulator held against Ciw and SimPy, request by request, on the same arrivals.

Also where the two part: a fluid sends 0.22 of every request to the next agent where a server
finishes a request before it hands it on, and sends one whole request in four or five.
"""

from collections.abc import Callable
from math import ceil

import numpy as np

from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import Array
from training.evaluation.statistics import interval
from training.validation.calls import calls_one_by_one
from training.validation.checks import Check, against_simulator, controlled
from training.validation.fluid import (
    generalised_processor_sharing,
    play,
    replayed,
    slotted,
    station,
    whole_gpu,
)
from training.validation.partings import Case, Parting
from training.validation.request_simulations import (
    ciw_task_times,
    ciw_waits,
    simpy_processor_sharing,
    simpy_waits,
)
from training.validation.workflow_network import (
    MAXIMUM_RATE,
    ROUTING,
    SERVICE_TIMES,
    TASK_SERVICE_S,
    THROUGHPUTS,
    equally_loaded,
)

QUEUES: dict[str, Callable[[Array, Array], Array]] = {"Ciw": ciw_waits, "SimPy": simpy_waits}


def queues(seed: int, replications: int = 10, requests: int = 1500) -> list[Check]:
    """M/D/1 and M/M/1: the same arrival instants and service times in the fluid, Ciw and SimPy.

    Work leaves while it is done, so a request of work S counts S times, and its parts wait S/2
    in service: the fluid's mean sojourn is Σ S (W + S/2) / Σ S. Where waits do not depend on a
    request's own work that is W + E[S²] / (2 E[S]): S/2 more than the wait for M/D/1, a whole
    mean service time for M/M/1.
    """
    checks: list[Check] = []
    for law, load in (("M/D/1", 0.5), ("M/D/1", 0.7), ("M/D/1", 0.9), ("M/M/1", 0.5), ("M/M/1", 0.8)):
        generator = np.random.default_rng([seed, round(100 * load), law == "M/M/1"])
        instants = generator.exponential(1 / load, (replications, requests)).cumsum(axis=1)
        work = generator.exponential(size=instants.shape) if law == "M/M/1" else np.ones_like(instants)
        fluid = _sojourns([instants], [work], dt=0.05)[:, 0]
        for simulator, waits in QUEUES.items():
            reference = [
                float((s * (waits(t, s) + s / 2)).sum() / s.sum())
                for t, s in zip(instants, work, strict=True)
            ]
            name = f"{law} mean sojourn, ρ = {load}"
            checks.append(against_simulator(name, simulator, "s", reference, fluid, 0.005))
    return checks


def _sojourns(
    instants: list[Array], work: list[Array], dt: float, rates: tuple[float, ...] = (1.0,)
) -> Array:
    """Mean sojourn of each agent's work under processor sharing, (B, N) [s], all of it done in the end."""
    last = max(float(times.max()) for times in instants)
    # Far more than the longest queue needs to drain after the last arrival.
    steps = ceil((last + 400) / dt)
    arrivals = np.concatenate(
        [slotted([*times], [*sizes], steps, dt) for times, sizes in zip(instants, work, strict=True)], axis=2
    )
    batch = replayed(station(rates, [1.0] * len(rates), steps, dt), arrivals)
    policy = whole_gpu if len(rates) == 1 else generalised_processor_sharing
    totals = play(batch, policy)
    _check_done(float(batch.outcome["queue"].max()), last)
    return totals.backlog / totals.external


def _check_done(left: float, horizon: float) -> None:
    if left > NEGLIGIBLE:
        raise RuntimeError(
            f"{left:g} requests had not left {horizon:g} s after the start; take longer episodes"
        )


def processor_sharing(seed: int, replications: int = 10, requests: int = 1000) -> list[Check]:
    """Two agents that get the GPU when they have work, and half of it each when both have."""
    rates, service_times = (0.4, 0.2), (1.0, 2.0)
    generator = np.random.default_rng([seed, 1])
    counts = (requests, requests // 2)
    instants = [
        generator.exponential(1 / rate, (replications, count)).cumsum(axis=1)
        for rate, count in zip(rates, counts, strict=True)
    ]
    fluid = _sojourns(instants, [np.ones_like(times) for times in instants], dt=0.02, rates=(1.0, 0.5))
    pairs = zip(*instants, strict=True)
    runs = [simpy_processor_sharing(pair, service_times) for pair in pairs]
    return [
        against_simulator(
            f"processor sharing, agent {agent + 1} (S = {service_times[agent]:g} s)",
            "SimPy",
            "s",
            [run[agent][0].mean() for run in runs],
            fluid[:, agent],
            0.005,
        )
        for agent in range(2)
    ]


def workflow(
    burst: int, bursts: int, load: float, dt: float, replications: int, seed: int
) -> tuple[Array, Array]:
    """Mean task times of each replication in Ciw and in the fluid, (R,) [s] each, on the same arrivals.

    Bursts of tasks arrive as a Poisson process at the load of every agent; a load of zero is one
    burst at the start. Both start empty and run until every task is done.
    """
    generator = np.random.default_rng([seed, burst, round(100 * load)])
    if load == 0:
        instants = np.full((replications, 1), 1e-9)
    else:
        gap = burst / (load * MAXIMUM_RATE)
        instants = generator.exponential(gap, (replications, bursts)).cumsum(axis=1)
    runs = [
        ciw_task_times(times, burst, SERVICE_TIMES, ROUTING, seed + k) for k, times in enumerate(instants)
    ]
    last = max(run.end for run in runs)
    # The fluid comes round in ever smaller parts: two steps and 0.55 of it for each round.
    steps = ceil(1.5 * last / dt) + 200
    arrivals = np.zeros((replications, steps, 4))
    arrivals[:, :, :1] = slotted([*instants], [np.full(times.shape, burst) for times in instants], steps, dt)
    scenario = station(THROUGHPUTS.tolist(), [1.0, 0.0, 0.0, 0.0], steps, dt, routing=ROUTING)
    batch = replayed(scenario, arrivals)
    totals = play(batch, equally_loaded)
    _check_done(float(batch.outcome["queue"].max()), steps * dt)
    fluid = (totals.backlog.sum(axis=1) + totals.transit) / totals.external.sum(axis=1)
    # Chance sends the tasks of one run on more visits than those of another: their mean is known.
    difference = np.array([run.mean for run in runs]) - fluid
    return fluid + controlled(difference, [run.service for run in runs], TASK_SERVICE_S), fluid


def workflow_checks(seed: int, replications: int = 24) -> list[Check]:
    """Task times where the backlog is far above one request, so that both model the same thing."""
    drain = workflow(1000, 1, 0.0, 0.3, replications, seed)
    overload = workflow(1, 1000, 2.0, 0.1, replications, seed)
    return [
        against_simulator(name, "Ciw", "s", *times, 0.03)
        for name, times in (
            ("workflow task time, 1000 tasks at once", drain),
            ("workflow task time, 1000 tasks at ρ = 2", overload),
        )
    ]


def parting(case: Case, seed: int) -> Parting:
    """How far the fluid's mean task time is from Ciw's in one case."""
    bursts = case.tasks // case.burst
    requests, fluid = workflow(case.burst, bursts, case.load, case.dt, case.replications, seed)
    gap = interval((fluid - requests) / requests.mean())
    missing = float(requests.mean() - fluid.mean()) / TASK_SERVICE_S
    return Parting(case, interval(requests), interval(fluid), gap, missing)


STUDIES = {
    "M/D/1 and M/M/1": queues,
    "processor sharing": processor_sharing,
    "workflow": workflow_checks,
    "calls": calls_one_by_one,
}
