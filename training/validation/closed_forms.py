"""The fluid simulator held against the closed forms of queueing theory.

A request is one unit of fluid that arrives whole and leaves while it is served. So it leaves half
a service time before the whole request would, in the mean: the fluid's mean sojourn is the wait
in the queue plus half of the service time.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.stats import poisson

from baselines import POLICIES
from gpualloc_env.batch import Batch
from gpualloc_env.metrics import episode_metrics, sojourns
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.platform import Platform
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import rollout
from training.validation.calls import queues_of_calls
from training.validation.checks import EXACT, Check, against_theory, controlled
from training.validation.fluid import (
    drawn,
    generalised_processor_sharing,
    play,
    replayed,
    station,
    whole_gpu,
)
from training.validation.workflow_network import (
    AGENTS,
    MAXIMUM_RATE,
    ROUTING,
    THROUGHPUTS,
    VISITS,
    equally_loaded,
)

LOADS = (0.5, 0.7, 0.9)
STEP_LENGTHS = (0.4, 0.7, 1.5, 2.5, 4.0, 8.0)
STEP_LOAD = 0.7
REPLICATIONS = 256
SEED_SPACING = 10_000
"""Far more than the environments of one check, so that no two checks share an arrival."""


def pollaczek_khinchine(load: float) -> float:
    """Mean wait of M/D/1 in service times, ρ / (2 (1 − ρ))."""
    return load / (2 * (1 - load))


def slotted_wait(load: float, step: float) -> float:
    """Mean wait of M/D/1 in service times where arrivals enter at the start of steps of `step` of them.

    With U the work left at the end of a step, X the work that enters with the next and V = U + X,
    U' = (V − step)⁺. The mean work in the system is (E V² − E U'²) / (2 step), that is
    (2 E[U] E[X] + E[X²]) / (2 step), and a unit of work meets 1/ρ of it. Only E[U] needs the law
    of U: the stationary law of a walk on the multiples of 1/q where step = p/q.
    """
    p, q = Fraction(step).limit_denominator(1000).as_integer_ratio()
    # The law of U falls by more than e⁻²⁰ within so many service times.
    levels = q * (round(12 / (1 - load)) + 4 * round(step))
    states = np.arange(levels)
    transition = np.zeros((levels, levels))
    for count, probability in enumerate(poisson.pmf(np.arange(levels), load * step)):
        after = np.clip(states + q * count - p, 0, levels - 1)
        transition[states, after] += probability
    # π (P − I) = 0 and Σ π = 1, the sum in place of an equation that the others imply.
    equations = transition.T - np.eye(levels)
    equations[-1] = 1
    stationary = np.linalg.solve(equations, states == levels - 1)
    left = stationary @ states / q
    entering = load * step
    work = (2 * left * entering + entering + entering**2) / (2 * step)
    return float(work / load - 0.5)


def md1_waits(load: float, dt: float, seconds: float, warm_up: float, seed: int, batches: int = 1) -> Array:
    """Mean waits of M/D/1 with a service time of 1 s, one for each replication [s].

    By Little's law from the time integral of the backlog after the warm-up; the episodes start
    empty. The number of arrivals, whose mean is known, is a control variate.
    """
    first_step, steps = round(warm_up / dt), round((warm_up + seconds) / dt)
    scenario = station([1.0], [load], steps, dt)
    requests = load * dt * (steps - first_step)
    waits: list[Array] = []
    for k in range(batches):
        totals = play(drawn(scenario, REPLICATIONS, seed + k * REPLICATIONS), whole_gpu, first_step)
        waits.append(controlled(totals.backlog[:, 0] / requests - 0.5, totals.external[:, 0], requests))
    return np.concatenate(waits)


def md1(seed: int) -> list[Check]:
    """Mean waits of M/D/1 against Pollaczek and Khinchine's formula, at each of `LOADS`."""
    checks: list[Check] = []
    # Correlations last for ρ/(1−ρ)² service times: so much longer must the higher loads run.
    lengths = (6000.0, 200.0, 1), (8000.0, 500.0, 1), (8000.0, 1500.0, 4)
    for k, (load, (seconds, warm_up, batches)) in enumerate(zip(LOADS, lengths, strict=True)):
        waits = md1_waits(load, 0.5, seconds, warm_up, seed + k * SEED_SPACING, batches)
        name, expected = f"M/D/1 mean wait, ρ = {load}", pollaczek_khinchine(load)
        checks.append(against_theory(name, "Pollaczek-Khinchine", "s", expected, waits, 0.02))
    return checks


