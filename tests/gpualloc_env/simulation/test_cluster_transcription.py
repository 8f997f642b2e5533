"""The compiled step of a cluster agrees with a transcription of the design in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from support.cluster_episodes import clusters, replayed_cluster
from support.cluster_transcription import ClusterTranscription

from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import TERMS


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
            assert_close(getattr(batch.view, name)[0], rows, f"{name} seen after step {t}")
        assert batch.view.held[0].tolist() == [len(calls) for calls in book.held]
        assert (batch.cluster.memory["free_mb"] >= 0).all()


def assert_close(actual, expected, what):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=what)
