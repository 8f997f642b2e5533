"""Servers of calls held against closed forms of queueing theory, and against SimPy call by call."""

from functools import partial
from math import factorial, inf
from typing import NamedTuple

import numpy as np

from gpualloc_env.batch import Batch
from gpualloc_env.scenario.agents import Agent
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.simulation.calls import Tasks
from gpualloc_env.simulation.state import AnyArray, Array
from gpualloc_env.simulation.tasks import LOG
from training.validation.checks import Check, against_theory, controlled

TOKENS = 1000  # mean work of a call; its tokens are whole numbers
STEP_S = 10.0
WARM_UP = 1 / 3  # of the calls
LOADS = {0.5: 0.02, 0.7: 0.04, 0.9: 0.15}
"""Loads, and the relative difference and width of its interval that passes."""


class Queue(NamedTuple):
    """A server of calls that is a queue with a closed form; a call's work takes a second in the mean."""

    name: str
    theory: str
    law: str  # of the work
    servers: int
    agent: dict[str, float | int]


SECOND = 1 / TOKENS  # of work, for each token
PREFILLED = {"prefill_s_per_token": SECOND, "max_batch": 1}
SHARING = {"iteration_s_per_call": SECOND, "max_batch": 10**6}
QUEUES = (
    Queue("M/D/1", "M/G/1", "constant", 1, PREFILLED),
    Queue("M/M/1", "M/G/1", "exponential", 1, PREFILLED),
    Queue("M/D/1-PS", "processor sharing", "constant", 1, SHARING),
    Queue("M/M/1-PS", "processor sharing", "exponential", 1, SHARING),
    Queue("M/M/3", "Erlang C", "exponential", 3, {"iteration_s": SECOND, "max_batch": 3}),
)


def work_of(law: str, generator: np.random.Generator, count: int) -> AnyArray:
    """Work of so many calls, in whole tokens whose mean is about TOKENS."""
    if law == "constant":
        return np.full(count, TOKENS)
    if law == "exponential":
        return np.ceil(generator.exponential(TOKENS, count)).astype(np.int64)
    if law == "hyperexponential":  # squared coefficient of variation about 4
        mean = np.where(generator.random(count) < 0.1, 7.0, 1 / 3) * TOKENS
        return np.ceil(generator.exponential(mean)).astype(np.int64)
    raise ValueError(law)


def server_of(queue: Queue) -> Agent:
    """The queue as an agent: its work is the prompt where it prefills, else the tokens after the first."""
    prefills = "prefill_s_per_token" in queue.agent
    table: dict[str, object] = {
        "iteration_s": 0.0,
        "iteration_s_per_call": 0.0,
        "prefill_s_per_token": 0.0,
        "prompt_tokens": TOKENS if prefills else 0,
        "output_tokens": 1 if prefills else TOKENS,
    }
    return Agent.model_validate({"name": "server", "model_mb": 0, **table, **queue.agent})


def replayed_tasks(scenario: Scenario, tasks: Tasks, episodes: int = 1, *, record: bool = False) -> Batch:
    """Environments at the start of given tasks; environment k plays the k-th of so many windows of time."""
    law = scenario.source()._replace(kind=LOG, recorded=tasks, episodes=episodes)
    batch = Batch(scenario, episodes, record=record, source=law)
    batch.seed(0)
    batch.reset()
    return batch


def call_times(batch: Batch, b: int = 0) -> Array:
    """Times of issue, first token and end of the calls of an episode, (C, 3) [s]; inf where none."""
    calls = batch.service.calls[b, : batch.service.run["calls"][b]]
    return np.stack([calls[name] for name in ("issued", "first_token", "finished")], axis=-1)


def sojourns(queue: Queue, load: float, seed: int, replications: int = 32) -> tuple[Array, Array]:
    """Mean sojourn of each replication after its warm-up, controlled by its load, (R,) [s].

    Returns:
        That, and the work of all calls [s].
    """
    means, loads, work = simulated(queue, load, seed, replications)
    return controlled(means, loads, float(load * queue.servers * work.mean())), work


