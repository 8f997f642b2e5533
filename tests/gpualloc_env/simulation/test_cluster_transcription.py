"""The compiled step of a cluster agrees with a transcription of the design in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.call_episodes import server, tasks_of
from support.cluster_episodes import replayed_cluster
from support.cluster_transcription import ClusterTranscription

from gpualloc_env import Network, Node, Objective, Platform, Scenario, Traffic
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import TERMS

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
            iteration_s=random.uniform(0.01, 0.1),
            iteration_s_per_call=random.uniform(0, 0.05),
            prefill_s_per_token=random.uniform(0.001, 0.02),
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
                tokens = random.integers(1, 30), random.integers(1, 25)
                calls.append((random.integers(count), stage, *tokens, after_s))
        tasks.append((time, calls))
    if not tasks:
        tasks = [(0.1, [(0, 0, 1, 1, 0.0)])]
    shape = (count, scenario.num_gpus)
    palette = [random.uniform(0, 1, shape) * (random.random(shape) < random.uniform(0.2, 1)) for _ in range(4)]
    actions = np.array([palette[random.integers(4)] for _ in range(steps)])
    return scenario, tasks_of(*tasks), actions


@settings(max_examples=60, deadline=None, derandomize=True)
@given(clusters())
def test_the_compiled_step_of_a_cluster_agrees_with_the_transcription(case):
    assert_agrees(*case)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(clusters())
def test_the_compiled_step_of_a_cluster_agrees_with_the_transcription_in_many_cases(case):
    assert_agrees(*case)


def assert_agrees(scenario, tasks, actions):
    batch = replayed_cluster(scenario, tasks)
    task_rate = len(tasks.time) / (scenario.steps * scenario.dt)
    book = ClusterTranscription(scenario, tasks, batch.state["mean_rate"][0].tolist(), task_rate)
    for t, action in enumerate(actions):
        batch.step(action[None])
        expected = book.step(action.tolist())
        for name in ("share", "resident"):
            assert_close(getattr(batch.shown, name)[0], expected[name], f"{name} of step {t}")
        for name in ("arrivals", "queue", "served", "backlog", "capacity"):
            assert_close(batch.outcome[name][0], expected[name], f"{name} of step {t}")
        for name in EVENTS:
            assert batch.cluster.counts[name][0] == expected[name], f"{name} of step {t}"
        for name in TERMS:
            assert_close(batch.worth[name][0], expected["terms"][name], f"{name} of step {t}")
        for name, rows in book.seen().items():
            assert_close(getattr(batch.cluster_view, name)[0], rows, f"{name} seen after step {t}")
        assert batch.cluster_view.held[0].tolist() == [len(calls) for calls in book.held]
        assert (batch.cluster.memory["free_mb"] >= 0).all()


def assert_close(actual, expected, what):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=what)
