"""Queues request by request, in Ciw and in SimPy: what the fluid is compared with.

Nothing here knows of the fluid simulator. Arrival instants and service times are given, so the
fluid can be shown the same ones; only Ciw's routing draws, from Ciw's own generators.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import ciw
import numpy as np
import simpy
from ciw import dists

from gpualloc_env.simulation.state import Array


class TaskTimes(NamedTuple):
    """What became of the tasks of one run."""

    mean: float  # [s] time in the system
    service: float  # [s] in service, over all visits of a task, in the mean
    end: float  # [s] instant at which the last one left


def ciw_waits(instants: Array, services: Array) -> Array:
    """Waits in a first-come-first-served queue with one server, by Ciw, (n,) [s]."""
    network = ciw.create_network(
        arrival_distributions=[_instants(instants)],
        service_distributions=[dists.Sequential(services.tolist())],
        number_of_servers=[1],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(len(instants), method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.id_number)
    return np.array([record.waiting_time for record in records])


def ciw_task_times(instants: Array, burst: int, service_times: Array, routing: Array, seed: int) -> TaskTimes:
    """Times from arrival to end of tasks in a network of single servers, by Ciw.

    Bursts of `burst` tasks arrive at node 0; a task leaves when its routing sends it nowhere.
    """
    nodes = len(service_times)
    others = nodes - 1
    network = ciw.create_network(
        arrival_distributions=[_instants(instants), *[None] * others],
        batching_distributions=[dists.Deterministic(value) for value in (burst, *[1] * others)],
        service_distributions=[dists.Deterministic(time) for time in service_times.tolist()],
        number_of_servers=[1] * nodes,
        routing=[[float(probability) for probability in row] for row in routing],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(burst * len(instants), method="Finish")
    visits = [individual.data_records for individual in simulation.get_all_individuals()]
    times = [task[-1].exit_date - task[0].arrival_date for task in visits]
    work = sum(visit.service_time for task in visits for visit in task)
    return TaskTimes(
        float(np.mean(times)), float(work) / len(times), max(task[-1].exit_date for task in visits)
    )


def _instants(instants: Array) -> dists.Sequential:
    """Arrivals at these instants and then none: Ciw starts a sequence again when it ends."""
    return dists.Sequential([*np.diff(instants, prepend=0.0).tolist(), inf])


def simpy_waits(instants: Array, services: Array) -> Array:
    """Waits in a first-come-first-served queue with one server, by SimPy, (n,) [s]."""
    environment = simpy.Environment()
    server = simpy.Resource(environment, capacity=1)
    waits = np.empty(len(instants))

    def visit(k: int) -> Iterator[simpy.Event]:
        yield environment.timeout(instants[k])
        with server.request() as turn:
            yield turn
            waits[k] = environment.now - instants[k]
            yield environment.timeout(services[k])

    for k in range(len(instants)):
        environment.process(visit(k))  # pyright: ignore[reportArgumentType]
    environment.run()
    return waits


@dataclass
class Request:
    """One request under processor sharing."""

    arrival: float  # [s]
    work: float  # [s] of a whole GPU still to be done
    served_at: float = 0.0  # [s] mean instant at which its work was done
    departure: float = 0.0  # [s]


def simpy_processor_sharing(
    instants: Sequence[Array], service_times: Sequence[float]
) -> list[tuple[Array, Array]]:
    """Generalised processor sharing of one GPU between agents that are first come, first served.

    The agents that have work share the GPU equally, whatever the number of their requests.

    Returns:
        For each agent the sojourn of each request's work, which leaves while it is done, and of
        each whole request, (n,) [s] each.
    """
    environment = simpy.Environment()
    queues: list[list[Request]] = [[] for _ in instants]
    finished: list[list[Request]] = [[] for _ in instants]
    bell = [environment.event()]

    def arrive(agent: int) -> Iterator[simpy.Event]:
        for instant in instants[agent].tolist():
            yield environment.timeout(instant - environment.now)
            queues[agent].append(Request(instant, service_times[agent]))
            if not bell[0].triggered:
                bell[0].succeed()

    def serve() -> Iterator[simpy.Event]:
        while True:
            bell[0] = environment.event()
            heads = [queue[0] for queue in queues if queue]
            if not heads:
                yield bell[0]
                continue
            start, share = environment.now, 1 / len(heads)
            completion = environment.timeout(min(head.work for head in heads) / share)
            yield completion | bell[0]
            done = (environment.now - start) * share
            for agent, queue in enumerate(queues):
                # A request that rang the bell at this very instant has had no service yet.
                if queue and any(queue[0] is head for head in heads):
                    _serve(queue, finished[agent], done, start, environment.now, service_times[agent])

    for agent in range(len(instants)):
        environment.process(arrive(agent))  # pyright: ignore[reportArgumentType]
    environment.process(serve())  # pyright: ignore[reportArgumentType]
    environment.run()
    return [
        (
            np.array([request.served_at - request.arrival for request in requests]),
            np.array([request.departure - request.arrival for request in requests]),
        )
        for requests in finished
    ]


def _serve(
    queue: list[Request], finished: list[Request], done: float, start: float, end: float, service_time: float
) -> None:
    """Do some work on the request at the head of a queue between two instants."""
    head = queue[0]
    head.work -= done
    head.served_at += done / service_time * (start + end) / 2
    if head.work <= 1e-9 * service_time:
        head.departure = end
        finished.append(queue.pop(0))