def simulated(
    queue: Queue, load: float, seed: int, replications: int = 32, calls: int = 30_000
) -> tuple[Array, Array, Array]:
    """Mean sojourns after the warm-up, (R,) [s], offered loads, (R,), and the work of all calls [s]."""
    generator = np.random.default_rng(seed)
    window = int(calls / (load * queue.servers))
    counts = generator.poisson(load * queue.servers * window, replications)
    work = work_of(queue.law, generator, int(counts.sum()))
    # The windows have the steps in which the last calls are finished besides.
    steps = window // int(STEP_S) + 20
    starts = np.repeat(np.arange(replications), counts) * steps * STEP_S
    time = np.concatenate([np.sort(generator.uniform(0, window, count)) for count in counts]) + starts
    none, ones = np.zeros_like(work), np.ones_like(work)
    prompt, output = (work, ones) if "prefill_s_per_token" in queue.agent else (none, work + 1)
    tasks = Tasks(
        time.astype(np.float64), np.arange(len(time) + 1), none, none, prompt, output, none.astype(float)
    )
    scenario = Scenario(
        name="validation",
        service="requests",
        agents=(server_of(queue),),
        steps=steps,
        dt=STEP_S,
        traffic=Traffic(rates_rps=(1.0,)),
    )
    batch = replayed_tasks(scenario, tasks, replications)
    for _ in range(steps):
        batch.step(np.ones((replications, 1)))
    means, loads, first = np.empty(replications), np.empty(replications), 0
    for b, count in enumerate(counts):
        times = call_times(batch, b)
        own = (times[:, 0] > WARM_UP * window) & np.isfinite(times[:, 2])
        means[b] = (times[own, 2] - times[own, 0]).mean()
        loads[b] = work[first : first + count].sum() / TOKENS / window
        first += count
    return means, loads, work / TOKENS


def expected_sojourn(queue: Queue, load: float, work: Array) -> float:
    """The closed form for calls whose work is some sample [s]."""
    mean = float(work.mean())
    if queue.theory == "M/G/1":  # Pollaczek and Khinchine
        return mean + load * float((work**2).mean()) / (2 * (1 - load * mean))
    if queue.theory == "Erlang C":
        offered, servers = load * queue.servers * mean, queue.servers
        tail = offered**servers / factorial(servers) / (1 - offered / servers)
        waits = tail / (sum(offered**k / factorial(k) for k in range(servers)) + tail)
        return mean * (1 + waits / (servers - offered))
    return mean / (1 - load * mean)


def queues_of_calls(seed: int) -> list[Check]:
    """M/D/1, M/G/1, processor sharing, whose mean does not depend on the law of the work, and M/M/c."""
    checks: list[Check] = []
    for queue in QUEUES:
        for load, tolerance in LOADS.items():
            measured, work = sojourns(queue, load, seed)
            name = f"{queue.name} sojourn of calls, ρ = {load}"
            expected = expected_sojourn(queue, load, work)
            checks.append(against_theory(name, queue.theory, "s", expected, measured, tolerance))
    return checks


def calls_one_by_one(seed: int) -> list[Check]:
    """The same tasks in the engine and in SimPy: times of issue, first token and end of each call."""
    from training.validation.simpy_calls import simulate

    checks: list[Check] = []
    for name in ("llm", "team", "magentic"):
        scenario = load_scenario(name, steps=120)
        batch = Batch(scenario, 1)
        batch.seed(seed)
        batch.reset()
        parts = np.array([[0.3, 0.2, 0.15, 0.35]])
        for _ in range(scenario.steps):
            batch.step(parts)
        shares = dict(zip(scenario.agent_names, (parts[0] * scenario.platform.gpus).tolist(), strict=True))
        share_of = partial(_constant, shares)
        known = simulate(scenario.agents, batch.tasks(0), share_of, scenario.steps * scenario.dt)
        expected, own = np.array(known), call_times(batch, 0)
        happened = np.isfinite(expected)
        largest = float(np.abs(expected[happened] - own[happened]).max())
        missing = float((happened != np.isfinite(own)).sum())
        subject = f"{int(happened.sum())} times of calls of {name}"
        checks.append(against_theory(subject, "SimPy, each", "s", 0.0, [largest + missing], 1e-6, scale=1.0))
    return checks


def _constant(shares: dict[str, float], agent: str, time: float) -> tuple[float, float]:
    """A share that never changes."""
    return shares[agent], inf