def md1_by_step(seed: int) -> list[Check]:
    """Mean waits of M/D/1 against the exact slotted formula, at each of `STEP_LENGTHS`."""
    checks: list[Check] = []
    for k, dt in enumerate(STEP_LENGTHS, start=len(LOADS)):
        waits = md1_waits(STEP_LOAD, dt, 12000.0, 1000.0, seed + k * SEED_SPACING)
        name = f"M/D/1 mean wait, ρ = {STEP_LOAD}, dt = {dt:g} S"
        expected = slotted_wait(STEP_LOAD, dt)
        checks.append(against_theory(name, "slotted M/D/1", "s", expected, waits, 0.02))
    return checks


def dd1(_seed: int) -> list[Check]:
    """Regular arrivals, one request a step: no wait below capacity, linear growth above."""
    below = station([1.0], [0.8], steps=200, dt=1.25, law="constant")
    batch = drawn(below, 1, seed=0)
    totals = play(batch, whole_gpu)
    # Arrivals of 0.8 · 1.25 s: one request a step, whose fluid leaves half a second later in the mean.
    wait = totals.backlog[:, 0] / totals.external[:, 0] - 0.5
    above = station([1.0], [1.25], steps=200, dt=0.8, law="constant")
    growing = drawn(above, 1, seed=0)
    play(growing, whole_gpu)
    return [
        against_theory("D/D/1 wait, ρ = 0.8", "no wait", "s", 0.0, wait, EXACT, scale=1.0),
        against_theory(
            "D/D/1 backlog after 160 s, ρ = 1.25",
            "(λ − μ) t",
            "requests",
            0.25 * 160,
            growing.outcome["queue"][:, 0],
            EXACT,
        ),
    ]


def drains(_seed: int) -> list[Check]:
    """Mean time in the system of a backlog that drains with nothing more to come."""
    one = replayed(station([2.0], [1.0], steps=20, dt=0.7), _backlog([7.5], 20))
    alone = play(one, lambda view: np.full_like(view.queue, 0.4))
    # 10 and 30 requests share one GPU: the first drain at 1/s until 10 · 2 s, exactly 20 steps.
    two = replayed(station([1.0, 1.0], [1.0, 1.0], steps=50, dt=1.0), _backlog([10.0, 30.0], 50))
    shared = play(two, generalised_processor_sharing).backlog[0]
    cold = station([2.0], [1.0], steps=20, dt=0.7).model_copy(
        update={"platform": Platform(container_start_s=1.6), "warm": False}
    )
    loading = play(replayed(cold, _backlog([7.5], 20)), whole_gpu)
    return [
        against_theory(
            "drain of 7.5 requests at 0.8/s",
            "Q / 2μ",
            "s",
            7.5 / (2 * 0.8),
            alone.backlog[:, 0] / 7.5,
            EXACT,
        ),
        against_theory(
            "drain after a cold start of 1.6 s",
            "1.6 s + Q / 2μ",
            "s",
            1.6 + 7.5 / 4,
            loading.backlog[:, 0] / 7.5,
            EXACT,
        ),
        # Half of the GPU until the first are gone; then the whole one for the 20 that remain.
        against_theory("drain of 10 beside 30, shared", "Q₁ / μ", "s", 10.0, shared[:1] / 10, EXACT),
        against_theory(
            "drain of 30 beside 10, shared",
            "piecewise linear",
            "s",
            (25 * 20 + 10 * 20) / 30,
            shared[1:] / 30,
            EXACT,
        ),
    ]


def _backlog(requests: list[float], steps: int) -> Array:
    arrivals = np.zeros((1, steps, len(requests)))
    arrivals[0, 0] = requests
    return arrivals


def traffic_equations(seed: int) -> list[Check]:
    """Throughput of each agent of the workflow against λ = (I − Wᵀ)⁻¹ external, in steady state."""
    rates, steps, warm_up, dt = (0.8 * MAXIMUM_RATE, 0.0, 0.0, 0.0), 3500, 500, 0.5
    scenario = station(THROUGHPUTS.tolist(), rates, steps, dt, routing=ROUTING)
    served = play(drawn(scenario, 256, seed), equally_loaded, warm_up).served / (dt * (steps - warm_up))
    return [
        against_theory(
            f"throughput of {name}", "traffic equations", "1/s", 0.8 * MAXIMUM_RATE * visits, rate, 0.01
        )
        for name, visits, rate in zip(AGENTS, VISITS, served.T, strict=True)
    ]


