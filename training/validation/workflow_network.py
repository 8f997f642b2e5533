"""The workflow of the scenario of that name as a queueing network: shares that load all agents equally."""

import numpy as np

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array

AGENTS = ("coordinator", "NLP", "vision", "reasoning")
ROUTING = load_scenario("workflow").routing_matrix
THROUGHPUTS = np.array([10.0, 5.0, 6.0, 3.0])
"""The paper's agents at a tenth of their speed, so that steps can be short beside a service."""
VISITS = np.linalg.inv(np.eye(4) - ROUTING.T)[:, 0]
"""How often a task visits each agent, by the traffic equations."""
SHARES = VISITS / THROUGHPUTS / (VISITS / THROUGHPUTS).sum()
SERVICE_TIMES = 1 / (THROUGHPUTS * SHARES)  # [s] of one request at its agent's share
TASK_SERVICE_S = float(VISITS @ SERVICE_TIMES)
"""Mean time in service of a task over all its visits [s]: its time in the system when it is alone."""
MAXIMUM_RATE = 1 / float((VISITS / THROUGHPUTS).sum())  # [tasks/s] at load 1, the same for every agent


def equally_loaded(view: View) -> Array:
    """The constant shares at which every agent has the same load."""
    return np.tile(SHARES, (len(view.queue), 1))
