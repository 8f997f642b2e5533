"""Episodes of clusters made by hand."""

import numpy as np
from hypothesis import strategies as st

from gpualloc_env import Network, Node, Objective, Platform, Scenario, Traffic
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.simulation.state import TERMS
from gpualloc_env.simulation.tasks import LOG
from support.call_episodes import server, tasks_of


def replayed_cluster(scenario, tasks, num_envs=1, record=True):
    """A batch of clusters at the start of episodes that play these tasks."""
    law = scenario.source()._replace(kind=LOG, recorded=tasks, episodes=1)
    batch = ClusterBatch(scenario, num_envs, record=record, source=law)
    batch.seed(0)
    batch.reset()
    return batch


# Sizes and times that no two events can share by chance, so that only the design decides what comes first.
MEMORY = (300.0, 450.0, 700.0)


@st.composite
def clusters(draw):
    """A scenario with nodes, tasks, and the fractions that a policy asks for in every step."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, steps, dt = draw(st.integers(1, 5)), draw(st.integers(2, 25)), draw(st.sampled_from([0.5, 1.0]))
    agents = tuple(
        server(
            f"agent-{i}",
            iteration_s=random.uniform(0.01, 0.05),
            iteration_s_per_call=random.uniform(0, 0.05),
            prefill_s_per_token=random.uniform(0.001, 0.01),
            max_batch=int(random.integers(1, 4)),
            kv_tokens=int(random.integers(60, 150)),
            kv_mb_per_token=1.0,
            model_mb=float(random.integers(20, 250)),
            kappa=random.choice([None, 0.5, 1.0]),
            slo_s=random.uniform(0.3, 4),
            min_share=random.uniform(0, 0.5),
            priority=int(random.integers(1, 4)),
        )
        for i in range(count)
    )
    nodes = tuple(
        Node(
            gpus=int(random.integers(1, 3)),
            memory_mb=random.choice(MEMORY),
            speed=random.choice([0.5, 1.0, 2.0]),
            host_memory_mb=random.choice([0.0, 150.0, 300.0, 1000.0]),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    scenario = Scenario(
        name="drawn",
        service="requests",
        agents=agents,
        nodes=nodes,
        network=Network(
            hop_s=random.choice([0.0, 0.21, 1.7]), network_mb_per_s=random.choice([np.inf, 0.0007])
        ),
        platform=Platform(
            max_share=random.choice([0.4, 1.0]),
            slice=random.choice([None, 1 / 7]),
            reallocation_s=random.choice([0.0, 0.1, 3.0]),
            deadband=random.choice([0.0, 0.1]),
            container_start_s=random.choice([0.0, 0.7]),
            load_mb_per_s=random.choice([97.0, np.inf]),
            wake_s=random.choice([0.0, 0.13]),
            wake_mb_per_s=random.choice([1013.0, np.inf]),
            sleep_after_s=random.choice([None, 0.0, 2.0, 5.0, np.inf]),
            keep_alive_s=random.choice([2.0, 6.0, np.inf]),
        ),
        objective=Objective(**dict.fromkeys(TERMS, 0.5)),
        traffic=Traffic(rates_rps=(1.0, *[0.0] * (count - 1))),
        steps=steps,
        dt=dt,
        warm=bool(random.integers(2)),
    )
    tasks, time = [], 0.0
    while (time := time + random.exponential(0.4)) < steps * dt and len(tasks) < 40:
        calls = []
        for stage in range(random.integers(1, 4)):
            for _ in range(random.integers(1, 3)):
                after_s = random.choice([0.0, random.exponential(0.3)])
                tokens = random.integers(1, 20), random.integers(1, 12)
                calls.append((random.integers(count), stage, *tokens, after_s))
        tasks.append((time, calls))
    if not tasks:
        tasks = [(0.1, [(0, 0, 1, 1, 0.0)])]
    shape = (count, scenario.num_gpus)
    palette = [
        random.uniform(0, 1, shape) * (random.random(shape) < random.uniform(0.2, 1)) for _ in range(4)
    ]
    actions = np.array([palette[random.integers(4)] for _ in range(steps)])
    return scenario, tasks_of(*tasks), actions