def sojourn_integral(batch: Batch, b: int) -> float:
    """Time that all requests or calls of an episode have spent in the system, summed one by one [s]."""
    history, steps = batch.history[b], batch.scenario.steps
    if batch.scenario.service == "requests":
        calls = batch.service.calls[b, : batch.service.run[b]["calls"]]
        calls = calls[np.isfinite(calls["issued"])]
        return float((np.minimum(calls["finished"], steps * batch.scenario.dt) - calls["issued"]).sum())
    room = np.empty((2 * steps + 1, 3))
    total = 0.0
    for i in range(batch.num_agents):
        count = sojourns(batch.inflows[:steps, b, i].cumsum(), history[:, i], batch.scenario.dt, room)
        total += float((room[:count, :2].mean(axis=1) * room[:count, 2]).sum())
    return total


def littles_law(seed: int) -> list[Check]:
    """Sojourn times request by request against the time integral of the backlog, on every scenario."""
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "poisson.csv"
        write_log(log, seed)
        for name, registered in SCENARIOS.items():
            trace = log if registered.trace is not None else None
            scenario = load_scenario(name, trace=trace, split="all" if trace else None)
            batch = rollout(POLICIES["adaptive"], scenario, 2, seed, record=True)
            integral = [float(batch.history[b]["backlog"].sum() * scenario.dt) for b in range(2)]
            sums = [sojourn_integral(batch, b) for b in range(2)]
            checks.append(
                against_theory(
                    f"sum of all sojourns, {name}",
                    "Little's law",
                    "s",
                    sum(integral),
                    [sum(sums)],
                    EXACT,
                )
            )
    return checks


def write_log(path: Path, seed: int) -> None:
    """Write a log of 2000 requests, Poisson in time and of random size, for the scenario that replays one."""
    generator = np.random.default_rng(seed)
    start = np.datetime64("2026-01-01T00:00:00", "ns")
    instants = start + (generator.exponential(1.0, 2000).cumsum() * 1e9).astype("timedelta64[ns]")
    tokens = generator.integers(1, 4000, 2000), generator.integers(1, 400, 2000)
    lines = [f"{str(t).replace('T', ' ')},{i},{o}" for t, i, o in zip(instants, *tokens, strict=True)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n", encoding="utf-8")


def sub_steps(seed: int) -> list[Check]:
    """The same arrivals and shares, changing once a second, in steps of 1, 0.1 and 0.01 s."""
    generator = np.random.default_rng(seed)
    arrivals = generator.poisson([20.0, 10.0, 11.0, 6.0], (120, 4)) * generator.exponential(1.0, (120, 4))
    shares = generator.dirichlet(np.full(4, 2.0), 120)
    scenario = Scenario(
        name="sub-steps",
        platform=Platform(container_start_s=0.73, load_mb_per_s=1000.0),
        traffic=load_scenario("steady").traffic,
        warm=False,
    )
    results: dict[int, dict[str, object]] = {}
    for parts in (1, 10, 100):
        fine = scenario.model_copy(update={"steps": 120 * parts, "dt": 1 / parts})
        episode = np.zeros((1, 120 * parts, 4))
        episode[0, ::parts] = arrivals
        batch = replayed(fine, episode, record=True)
        for t in range(fine.steps):
            batch.step(shares[None, t // parts])
        results[parts] = episode_metrics(batch, 0)
    checks: list[Check] = []
    for metric, what in (("latency_mean_s", "mean"), ("latency_p95_s", "p95")):
        expected = float(results[1][metric])  # pyright: ignore
        for parts in (10, 100):
            name = f"{what} sojourn, dt = {1 / parts:g} s"
            measured = float(results[parts][metric])  # pyright: ignore
            checks.append(against_theory(name, "dt = 1 s", "s", expected, [measured], 1e-6))
    return checks


STUDIES = {
    "M/D/1": md1,
    "M/D/1 by step": md1_by_step,
    "D/D/1": dd1,
    "drain": drains,
    "traffic equations": traffic_equations,
    "Little's law": littles_law,
    "sub-steps": sub_steps,
    "queues of calls": queues_of_calls,
}
