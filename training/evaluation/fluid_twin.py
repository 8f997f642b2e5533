"""The fluid twin of a scenario of calls: the same agents, platform and load, served as a fluid."""

from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.scenario import Scenario


def fluid_twin(scenario: Scenario) -> Scenario:
    """The scenario with `service = "fluid"`.

    A workflow becomes a routing matrix with the same visits: the entry hands each specialist its part of
    what goes on, and gets one request back for every round. A fluid has no tasks: their price goes to the
    latency, which is that of a task by Little's law when it is multiplied by the calls of a task, where
    calls in parallel count one after another.

    Raises:
        ValueError: the scenario is a fluid or a cluster, or its tasks come from a log.
    """
    if scenario.service == "fluid" or scenario.traffic is None or scenario.nodes:
        raise ValueError(
            f"scenario {scenario.name!r} has no fluid twin: its agents must serve calls of drawn traffic on "
            "one pool of GPUs; give 'team', 'llm' or a .toml file like theirs"
        )
    names, tasks, prices = scenario.agent_names, scenario.tasks, scenario.objective
    routing, calls = None, 1.0
    if tasks is not None:
        entry, count = names.index(tasks.entry), (tasks.least + tasks.most) / 2
        matrix = [[0.0] * len(names) for _ in names]
        for name in tasks.specialists:
            matrix[entry][names.index(name)] = (1 - tasks.end) * count / len(tasks.specialists)
            matrix[names.index(name)][entry] = 1 / count
        routing, calls = tuple(map(tuple, matrix)), float(tasks.visits(names)[:, entry].sum())
    changes = {
        "name": f"{scenario.name}-fluid",
        "description": f"The fluid twin of {scenario.name}.",
        "service": "fluid",
        "tasks": None,
        "routing": routing,
        "objective": Objective(
            **{**prices.model_dump(), "latency": prices.latency + calls * prices.task, "task": 0.0}
        ),
    }
    return Scenario.model_validate({**scenario.model_dump(), **changes})
