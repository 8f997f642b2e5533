"""GPUAlloc: how should a few GPUs be shared among many LLM agents, from moment to moment?

Importing the package registers the Gymnasium environments `GPUAlloc-v0`, for one pool of GPUs,
`GPUAlloc-MO-v0`, the same with the terms of the reward as a vector, and `GPUCluster-v0`, for GPUs on
several nodes; numba and pydantic are loaded with the first name that needs them, or with the first
environment.
"""

from typing import Any

import gymnasium as gym
import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

__version__ = "0.1.0"

# The environments themselves refuse bad actions and steps without a reset; wrappers that look for
# them a second time would take a fifth of a step.
_UNCHECKED: Any = {"disable_env_checker": True, "order_enforce": False}
for _prefix, _module in (("GPUAlloc", ""), ("GPUCluster", "cluster_")):
    gym.register(  # pyright: ignore[reportUnknownMemberType]
        id=f"{_prefix}-v0",
        entry_point=f"gpualloc_env.{_module}env:{_prefix}Env",
        vector_entry_point=f"gpualloc_env.{_module}vector_env:{_prefix}VectorEnv",
        **_UNCHECKED,
    )
gym.register(  # pyright: ignore[reportUnknownMemberType]
    id="GPUAlloc-MO-v0", entry_point="gpualloc_env.multi_objective:GPUAllocMOEnv", **_UNCHECKED
)
