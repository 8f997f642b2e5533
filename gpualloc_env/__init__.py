"""GPUAlloc: how should a few GPUs be shared among many LLM agents, from moment to moment?

Importing the package registers the Gymnasium environment `GPUAlloc-v0`; numba and pydantic are
loaded with the first name that needs them, or with the first environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING

import gymnasium as gym

if TYPE_CHECKING:
    from gpualloc_env.agents import Agent
    from gpualloc_env.batch import Batch
    from gpualloc_env.observation import OBSERVATION_FEATURES, View, observe
    from gpualloc_env.platform import Platform
    from gpualloc_env.reward import Objective
    from gpualloc_env.scenario import SCENARIOS, Scenario, ScenarioError, load_scenario
    from gpualloc_env.traces import Trace, TraceError
    from gpualloc_env.workload import Burst, Cycle, Surge, Traffic

__version__ = "0.1.0"

__all__ = [
    "OBSERVATION_FEATURES",
    "SCENARIOS",
    "Agent",
    "Batch",
    "Burst",
    "Cycle",
    "Objective",
    "Platform",
    "Scenario",
    "ScenarioError",
    "Surge",
    "Trace",
    "TraceError",
    "Traffic",
    "View",
    "load_scenario",
    "observe",
]

_MODULE_OF = {
    "OBSERVATION_FEATURES": "observation",
    "SCENARIOS": "scenario",
    "Agent": "agents",
    "Batch": "batch",
    "Burst": "workload",
    "Cycle": "workload",
    "Objective": "reward",
    "Platform": "platform",
    "Scenario": "scenario",
    "ScenarioError": "scenario",
    "Surge": "workload",
    "Trace": "traces",
    "TraceError": "traces",
    "Traffic": "workload",
    "View": "observation",
    "load_scenario": "scenario",
    "observe": "observation",
}


def __getattr__(name: str) -> object:
    """Load a name of `__all__` when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


gym.register(  # pyright: ignore[reportUnknownMemberType]
    id="GPUAlloc-v0",
    entry_point="gpualloc_env.env:GPUAllocEnv",
    vector_entry_point="gpualloc_env.vector_env:GPUAllocVectorEnv",
    # The environment itself refuses bad actions and steps without a reset; wrappers that look for
    # them a second time would take a fifth of a step.
    disable_env_checker=True,
    order_enforce=False,
)
