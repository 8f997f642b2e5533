"""Episodes of calls made by hand, and what happened to each call."""

import numpy as np

from gpualloc_env import Agent, Platform, Scenario, Traffic
from gpualloc_env.simulation.calls import Tasks
from training.validation.calls import call_times, replayed_tasks


def server(name="server", **given):
    """An agent whose calls take a second of prefill for each token and none in decode, one at a time."""
    table = {
        "iteration_s": 0.0,
        "iteration_s_per_call": 0.0,
        "prefill_s_per_token": 1.0,
        "prompt_tokens": 1,
        "output_tokens": 1,
        "max_batch": 1,
        "model_mb": 0,
        "slo_s": 2.0,
    }
    return Agent(name=name, **{**table, **given})


def scenario_of(*agents, steps=10, dt=1.0, **given):
    """A scenario of such servers on as many GPUs; tasks come to the first."""
    rates = (1.0, *[0.0] * (len(agents) - 1))
    table = {"platform": Platform(gpus=len(agents)), "traffic": Traffic(rates_rps=rates), **given}
    return Scenario(name="calls", service="requests", agents=agents, steps=steps, dt=dt, **table)


def tasks_of(*tasks):
    """Tasks from (time, [(agent, stage, prompt, output, after_s), …]) in the order of their times."""
    calls = [call for _, own in tasks for call in own]
    columns = list(zip(*calls, strict=True))
    first = np.cumsum([0, *(len(own) for _, own in tasks)])
    integers = (np.array(column, dtype=np.int64) for column in columns[:4])
    return Tasks(
        np.array([time for time, _ in tasks], dtype=float),
        first,
        *integers,
        np.array(columns[4], dtype=float),
    )


def played(scenario, tasks, shares):
    """The batch after all steps with constant fractions of the platform, and its call times."""
    batch = replayed_tasks(scenario, tasks, record=True)
    for _ in range(scenario.steps):
        batch.step(np.array([shares], dtype=float))
    return batch, call_times(batch)
