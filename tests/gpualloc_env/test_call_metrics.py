"""Metrics of calls and tasks, by hand and against the times of all calls."""

import numpy as np
import pytest
from support.call_episodes import call_times, played, scenario_of, server, tasks_of
from support.episodes import started

from gpualloc_env import load_scenario
from gpualloc_env.call_metrics import TASK_METRICS, TOKEN_METRICS
from gpualloc_env.metrics import BUILT_IN, OF_CALLS, episode_metrics


def test_by_hand():
    agent = server(iteration_s=1.0, prefill_s_per_token=1.0, max_batch=2)
    other = server("other")
    scenario = scenario_of(agent, other, steps=10, task_slo_s=4.0)
    tasks = tasks_of(
        (0.0, [(0, 0, 1, 3, 0)]),  # first token at 1 s, then two at 1 s each, standing still from 2 s to 4 s
        (2.0, [(0, 0, 2, 1, 0), (1, 1, 1, 1, 1.0)]),  # 4 s; then from 5 s to 6 s
        (9.0, [(0, 0, 3, 5, 0)]),  # unfinished at 10 s, without a first token
    )
    batch, times = played(scenario, tasks, [0.5, 0.5])
    np.testing.assert_allclose(times[:3, 1:], [[1, 5], [4, 4], [6, 6]])
    metrics = episode_metrics(batch, 0)
    assert metrics["latency_mean_s"] == pytest.approx((5 + 2 + 1 + 1) / 4)
    assert metrics["latency_p50_s"] == pytest.approx(1.5)
    assert metrics["ttft_mean_s"] == pytest.approx((1 + 2 + 1 + 1) / 4)
    assert metrics["tpot_mean_s"] == pytest.approx((5 - 1) / 2)
    assert metrics["output_tokens_per_s"] == pytest.approx((3 + 1 + 1) / 10)
    assert metrics["task_latency_mean_s"] == pytest.approx((5 + 4 + 1) / 3)
    assert metrics["task_latency_p95_s"] == pytest.approx(4.9)
    assert (metrics["tasks_finished"], metrics["unfinished"], metrics["arrived"]) == (2, 1, 4)
    assert metrics["task_slo_attainment"] == pytest.approx(2 / 3)
    assert metrics["slo_attainment"] == pytest.approx(3 / 4) and metrics["goodput_rps"] == pytest.approx(0.2)
    own = metrics["per_agent"]["other"]
    assert (own["latency_mean_s"], own["ttft_p95_s"]) == pytest.approx((1, 1)) and np.isnan(
        own["tpot_mean_s"]
    )


@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
def test_against_the_times_of_all_calls(name):
    scenario = load_scenario(name, steps=150)
    batch = started(scenario, 2, 4, record=True)
    for action in np.random.default_rng(0).dirichlet(np.ones(4), (150, 2)):
        batch.step(action)
    for b in range(2):
        metrics, times, tasks = episode_metrics(batch, b), call_times(batch, b), batch.tasks(b)
        issued = np.isfinite(times[:, 0])
        ended = np.minimum(times, 150)
        for who, own in [(None, issued)] + [
            (agent, issued & (tasks.agent == i)) for i, agent in enumerate(scenario.agent_names)
        ]:
            found = metrics if who is None else metrics["per_agent"][who]
            latency, first = ended[own, 2] - ended[own, 0], ended[own, 1] - ended[own, 0]
            if not own.any():
                assert np.isnan(found["latency_mean_s"])
                continue
            assert found["arrived"] == own.sum()
            # By Little's law, as the fluid has it.
            assert found["latency_mean_s"] == pytest.approx(latency.mean(), rel=1e-9)
            assert found["latency_p95_s"] == pytest.approx(np.quantile(latency, 0.95))
            assert found["ttft_mean_s"] == pytest.approx(first.mean())
            assert found["output_tokens_per_s"] == tasks.output[own & np.isfinite(times[:, 2])].sum() / 150
            done = own & np.isfinite(times[:, 2]) & (tasks.output > 1)
            if done.any():
                pace = (times[done, 2] - times[done, 1]) / (tasks.output[done] - 1)
                assert found["tpot_mean_s"] == pytest.approx(pace.mean())
            slo = np.array([agent.slo_s for agent in scenario.agents])[tasks.agent[own]]
            assert found["slo_attainment"] == pytest.approx((latency <= slo).mean())
        theta = batch.totals["task"][b] / 150
        rate = batch.world.episode["per_task_rate"][b]
        spent = metrics["task_latency_mean_s"] * len(tasks.time)
        assert theta == pytest.approx(spent / 150 * rate, rel=1e-9)


def test_the_names_are_those_of_the_fluid_and_some_more():
    batch = started(load_scenario("team", steps=30), 1, record=True)
    for _ in range(30):
        batch.step(np.full((1, 4), 0.25))
    metrics = episode_metrics(batch, 0)
    assert tuple(metrics) == (*BUILT_IN, *OF_CALLS, "per_agent")
    assert set(OF_CALLS) < {*TOKEN_METRICS, *TASK_METRICS}
