"""GPUAlloc: how should a few GPUs be shared among many LLM agents, from moment to moment?

Importing the package registers the Gymnasium environments `GPUAlloc-v0` and `GPUAlloc-MO-v0`; numba
and pydantic are loaded with the first name that needs them, or with the first environment.
"""

import gymnasium as gym
import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

__version__ = "0.1.0"

# The environments themselves refuse bad actions and steps without a reset; wrappers that look for
# them a second time would take a fifth of a step.
_UNCHECKED = {"disable_env_checker": True, "order_enforce": False}
gym.register(  # pyright: ignore[reportUnknownMemberType]
    id="GPUAlloc-v0",
    entry_point="gpualloc_env.env:GPUAllocEnv",
    vector_entry_point="gpualloc_env.vector_env:GPUAllocVectorEnv",
    **_UNCHECKED,
)
gym.register(  # pyright: ignore[reportUnknownMemberType]
    id="GPUAlloc-MO-v0", entry_point="gpualloc_env.multi_objective:GPUAllocMOEnv", **_UNCHECKED
)
